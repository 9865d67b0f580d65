"""What keeps ready threads from running: another thread that holds the GIL, or the host that stopped the process.

The watchdog asks to be woken at a known time. When it comes late, its own thread's times tell why: it was ready and had
no CPU (the host is busy), it asked for the GIL again and again (some thread held it), or neither: nobody of the process
ran at all, it was stopped. Whether a loop's thread was among those that wanted to run, that thread's times tell
(attribution.gil_wait_ns); who held the GIL, the times of the process's other threads (workers.py).

Who writes what. Whoever notices first that the watchdog is late, the watchdog itself or a loop's thread at the end of a
wait, calls `judge`; it runs under the GIL, and a second one finds nothing left to judge.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

from aiocop._stdlib import perf_counter_ns
from aiocop.attribution import Moment, gil_wait_ns
from aiocop.cpu_quota import CpuQuota
from aiocop.thread_clock import ThreadClock
from aiocop.workers import Worker, Workers
from aiocop_wire.light_typing import NamedTuple

NEVER: Final = 1 << 62
_LATE_NS: Final = 10_000_000
"""A watchdog that comes later than this is looked into."""
_STOPPED_FROM_NS: Final = 10_000_000
_HINDERED_FROM_NS: Final = 5_000_000
"""Waiting threads ask for the GIL so often: what takes less is no wait for it that could be told."""
_MAX_STOPS: Final = 8
_MAX_QUOTA_NOTES: Final = 16
_JUST_NOW_NS: Final = 5_000_000


class _Hold(NamedTuple):
    """The GIL was held until then."""

    until_ns: int
    held_ns: int
    by: list[Worker]
    """Who may have held it, the likeliest first."""
    gone: bool
    """A thread that is no more may have held it."""


_NO_HOLD: Final = _Hold(0, 0, [], gone=False)


class _Stop(NamedTuple):
    """The process was stopped until then: at least so long, since the watchdog was due, and at most since it slept."""

    until_ns: int
    stopped_ns: int
    at_most_ns: int


class Starvation:
    """How late the watchdog is, and why."""

    def __init__(self, workers: Workers) -> None:
        self.due_ns = NEVER
        """When the watchdog is noticeably late. Read at the start of every slice; 0 while it is parked: the first slice
        wakes it."""
        self._workers = workers
        self._asleep: tuple[int, Moment, ThreadClock] | None = None
        """When the watchdog wants to be woken, its times when it went to sleep, and its clock."""
        self._hold = _NO_HOLD
        self._stops: deque[_Stop] = deque(maxlen=_MAX_STOPS)
        self._quota: CpuQuota | None = None
        """While the watchdog runs."""
        self._throttled: deque[tuple[int, int]] = deque(maxlen=_MAX_QUOTA_NOTES)
        """When the watchdog looked, and for how long the quota had kept the process from running until then."""

    def begin_anew(self) -> None:
        """Forget everything: after stop(), and in a forked child, whose threads are others."""
        self.due_ns = NEVER
        self._asleep = None
        self._hold = _NO_HOLD
        self._stops.clear()
        self._workers.forget()
        self._throttled.clear()
        quota, self._quota = self._quota, None
        if quota is not None:
            quota.close()

    # --- the watchdog's thread ----------------------------------------------------------------------------------------

    def watch_quota(self) -> None:
        """The watchdog begins."""
        self._quota = CpuQuota()

    def sleeps_until(self, wake_ns: int, clock: ThreadClock) -> None:
        """The watchdog is about to sleep; or it is woken, on a loop's thread, and wants to run at once."""
        now = Moment(perf_counter_ns(), clock.read())
        hindered_ns = self._hindered_ns(now)
        if hindered_ns:
            self._stops.append(_Stop(now.at_ns, 0, hindered_ns))
        self._asleep = (wake_ns, now, clock)
        self.due_ns = wake_ns + _LATE_NS

    def parks(self) -> None:
        """The watchdog sleeps until it is woken."""
        self._asleep = None
        self.due_ns = 0

    def note_quota(self) -> None:
        """Note for how long the quota has kept the process from running so far. At every look."""
        if self._quota is not None:
            self._throttled.append((perf_counter_ns(), self._quota.throttled_ns()))

    # --- any thread ---------------------------------------------------------------------------------------------------

    def judge(self, now_ns: int) -> int:
        """Find out why the watchdog is late, if it is; for how long somebody held the GIL from it."""
        asleep = self._asleep
        if asleep is None or now_ns < asleep[0] + _LATE_NS:
            return 0
        wake_ns, before, clock = asleep
        late_ns = now_ns - wake_ns
        after = Moment(now_ns, clock.read())
        # It may come still later: that will be judged by itself.
        self._asleep = (now_ns, after, clock)
        self.due_ns = now_ns + _LATE_NS
        if before.times is None or after.times is None:
            return 0
        rest_ns = late_ns - after.times.queued_ns + before.times.queued_ns
        gil_ns = min(gil_wait_ns((before, after), switch_interval_ns()), max(rest_ns, 0))
        if rest_ns - gil_ns >= _STOPPED_FROM_NS:
            stopped_ns = rest_ns - gil_ns
            self._stops.append(_Stop(now_ns, stopped_ns, stopped_ns + max(0, wake_ns - before.at_ns)))
        if gil_ns < _LATE_NS:
            return 0
        self._hold = _Hold(now_ns, gil_ns, self._workers.busiest(gil_ns), self._workers.somebody_is_gone(gil_ns))
        self.due_ns = 0  # each loop finds out at its next slice whether it wanted to run meanwhile
        return gil_ns

    def stopped_ns(self, since_ns: int, waited_ns: int = 0) -> int:
        """Time since then in which the process was stopped, as far as is known.

        `waited_ns` is how long the asking thread did not run since then without anything that it waited for.
        """
        now_ns = perf_counter_ns()
        if now_ns >= self.due_ns:
            self.judge(now_ns)
        stops = [stop for stop in list(self._stops) if stop.until_ns > since_ns]
        asleep = self._asleep
        if asleep is not None and waited_ns >= _HINDERED_FROM_NS:
            stops.append(_Stop(now_ns, 0, self._hindered_ns(Moment(now_ns, asleep[2].read()))))
            stops.append(_Stop(now_ns, 0, self._throttled_ns(since_ns)))
        at_least_ns = sum([min(stop.stopped_ns, stop.until_ns - since_ns) for stop in stops])
        at_most_ns = sum([min(stop.at_most_ns, stop.until_ns - since_ns) for stop in stops])
        return max(at_least_ns, min(at_most_ns, waited_ns))

    def _hindered_ns(self, now: Moment) -> int:
        """For how long the watchdog had no CPU since it slept last, if that is much.

        It may have held the GIL meanwhile: then whoever waited for that waited for the host.
        """
        asleep = self._asleep
        if asleep is None or asleep[1].times is None or now.times is None:
            return 0
        queued_ns = now.times.queued_ns - asleep[1].times.queued_ns
        return queued_ns if queued_ns >= _HINDERED_FROM_NS else 0

    def _throttled_ns(self, since_ns: int) -> int:
        """For how long the quota kept the process from running since then, at least."""
        noted, quota = list(self._throttled), self._quota
        if quota is None or not noted:
            return 0
        at_ns, before_ns = next((one for one in reversed(noted) if one[0] <= since_ns), noted[0])
        # What was noted too early may all have been before.
        return max(0, quota.throttled_ns() - before_ns - max(0, since_ns - at_ns))

    def just_stopped_ns(self, call_ns: int) -> int:
        """Time of a call, which ended now, in which the process was stopped, if it went on only just now.

        What still waited some milliseconds later had to wait anyway.
        """
        now_ns = perf_counter_ns()
        stopped_ns = self.stopped_ns(now_ns - call_ns)
        return stopped_ns if self._stops and self._stops[-1].until_ns >= now_ns - _JUST_NOW_NS else 0

    def held_ns(self, since_ns: int) -> int:
        """How long the GIL was held last, if that was since then."""
        return self._hold.held_ns if self._hold.until_ns >= since_ns else 0

    def holder(self, waiting: int, since_ns: int, gil_ns: int) -> Worker | None:
        """The thread that held the GIL for most of `gil_ns` since then, while thread `waiting` waited.

        One that has gone on to wait for something is taken where there is no other: its stack shows another line. None
        where nobody is left who worked enough; see `holder_is_gone`.
        """
        noticed = self._hold.by if self._hold.until_ns >= since_ns else []
        found: Worker | None = None
        for worker in (*noticed, *self._workers.busiest(gil_ns)):
            if worker.ident != waiting and worker.stack:
                if not worker.is_idle:
                    return worker
                found = worker
        return found

    def holder_is_gone(self, since_ns: int) -> bool:
        """Whether a thread that is no more may have held the GIL since then, when the watchdog was late."""
        return self._hold.until_ns >= since_ns and self._hold.gone


def switch_interval_ns() -> int:
    """How long a thread waits for the GIL before it asks for it."""
    return int(sys.getswitchinterval() * 1e9)
