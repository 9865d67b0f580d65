"""The detector switched on for a while in the test's own process, and the words to say what it should have seen."""

import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

import aiocop

LOOPS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@contextmanager
def detecting(threshold_ms: float = 30) -> Iterator[list[aiocop.SlowTaskEvent]]:
    """Everything the published quick start sets up; yields the list that the events go to."""
    events: list[aiocop.SlowTaskEvent] = []
    # A test run's heap is large: collecting it would freeze the loop, and be reported, at any moment.
    gc.collect()
    gc.freeze()
    aiocop.patch_audit_functions()
    aiocop.start_blocking_io_detection()
    aiocop.detect_slow_tasks(threshold_ms=threshold_ms, on_slow_task=events.append)
    aiocop.activate()
    try:
        yield events
    finally:
        aiocop.stop(0)
        aiocop.unregister_slow_task_callback(events.append)
        aiocop.clear_slow_task_callbacks()
        aiocop.clear_context_providers()
        gc.unfreeze()


def run_tasks(loop: str, *functions: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run coroutine functions one after the other, each as a task of its own named after it, on a fresh loop."""

    async def main() -> None:
        for function in functions:
            await asyncio.create_task(function(), name=function.__name__)

    LOOPS[loop](main())


def run_until_sampled(loop: str, function: Callable[[], Coroutine[Any, Any, object]]) -> aiocop.SlowTaskEvent:
    """The one event of a freeze during which the watchdog's thread got a CPU: on a busy host not every one has it."""
    for _ in range(10):
        with detecting() as events:
            run_tasks(loop, function)
        event = the_slow_one(events)
        if event.cpu_stack_samples:
            break
    return event


def slow(events: list[aiocop.SlowTaskEvent]) -> list[aiocop.SlowTaskEvent]:
    """The events above the threshold that are somebody's fault: on a busy host any slice may be starved."""
    return [event for event in events if event.exceeded_threshold and event.cause != "starved"]


def the_slow_one(events: list[aiocop.SlowTaskEvent]) -> aiocop.SlowTaskEvent:
    """The one event above the threshold: one freeze is one event."""
    found = slow(events)
    assert len(found) == 1, [(event.call_site, event.elapsed_ms, event.task_name) for event in found]
    return found[0]


def operations(events: list[aiocop.SlowTaskEvent]) -> list[str]:
    """Names of the operations seen, in order."""
    return [call["event"].partition("(")[0] for event in events for call in event.blocking_events]


def line_of(function: Callable[..., object], text: str) -> int:
    """Number of the only line of a function that contains `text`."""

    lines, first = inspect.getsourcelines(function)
    (offset,) = [index for index, line in enumerate(lines) if text in line]
    return first + offset
