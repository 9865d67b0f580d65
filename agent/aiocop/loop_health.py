"""How a loop thread fares: how late it runs what is due, how long it was blocked, how much waited behind that.

Lag is measured on the loop's own timers, when they run: start of the callback less the time it was due. So it is exact,
means the same on asyncio and uvloop (there to libuv's millisecond), and costs nothing where no timer runs; an idle loop
is never woken for it.

Cost model. A timer that runs costs one more function and one update of counters, any other callback nothing. Blocked
time is added where a slow slice is accounted for anyway.

Who writes what. The loop's thread writes the totals, which only grow; the shipper's thread remembers what it has taken,
as in aggregate.py.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from aiocop._stdlib import perf_counter_ns
from aiocop_wire import UPPER_EDGES_NS, LoopDelta
from aiocop_wire.limits import MAX_NAME

UNKNOWN: Final = -1
_MAX_LOOKED_AT: Final = 10_000


class LoopHealth:
    """The totals of one loop thread."""

    __slots__ = (
        "_taken",
        "_taken_bins",
        "_taken_maxima",
        "blocked_ns",
        "lag_bins",
        "lag_ns",
        "maxima",
        "slow_slices",
        "starved_ns",
        "thread_name",
        "waiting",
    )

    def __init__(self, thread_name: str) -> None:
        self.thread_name = thread_name[:MAX_NAME]
        self.blocked_ns = 0
        self.starved_ns = 0
        self.slow_slices = 0
        self.waiting = 0
        """Callbacks found waiting at the ends of slow slices, summed."""
        self.lag_ns = 0
        self.lag_bins: dict[int, int] = {}
        self.maxima = [0, 0]
        """Largest lag and most callbacks waiting since the shipper last put a new list here; like
        SiteCounters.maximum_ns, the list it took away may still receive one last value."""
        self._taken = (perf_counter_ns(), 0, 0, 0, 0, 0)
        self._taken_bins: dict[int, int] = {}
        self._taken_maxima = ([0, 0], (0, 0))

    # --- the loop's thread --------------------------------------------------------------------------------------------

    def ran_late(self, lag_ns: int) -> None:
        """A timer runs `lag_ns` after it was due; a clock's resolution may make that negative."""
        if lag_ns < 0:
            lag_ns = 0
        self.lag_ns += lag_ns
        index = bisect_right(UPPER_EDGES_NS, lag_ns)
        bins = self.lag_bins
        bins[index] = bins.get(index, 0) + 1
        maxima = self.maxima
        if lag_ns > maxima[0]:
            maxima[0] = lag_ns

    def froze(self, blocked_ns: int, starved_ns: int, waiting: int) -> None:
        """A slice over the threshold has ended; `waiting` callbacks waited, UNKNOWN where the loop does not show it."""
        self.slow_slices += 1
        self.blocked_ns += blocked_ns
        self.starved_ns += starved_ns
        if waiting > 0:
            self.waiting += waiting
            maxima = self.maxima
            if waiting > maxima[1]:
                maxima[1] = waiting

    # --- the shipper's thread -----------------------------------------------------------------------------------------

    def take(self, number: int, loop: str) -> LoopDelta:
        """What was added since the last take."""
        now = (
            perf_counter_ns(),
            self.blocked_ns // 1_000,
            self.starved_ns // 1_000,
            self.slow_slices,
            self.waiting,
            self.lag_ns // 1_000,
        )
        before, self._taken = self._taken, now
        sparse: list[int] = []
        for index, total in sorted(list(self.lag_bins.items())):  # noqa: C414 - the copy must be one step
            added = total - self._taken_bins.get(index, 0)
            if added:
                sparse += (index, added)
                self._taken_bins[index] = total
        maxima, self.maxima = self.maxima, [0, 0]
        late, reported = self._taken_maxima
        self._taken_maxima = (maxima, (maxima[0], maxima[1]))
        lag_max_ns, waiting_max = [
            max(maxima[kind], late[kind] if late[kind] != reported[kind] else 0) for kind in (0, 1)
        ]
        return LoopDelta(
            number=number,
            thread_name=self.thread_name,
            loop=loop,
            observed_us=(now[0] - before[0]) // 1_000,
            blocked_us=now[1] - before[1],
            starved_us=now[2] - before[2],
            slow_slices=now[3] - before[3],
            waiting=now[4] - before[4],
            waiting_max=waiting_max,
            lag_us=now[5] - before[5],
            lag_max_us=lag_max_ns // 1_000,
            lag_bins=tuple(sparse),
        )


def waiting_in(loop: Any) -> int:
    """How many callbacks of a running loop are ready or due, and wait; UNKNOWN where it does not show them.

    asyncio's own loops keep both in attributes of theirs (CPython, Lib/asyncio/base_events.py), uvloop in C. What the
    slice that ends has scheduled itself is among them; what has arrived on sockets meanwhile is not.
    """
    ready = getattr(loop, "_ready", None)
    timers = getattr(loop, "_scheduled", None)
    if ready is None or timers is None:
        return UNKNOWN
    return len(ready) + _due(timers, loop.time())


def _due(timers: list[Any], now_s: float) -> int:
    """Timers of a heap that are due: below one that is not, none is."""
    due = looked_at = 0
    positions: list[int] = [0]
    while positions and looked_at < _MAX_LOOKED_AT:
        position = positions.pop()
        if position < len(timers):
            timer = timers[position]
            if timer.when() <= now_s:
                looked_at += 1
                due += not timer.cancelled()
                positions += (2 * position + 1, 2 * position + 2)
    return due
