"""Freezes in progress: what the watchdog tells of slices that run past `stall_after`, while they run and when they end.

Who writes what. `finished` is appended by loops' threads as such a slice is accounted for; everything else is the
watchdog's. The shipper's thread reads `going_on()`, a copy, and takes from `ended`. No lock anywhere: a deque's append
and popleft and a copy of a dict's values are one step each under the GIL.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Final

from aiocop._stdlib import current_frames, time_ns
from aiocop.catalogue import CPU, WAIT
from aiocop.loop_thread import LoopThread
from aiocop.thread_clock import ThreadTimes
from aiocop.traces import MAX_SITE_FRAMES, Site, Traces
from aiocop_wire import ENDED, Stall
from aiocop_wire.light_typing import NamedTuple
from aiocop_wire.limits import MAX_NAME

_WRAPPERS: Final = "aiocop.calls"
"""The module in whose frames a wrapped call runs."""
REFRESH_NS: Final = 1_000_000_000
"""How often a stall that goes on is told again."""
MAX_ENDED: Final = 200
"""Ended stalls that wait for a collector; past that the oldest is let go. Their time is in the counters anyway."""


class FinishedSlice(NamedTuple):
    """A slice past `stall_after`, as it was accounted for."""

    slice_ns: int
    elapsed_ns: int
    site: Site | None
    """Where it was longest."""


class _Watched:
    """A stall that goes on."""

    __slots__ = ("first_ns", "first_times", "stall", "told_ns")

    def __init__(self, first_ns: int, first_times: ThreadTimes | None) -> None:
        self.first_ns = first_ns
        self.first_times = first_times
        self.stall: Stall | None = None
        self.told_ns = 0


class StallBoard:
    """The stalls of one process that go on, and those that ended and are not shipped yet."""

    def __init__(self, traces: Traces, stall_after_ns: int, changed: Callable[[], None]) -> None:
        self.stall_after_ns = stall_after_ns
        self.finished: deque[FinishedSlice] = deque(maxlen=MAX_ENDED)
        self.ended: deque[Stall] = deque(maxlen=MAX_ENDED)
        self._traces = traces
        self._changed = changed
        """Called on the watchdog's thread: something is to be shipped."""
        self._watched: dict[int, _Watched] = {}

    def going_on(self) -> list[Stall]:
        """The stalls that go on, as last seen. Any thread."""
        return [watched.stall for watched in list(self._watched.values()) if watched.stall is not None]

    # --- the watchdog's thread only -----------------------------------------------------------------------------------

    def look(self, thread: LoopThread, slice_ns: int, now_ns: int) -> None:
        """Note where a slice is that runs past `stall_after`; at most once in REFRESH_NS."""
        watched = self._watched.get(slice_ns)
        if watched is not None and now_ns - watched.told_ns < REFRESH_NS:
            return
        times = thread.clock.read()
        frame = current_frames().get(thread.ident)
        operation = thread.operation
        unmeasured = thread.last_unmeasured
        call = _call_frame(frame) if operation is not None else None
        seen = self._traces.stack(frame if call is None else call, MAX_SITE_FRAMES)
        if thread.started_ns != slice_ns:
            return  # it ended while we looked
        if watched is None:
            first = next((sample for sample in thread.samples if sample.started_ns == slice_ns), None)
            watched = _Watched(now_ns, times) if first is None else _Watched(first.at_ns, first.times)
            self._watched[slice_ns] = watched
        if operation is None or call is None:
            operation = WAIT if _waits(watched, now_ns, times) else CPU
        site = self._traces.site(operation, seen)
        # Only the start of this call can be seen (early-bound functions): it is counted already.
        counted = operation in (WAIT, CPU) and unmeasured is not None and unmeasured.site.call_site == site.call_site
        if counted and unmeasured is not None:
            site = unmeasured.site
        blocked_ns = now_ns - slice_ns
        watched.stall = Stall(
            slice_ns=slice_ns,
            started_at_ms=(time_ns() - blocked_ns) // 1_000_000,
            blocked_us=blocked_ns // 1_000,
            site_id=site.definition.site_id,
            frames=self._traces.frames(seen),
            counted=counted,
            thread_name=_name_of(thread.ident),
        )
        watched.told_ns = now_ns
        self._changed()

    def settle(self, running: set[int]) -> None:
        """Close the stalls whose slice is not among those that run."""
        changed = False
        while self.finished:
            slice_ns, elapsed_ns, site = self.finished.popleft()
            watched = self._watched.pop(slice_ns, None)
            stall = watched.stall if watched is not None else None
            if stall is None:
                # Nobody could look while it ran: something held the GIL all the time.
                stall = Stall(slice_ns, (time_ns() - elapsed_ns) // 1_000_000, 0)
            self.ended.append(
                stall._replace(
                    blocked_us=elapsed_ns // 1_000,
                    state=ENDED,
                    site_id=site.definition.site_id if site is not None else stall.site_id,
                )
            )
            changed = True
        for slice_ns in [known for known in self._watched if known not in running]:
            stall = self._watched.pop(slice_ns).stall
            if stall is not None:
                self.ended.append(stall._replace(state=ENDED))
                changed = True
        if changed:
            self._changed()


def _call_frame(frame: FrameType | None) -> FrameType | None:
    """The frame of the wrapper whose call runs. What it calls is not part of the call's site."""
    while frame is not None and frame.f_globals.get("__name__") != _WRAPPERS:
        frame = frame.f_back
    return frame


def _name_of(ident: int) -> str:
    return next((thread.name for thread in threading.enumerate() if thread.ident == ident), "")[:MAX_NAME]


def _waits(watched: _Watched, now_ns: int, times: ThreadTimes | None) -> bool:
    """Whether the thread mostly waited since the stall was first seen, by its own times; False where they are unknown,
    and at the first look."""
    if times is None or watched.first_times is None:
        return False
    passed_ns = now_ns - watched.first_ns
    return 2 * (passed_ns - times.ready_ns + watched.first_times.ready_ns) > passed_ns > 0
