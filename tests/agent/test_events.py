"""The events that callbacks get: whole dataclasses of the published kind, each its receiver's own."""

import asyncio
import copy
import dataclasses
import json
import os
import pickle
import threading
import time

import pytest
from tests.support.detecting import LOOPS, detecting

import aiocop


async def one_call():
    os.getcwd()


async def several_calls():
    os.getcwd()
    os.stat("/")
    os.stat("/")


async def over_the_threshold():
    time.sleep(0.06)


async def no_call():
    deadline = time.perf_counter() + 0.06
    while time.perf_counter() < deadline:
        pass


JOBS = (one_call, several_calls, over_the_threshold, no_call)


@pytest.fixture(scope="module", params=list(LOOPS))
def events(request):
    async def main():
        for job in JOBS:
            await asyncio.create_task(job(), name=job.__name__)

    with detecting() as found:
        LOOPS[request.param](main())
    by_name = {event.task_name: event for event in found}
    assert set(by_name) >= {job.__name__ for job in JOBS}
    return by_name


@pytest.mark.parametrize("job", JOBS)
def test_an_event_is_what_its_constructor_would_have_made(events, job):
    event = events[job.__name__]
    names = [field.name for field in dataclasses.fields(aiocop.SlowTaskEvent)]
    assert list(vars(event)) == names
    made = aiocop.SlowTaskEvent(**{name: getattr(event, name) for name in names})
    assert type(event) is aiocop.SlowTaskEvent
    assert event == made
    assert repr(event) == repr(made)
    assert dataclasses.asdict(event) == dataclasses.asdict(made)
    assert dataclasses.replace(event, task_name="other").task_name == "other"
    assert pickle.loads(pickle.dumps(event)) == event
    assert copy.deepcopy(event) == event
    assert json.loads(json.dumps(vars(event)))["task_name"] == job.__name__
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.task_name = "other"


def test_a_fast_slice_says_what_it_did(events):
    event = events["one_call"]
    assert (event.exceeded_threshold, event.reason, event.cause) == (False, "io_blocking", "io")
    assert (event.severity_score, event.severity_level, event.cpu_ms) == (0, "low", None)
    assert (event.threshold_ms, event.thread_name) == (30.0, threading.current_thread().name)
    assert 0 < event.elapsed_ms < 30
    assert abs(time.time() - event.started_at) < 600
    (call,) = event.blocking_events
    assert list(call) == [
        *("event", "trace", "entry_point", "severity", "call_site", "fingerprint", "duration_ms", "advice")
    ]
    assert call["event"] == "os.getcwd()"
    assert call["trace"].startswith(event.call_site)
    assert event.call_site == call["call_site"] == call["entry_point"]
    assert event.call_site.endswith(":one_call")
    assert 0 <= call["duration_ms"] <= event.elapsed_ms


def test_every_call_of_a_slice_is_described_in_order(events):
    calls = events["several_calls"].blocking_events
    assert [call["event"] for call in calls] == ["os.getcwd()", "os.stat(/)", "os.stat(/)"]
    assert events["several_calls"].severity_score == 2
    assert len({call["call_site"] for call in calls}) == 3


def test_a_slice_over_the_threshold_says_so(events):
    event = events["over_the_threshold"]
    assert event.exceeded_threshold
    assert (event.severity_level, event.blocking_events[0]["event"]) == ("high", "time.sleep(0.06)")
    assert not events["no_call"].blocking_events
    assert events["no_call"].exceeded_threshold


@pytest.mark.parametrize("loop", LOOPS)
def test_what_a_callback_does_to_its_event_changes_no_other(loop):
    async def main():
        for _ in range(3):
            await asyncio.create_task(one_call())

    def spoil(event):
        event.blocking_events[0]["trace"] = "spoilt"
        event.blocking_events.append({})
        event.context["spoilt"] = True
        event.cpu_stack_samples.append({})

    with detecting(threshold_ms=60_000):
        copies = []
        aiocop.register_slow_task_callback(lambda event: copies.append(copy.deepcopy(event)))
        aiocop.register_slow_task_callback(spoil)
        LOOPS[loop](main())
    assert len(copies) == 3
    for event in copies:
        (call,) = event.blocking_events
        assert call["trace"] != "spoilt"
        assert (event.context, event.cpu_stack_samples) == ({}, [])


@pytest.mark.parametrize("loop", LOOPS)
def test_the_same_call_has_the_trace_of_whoever_made_it(loop):
    def helper():
        os.getcwd()

    async def first():
        helper()

    async def second():
        helper()

    async def main():
        for job in (first, second, first, second):
            await asyncio.create_task(job())

    with detecting(threshold_ms=60_000) as events:
        LOOPS[loop](main())
    callers = [event.blocking_events[0]["trace"].split(" <- ")[1].rpartition(".")[2] for event in events]
    assert callers == ["first", "second", "first", "second"]
    assert len({event.blocking_events[0]["fingerprint"] for event in events}) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_library_functions_that_look_alike_are_told_apart(loop):
    """Above the call site, in a function's first bytes, where wrappers of the same shape differ by nothing else."""
    library = {"__name__": "library"}
    source = "def get(step):\n    return step()\n\ndef head(step):\n    return step()\n"
    exec(compile(source, "/srv/lib/site-packages/library.py", "exec"), library)

    def helper():
        os.getcwd()

    async def main():
        for name in ("get", "head", "get", "head"):
            library[name](helper)
            await asyncio.sleep(0)

    with detecting(threshold_ms=60_000) as events:
        LOOPS[loop](main())
    traces = [call["trace"].split(" <- ") for event in events for call in event.blocking_events]
    assert [trace[1] for trace in traces] == ["library.py:2:get", "library.py:5:head"] * 2
