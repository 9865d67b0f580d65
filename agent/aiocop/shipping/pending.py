"""What was taken from the source and not yet put into a report: windows by minute, and slow events.

Both are bounded. Past the bound the two oldest windows become one: time resolution goes first, never a count. Slow
events past the bound are sampled evenly, and what is left out is counted. Only the shipper's thread comes here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Final

from aiocop._stdlib import urandom
from aiocop.shipping.loop_deltas import merge_loops
from aiocop_wire import LoopDelta, SiteDelta, SlowEvent, add_sparse, to_sparse
from aiocop_wire.histogram import BIN_COUNT

MINUTE_MS: Final = 60_000
_MAX_COUNT: Final = (1 << 32) - 1  # of one delta, see docs/wire.md


class PendingWindow:
    """What was counted between two times of one minute."""

    __slots__ = ("calls", "deltas", "ended_at_ms", "loops", "started_at_ms")

    def __init__(
        self,
        started_at_ms: int,
        ended_at_ms: int,
        deltas: tuple[SiteDelta, ...],
        loops: tuple[LoopDelta, ...] = (),
    ) -> None:
        self.started_at_ms = started_at_ms
        self.ended_at_ms = ended_at_ms
        self.deltas = deltas
        self.loops = loops
        self.calls = sum(delta.count for delta in deltas)

    @property
    def minute(self) -> int:
        return self.started_at_ms // MINUTE_MS

    @property
    def span_ms(self) -> int:
        """To its end, or to the end of the minute it is counted in."""
        end_ms = min(self.ended_at_ms, (self.minute + 1) * MINUTE_MS)
        return max(0, end_ms - self.started_at_ms)

    def merged_with(self, later: PendingWindow) -> PendingWindow:
        deltas = merge_deltas(self.deltas, later.deltas)
        loops = merge_loops((*self.loops, *later.loops)) if self.loops else later.loops
        return PendingWindow(self.started_at_ms, later.ended_at_ms, deltas, loops)


def merge_deltas(first: Iterable[SiteDelta], second: Iterable[SiteDelta]) -> tuple[SiteDelta, ...]:
    """One delta per site with what both say. A sum that one delta cannot hold stays in two."""
    merged: dict[int, SiteDelta] = {}
    overflow = []
    for delta in chain(first, second):
        known = merged.get(delta.site_id)
        if known is None:
            merged[delta.site_id] = delta
        elif known.count + delta.count > _MAX_COUNT or known.slow_count + delta.slow_count > _MAX_COUNT:
            overflow.append(known)
            merged[delta.site_id] = delta
        else:
            merged[delta.site_id] = _sum(known, delta)
    return (*merged.values(), *overflow)


def _sum(one: SiteDelta, other: SiteDelta) -> SiteDelta:
    bins = [0] * BIN_COUNT
    add_sparse(bins, one.bins)
    add_sparse(bins, other.bins)
    return SiteDelta(
        site_id=one.site_id,
        count=one.count + other.count,
        slow_count=one.slow_count + other.slow_count,
        blocked_us=one.blocked_us + other.blocked_us,
        max_us=max(one.max_us, other.max_us),
        bins=tuple(to_sparse(bins)),
    )


class PendingWindows:
    """Windows in order of time, at most one per minute while they wait."""

    def __init__(self, *, max_windows: int = 120, max_deltas: int = 50_000) -> None:
        self._max_windows = max_windows
        self._max_deltas = max_deltas
        self._windows: deque[PendingWindow] = deque()
        self._deltas = 0

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, window: PendingWindow) -> None:
        """Keep `window`; merge where the minute is the same or the bound is passed."""
        if not window.deltas and not window.loops:
            return
        windows = self._windows
        if windows and windows[-1].minute == window.minute:
            self._deltas -= len(windows[-1].deltas)
            window = windows.pop().merged_with(window)
        windows.append(window)
        self._deltas += len(window.deltas)
        while len(windows) > 1 and (len(windows) > self._max_windows or self._deltas > self._max_deltas):
            oldest, next_oldest = windows.popleft(), windows.popleft()
            both = oldest.merged_with(next_oldest)
            windows.appendleft(both)
            self._deltas += len(both.deltas) - len(oldest.deltas) - len(next_oldest.deltas)

    def presses(self) -> bool:
        """Whether there is more than what loops have done in the minute that goes on: that can wait."""
        return len(self._windows) > 1 or bool(self._windows and self._windows[0].deltas)

    def oldest(self) -> PendingWindow:
        return self._windows[0]

    def remove_oldest(self) -> None:
        self._deltas -= len(self._windows.popleft().deltas)


MAX_CAPTURES: Final = 16
"""Events with a capture that wait, beside the others: each may be as large as a hundred of them."""


class PendingEvents:
    """A bounded sample of the slow events that wait: all of them while there is room."""

    def __init__(self, *, max_events: int = 1000) -> None:
        self._max_events = max_events
        self._events: list[SlowEvent] = []
        self._captured: list[SlowEvent] = []  # somebody asked for these: no sample is made of them
        self._seen = 0

    def __len__(self) -> int:
        return len(self._events) + len(self._captured)

    def add(self, events: Iterable[SlowEvent]) -> int:
        """Keep `events`; how many had to be left out. Every event since the last `pop_all` is equally likely to stay
        (Vitter's algorithm R).
        """
        dropped = 0
        for event in events:
            if event.capture is not None and len(self._captured) < MAX_CAPTURES:
                self._captured.append(event)
                continue
            self._seen += 1
            if len(self._events) < self._max_events:
                self._events.append(event)
                continue
            dropped += 1
            position = int.from_bytes(urandom(8), "big") % self._seen
            if position < self._max_events:
                self._events[position] = event
        return dropped

    def pop_all(self) -> tuple[SlowEvent, ...]:
        events = (*self._captured, *self._events)
        self._captured.clear()
        self._events.clear()
        self._seen = 0
        return events
