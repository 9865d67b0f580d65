"""Whose the time of a slow slice was, where no wrapper measured it: pure functions over what the watchdog saw."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from aiocop.frames import is_loop_module
from aiocop.thread_clock import ThreadTimes
from aiocop.traces import StackFrame

_GLIMPSE_VALID_NS: Final = 40_000_000
"""What happened to a thread up to this long before a slice began may be charged to it."""


class Moment(NamedTuple):
    """A thread's times at one moment."""

    at_ns: int
    times: ThreadTimes | None


class Sample(NamedTuple):
    """What the watchdog saw of a slice that overran."""

    started_ns: int
    """Names the slice, as in LoopThread."""
    at_ns: int
    times: ThreadTimes | None
    measured: bool
    """A wrapped call was running: its wrapper knows the time better."""
    stack: list[StackFrame]


def is_recent(glimpse: Moment, started_ns: int) -> bool:
    """Whether what happened since `glimpse` happened to the slice that began then."""
    return glimpse.at_ns >= started_ns - _GLIMPSE_VALID_NS


def starved_ns(glimpse: Moment | None, ended: Moment, elapsed_ns: int) -> int:
    """Time of a slice in which its thread was ready and the host gave the CPU to somebody else; 0 where unknown.

    `glimpse` is the last look at the thread's times before the slice, or early in it.
    """
    if glimpse is None or glimpse.times is None or ended.times is None:
        return 0
    # What the look came too early may all have gone before the slice: nothing is excused on a guess.
    early_ns = max(0, ended.at_ns - elapsed_ns - glimpse.at_ns)
    return max(0, min(ended.times.queued_ns - glimpse.times.queued_ns - early_ns, elapsed_ns))


def waited_ns(glimpse: Moment | None, ended: Moment, elapsed_ns: int) -> int:
    """Time of a slice in which its thread was not ready to run, at least; 0 where unknown. `glimpse` is as above."""
    if glimpse is None or glimpse.times is None or ended.times is None:
        return 0
    waited_ns = ended.at_ns - glimpse.at_ns - ended.times.ready_ns + glimpse.times.ready_ns
    return max(0, waited_ns - max(0, ended.at_ns - elapsed_ns - glimpse.at_ns))


def gil_wait_ns(before: Moment | None, after: Moment, switch_interval_ns: int, explained_ns: int = 0) -> int:
    """Time between two moments in which a thread waited for the GIL; 0 where unknown.

    `explained_ns` of its waiting are known to be something else. Where most of the rest is no waiting for the GIL, none
    is claimed: a thread that only takes the GIL from another in passing wakes up just as often.

    Whoever waits for the GIL wakes up every switch interval to ask for it again (take_gil in CPython's ceval_gil.c);
    nobody who waits for anything else does. So the number of its wake-ups tells, but for two that any wait has, and
    those of a thread that works and is preempted.
    """
    if before is None or before.times is None or after.times is None:
        return 0
    idle_ns = waited_ns(before, after, after.at_ns - before.at_ns) - explained_ns
    worked_ns = after.times.cpu_ns - before.times.cpu_ns
    asked_ns = (after.times.runs - before.times.runs - 2) * switch_interval_ns - worked_ns
    if idle_ns <= 0 or 2 * asked_ns <= idle_ns:
        return 0
    # A wake-up comes late, the later the busier the host: a third of a wait may pass between them.
    return idle_ns if 4 * asked_ns >= 3 * idle_ns else asked_ns


def may_have_computed(glimpse: Moment | None, ended: Moment, needed_ns: int) -> bool:
    """Whether a thread had so much CPU time since the last look at it; True where unknown."""
    if glimpse is None or glimpse.times is None or ended.times is None:
        return True
    return ended.times.cpu_ns - glimpse.times.cpu_ns >= needed_ns


def shares(samples: list[Sample], rest_ns: int, started_ns: int, elapsed_ns: int) -> Iterator[tuple[Sample, int]]:
    """Each sample with its part of the time: it stands for what came before it, the last one also for what followed."""
    since_ns = started_ns
    for sample in samples:
        until_ns = started_ns + elapsed_ns if sample is samples[-1] else sample.at_ns
        yield sample, rest_ns * (until_ns - since_ns) // elapsed_ns
        since_ns = until_ns


def tells(sample: Sample) -> bool:
    """Whether a sample shows anything but the loop's own work, as it does when it comes late, after a native call."""
    return any(not is_loop_module(item.module) for item in sample.stack)


def is_waiting(samples: list[Sample], ended: Moment, slice_ns: int, excused_ns: int = 0) -> bool:
    """Whether the thread mostly waited in what followed the samples that no wrapper measured.

    `excused_ns` of the waiting are explained otherwise: the GIL, or a process that was stopped. Being ready without a
    CPU is not waiting: a busy line stays one on a busy host. Nor is a slice that could be watched for less than a
    quarter of its time: what waits gives the GIL away, what keeps the watchdog from looking does not.
    """
    idle_ns = elapsed_ns = 0
    following: list[Sample | Moment] = [*samples[1:], ended]
    for sample, after in zip(samples, following):  # noqa: B905 - same length by construction
        if sample.times is None or after.times is None:
            return False
        if not sample.measured:
            passed_ns = after.at_ns - sample.at_ns
            elapsed_ns += passed_ns
            idle_ns += passed_ns - after.times.ready_ns + sample.times.ready_ns
    return 2 * (idle_ns - excused_ns) > elapsed_ns and 4 * elapsed_ns > slice_ns
