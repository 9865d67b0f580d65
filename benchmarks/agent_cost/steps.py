"""Where the agent's time goes on a loop's thread, step by step: `python steps.py [ROUNDS]`. Prints nanoseconds as JSON.

Each figure is CPU time of one thread, the least of many rounds: what is left when nothing else runs. First come the
parts that the interpreter charges whoever wants to know this much, then the agent's paths, as differences between the
same callback run bare, watched, and watched with a slow task callback registered. Callbacks run as asyncio runs them,
through `Handle._run`, without the rest of a loop around them.
"""

import asyncio
import json
import os
import sys
import threading
import time
from asyncio.events import Handle
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from types import MethodType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import aiocop

REPEATS = 1_000
"""Calls per round: one to ten milliseconds, short enough that some rounds are not interrupted."""
DEPTH = 20
"""Frames of the stacks whose cost per frame is measured."""
SITE_FILE = "/srv/venv/lib/site-packages/library.py"
APPLICATION_FILE = "/srv/shop/deep.py"

Step = Callable[[], object]


def least_ns(step: Step, rounds: int) -> float:
    """CPU time of one call of `step`, the loop around it included."""
    clock = time.thread_time_ns
    best = sys.maxsize
    for _ in range(rounds):
        started = clock()
        for _ in repeat(None, REPEATS):
            step()
        best = min(best, clock() - started)
    return best / REPEATS


# --- what the interpreter charges -------------------------------------------------------------------------------------


def parts(rounds: int) -> dict[str, float]:
    """What knowing who blocked, and for how long, asks of the interpreter; the agent's audit hook is installed."""
    now, ident, frame_of = time.perf_counter_ns, threading.get_ident, sys._getframe  # noqa: SLF001 - as the agent does
    by_ident = {ident(): object()}
    by_key = {("os.getcwd", "shop.orders", 42): object()}
    module, line = "shop.orders", 42
    around = MethodType(lambda _target, /, *args, **kwargs: ident(*args, **kwargs), object())

    def nothing():
        pass

    def caller():
        return frame_of(0)

    def caller_and_line():
        frame = frame_of(0)
        return frame.f_globals.get("__name__"), frame.f_lineno

    def callers_caller():
        frame = frame_of(0).f_back
        return frame.f_globals.get("__name__"), frame.f_lineno

    def clock_twice():
        now()
        now()

    def construct():
        event(
            elapsed_ms=1.0,
            threshold_ms=30.0,
            exceeded_threshold=False,
            severity_score=0,
            severity_level="low",
            reason="io_blocking",
            blocking_events=[],
            context={},
            cpu_stack_samples=[],
        )

    event = aiocop.SlowTaskEvent
    own = least_ns(nothing, rounds)
    frame = least_ns(caller, rounds) - own
    lines = least_ns(caller_and_line, rounds) - own
    return {
        "the clock, twice": least_ns(clock_twice, rounds) - own,
        "which thread this is, and what is known of it": least_ns(lambda: by_ident.get(ident()), rounds) - own,
        "a function around a built-in function": least_ns(lambda: around(), rounds) - least_ns(lambda: ident(), rounds),
        "the calling frame (sys._getframe)": frame,
        "its module and line": lines - frame,
        "a key of three, looked for": least_ns(lambda: by_key.get(("os.getcwd", module, line)), rounds) - own,
        "one more frame up the stack": least_ns(callers_caller, rounds) - own - frame,
        "a SlowTaskEvent, by its constructor": least_ns(construct, rounds) - own,
    }


# --- the agent's paths ------------------------------------------------------------------------------------------------


def nested(file: str, module: str, depth: int) -> Callable[[Step], object]:
    """A function that calls another through `depth` frames of a module in `file`."""
    lines = ["def f0(step):\n    step()\n"]
    lines += [f"def f{number}(step):\n    f{number - 1}(step)\n" for number in range(1, depth)]
    namespace = {"__name__": module}
    exec(compile("".join(lines), file, "exec"), namespace)
    return namespace[f"f{depth - 1}"]


def nothing() -> None:
    """A callback in which nothing happens."""


def one_call() -> None:
    """A callback that makes the cheapest call of the catalogue."""
    os.getcwd()


def two_calls() -> None:
    """The same with a second call, at a site of its own."""
    os.getcwd()
    os.getcwd()


through_library = nested(SITE_FILE, "library", DEPTH)
under_application = nested(APPLICATION_FILE, "shop.deep", DEPTH)


def call_in_library() -> None:
    """A library makes the call, deep down."""
    through_library(os.getcwd)


def call_under_application() -> None:
    """Application code makes the call, deep down."""
    under_application(one_call)


CALLBACKS = (nothing, one_call, two_calls, call_in_library, call_under_application)


def callbacks(rounds: int) -> dict[str, float]:
    """What each callback costs now, by name."""
    loop = asyncio.new_event_loop()
    try:
        found = {}
        for callback in CALLBACKS:
            handle = Handle(callback, (), loop, None)
            # Looked for each time: the agent replaces it.
            found[callback.__name__] = least_ns(lambda handle=handle: handle._run(), rounds)  # noqa: SLF001 - as a loop does
        return found
    finally:
        loop.close()


def elsewhere(step: Step, rounds: int) -> float:
    """What `step` costs in a thread that runs no loop."""
    found = []
    thread = threading.Thread(target=lambda: found.append(least_ns(step, rounds)))
    thread.start()
    thread.join()
    return found[0]


def audited() -> None:
    """An audit event that is no operation's."""
    sys.audit("benchmark")


def main() -> None:
    """Measure; print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    bare = callbacks(rounds)
    bare_audit, bare_elsewhere = least_ns(audited, rounds), elsewhere(one_call, rounds)
    aiocop.patch_audit_functions()
    aiocop.start_blocking_io_detection()
    aiocop.detect_slow_tasks(threshold_ms=10_000)  # so that an interrupted round makes no slow slice
    aiocop.activate()
    watched = callbacks(rounds)
    hooked_audit, watched_elsewhere = least_ns(audited, rounds), elsewhere(one_call, rounds)
    found_parts = parts(rounds)
    aiocop.register_slow_task_callback(lambda _event: None)
    told = callbacks(rounds)
    aiocop.stop(0)
    stopped = callbacks(rounds)
    stopped_audit = least_ns(audited, rounds)

    added = {name: watched[name] - bare[name] for name in bare}
    events = {name: told[name] - watched[name] for name in bare}
    paths = {
        "a slice in which nothing happens": added["nothing"],
        "the first blocking call of a slice, and its end": added["one_call"] - added["nothing"],
        "one more call": added["two_calls"] - added["one_call"],
        "each library frame between a call and its call site": (added["call_in_library"] - added["one_call"]) / DEPTH,
        "an audit event of no operation": hooked_audit - bare_audit,
        "a call in a thread that runs no loop": watched_elsewhere - bare_elsewhere,
        "with a callback: the event of a slice with one call": events["one_call"],
        "with a callback: one more call": events["two_calls"] - events["one_call"],
        "with a callback: each frame above the call site": (events["call_under_application"] - events["one_call"])
        / (DEPTH + 1),
        "after stop(): a slice": stopped["nothing"] - bare["nothing"],
        "after stop(): a call": stopped["one_call"] - bare["one_call"],
        "after stop(): an audit event": stopped_audit - bare_audit,
    }
    print(json.dumps({"parts": found_parts, "paths": paths}))


if __name__ == "__main__":
    main()
