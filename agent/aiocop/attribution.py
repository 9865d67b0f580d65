"""Whose the time of a slow slice was, where no wrapper measured it: pure functions over what the watchdog saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from aiocop.frames import is_loop_module
from aiocop.thread_clock import ThreadTimes
from aiocop.traces import StackFrame
from aiocop_wire.light_typing import NamedTuple

_GLIMPSE_VALID_NS: Final = 40_000_000
"""What happened to a thread up to this long before a slice began may be charged to it."""


class Moment(NamedTuple):
    """A thread's times at one moment."""

    at_ns: int
    times: ThreadTimes | None


class EndedCall(NamedTuple):
    """A measured call of the running slice that ended, and the thread's times then."""

    began_ns: int
    ended: Moment


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
    return _in_slice_ns(ended.times.queued_ns - glimpse.times.queued_ns, glimpse, ended, elapsed_ns)


def waited_ns(glimpse: Moment | None, ended: Moment, elapsed_ns: int) -> int:
    """Time of a slice in which its thread was not ready to run, at least; 0 where unknown. `glimpse` is as above."""
    if glimpse is None or glimpse.times is None or ended.times is None:
        return 0
    ready_ns = ended.times.ready_ns - glimpse.times.ready_ns
    return _in_slice_ns(ended.at_ns - glimpse.at_ns - ready_ns, glimpse, ended, elapsed_ns)


def worked_ns(glimpse: Moment | None, ended: Moment, elapsed_ns: int) -> int:
    """Time of a slice in which its thread was on a CPU, at least; 0 where unknown. `glimpse` is as above."""
    if glimpse is None or glimpse.times is None or ended.times is None:
        return 0
    return _in_slice_ns(ended.times.cpu_ns - glimpse.times.cpu_ns, glimpse, ended, elapsed_ns)


def _in_slice_ns(since_ns: int, glimpse: Moment, ended: Moment, elapsed_ns: int) -> int:
    """How much of what a thread did since `glimpse` must have been in the slice."""
    # What the look came too early may all have gone before the slice: nothing is excused on a guess.
    early_ns = max(0, ended.at_ns - elapsed_ns - glimpse.at_ns)
    return max(0, min(since_ns - early_ns, elapsed_ns))


def looks_since(
    began_ns: int, ended: Moment, glimpse: Moment | None, samples: Sequence[Sample], calls: Sequence[EndedCall]
) -> list[Moment]:
    """All looks at a thread's times from `began_ns` to `ended`, and the last one before; oldest first.

    `samples` and `calls` are those of the slice.
    """
    looks = [Moment(sample.at_ns, sample.times) for sample in samples] + [call.ended for call in calls]
    if glimpse is not None:
        looks.append(glimpse)
    looks = sorted([look for look in looks if look.times is not None and look.at_ns < ended.at_ns])
    before = max([index for index, look in enumerate(looks) if look.at_ns <= began_ns], default=0)
    return [*looks[before:], ended]


def gil_wait_ns(
    looks: Sequence[Moment],
    switch_interval_ns: int,
    explained_ns: int = 0,
    elsewhere: Sequence[tuple[int, int]] = (),
) -> int:
    """Time between the first and the last of some looks at a thread in which it waited for the GIL; 0 where unknown.

    `explained_ns` of its waiting are known to be something else; most of that was from and until `elsewhere`. Where
    most of the rest is no waiting for the GIL, none is claimed: a thread that only takes the GIL from another in
    passing wakes up just as often.

    Whoever waits for the GIL wakes up every switch interval to ask for it again (take_gil in CPython's ceval_gil.c);
    nobody who waits for anything else does. So the number of its wake-ups tells, but for two that any wait has, and
    those of a thread that works and is preempted. They tell of the time between the two looks around them: who was
    woken often before a wait, or at its end, did not wait for the GIL all that time.
    """
    idle_ns = asked_ns = all_idle_ns = any_wait_ns = 0
    for before, after in pairwise(looks):
        if before.times is None or after.times is None:
            return 0
        between_ns = waited_ns(before, after, after.at_ns - before.at_ns)
        all_idle_ns += between_ns
        here_ns = max(0, between_ns - sum([_common_ns(before.at_ns, after.at_ns, *span) for span in elsewhere]))
        cpu_ns = after.times.cpu_ns - before.times.cpu_ns
        woken_ns = (after.times.runs - before.times.runs) * switch_interval_ns - cpu_ns
        asking_ns = max(0, min(here_ns, woken_ns))
        idle_ns += here_ns
        asked_ns += asking_ns
        any_wait_ns = max(any_wait_ns, asking_ns - max(0, min(here_ns, woken_ns - 2 * switch_interval_ns)))
    idle_ns = min(idle_ns, all_idle_ns - explained_ns)
    asked_ns -= any_wait_ns
    if idle_ns <= 0 or 2 * asked_ns <= idle_ns:
        return 0
    # A wake-up comes late, the later the busier the host: a third of a wait may pass between them.
    return min(idle_ns, asked_ns if 4 * asked_ns < 3 * idle_ns else idle_ns)


def _common_ns(since_ns: int, until_ns: int, began_ns: int, ended_ns: int) -> int:
    return max(0, min(until_ns, ended_ns) - max(since_ns, began_ns))


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
