"""Captures: the next slow slice in which a function froze its loop, in detail, because a collector asked for it.

Its event gets every blocking call above the threshold and every look of the watchdog, each with its whole stack: what
otherwise is sampled. It says no more of arguments and context than any slow event does (disclosure.py).

Cost model. Where nothing is asked for, one look at `wanted` per call and slice above the threshold. Where something is,
a stack (20 to 50 µs) per such call, and some milliseconds once, at the end of the captured slice.

Who writes what. The shipper's thread replaces `wanted`; loops' threads take from it, in one step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Final

from aiocop._stdlib import monotonic_ns
from aiocop.aggregate import SiteCounters
from aiocop.attribution import Sample
from aiocop.loop_thread import LongCall, LoopThread
from aiocop.traces import Site, StackFrame, Traces
from aiocop_wire import Capture, CapturedMoment, CaptureRequest, Frame, place_id
from aiocop_wire.light_typing import NamedTuple
from aiocop_wire.limits import MAX_CAPTURED_MOMENTS, MAX_CAPTURED_TRACES, MAX_FRAMES

FORGOTTEN_AFTER_NS: Final = 3_600_000_000_000
"""How long a capture is waited for (docs/wire.md)."""
MAX_LONG_CALLS: Final = 50
"""Calls of one slice that are noted."""
_MAX_ANSWERED: Final = 64


class _Asked(NamedTuple):
    request_id: int
    at_ns: int


class Captures:
    """What is asked for, and the making of it."""

    def __init__(self, traces: Traces) -> None:
        self.wanted: dict[int, _Asked] = {}
        """By place: see aiocop_wire.place_id."""
        self.taken = 0
        """Captures made. Written by loops' threads; two that race may lose one."""
        self._traces = traces
        self._answered: deque[int] = deque(maxlen=_MAX_ANSWERED)

    def begin_anew(self) -> None:
        """Wait for nothing, and count from zero: at a start and in a forked child."""
        self.wanted = {}
        self.taken = 0
        self._answered.clear()

    def want(self, requests: Iterable[CaptureRequest]) -> None:
        """Wait for these and no others; not again for one that was answered. The shipper's thread."""
        since_ns = {asked.request_id: asked.at_ns for asked in list(self.wanted.values())}
        now_ns = monotonic_ns()
        self.wanted = {
            request.place_id: _Asked(request.request_id, since_ns.get(request.request_id, now_ns))
            for request in requests
            if request.request_id not in self._answered
        }

    def note(self, thread: LoopThread, site: Site, own_ns: int, now_ns: int, frame: FrameType | None) -> None:
        """A call above the threshold has ended in a slice that may be captured."""
        if len(thread.long_calls) < MAX_LONG_CALLS:
            thread.long_calls.append(LongCall(now_ns - own_ns, own_ns, site, self._traces.stack(frame, MAX_FRAMES)))

    def take(self, thread: LoopThread, touched: Sequence[SiteCounters], samples: Iterable[Sample]) -> Capture | None:
        """The detail of a slow slice that ends, where it was asked for."""
        asked = self._asked_for(touched)
        if asked is None:
            return None
        self._answered.append(asked.request_id)
        if monotonic_ns() - asked.at_ns > FORGOTTEN_AFTER_NS:
            return None
        self.taken += 1
        seen = [(call.began_ns, call.own_ns, call.site.definition.site_id, call.stack) for call in thread.long_calls]
        seen += [(sample.at_ns, -1, 0, sample.stack) for sample in samples]
        seen.sort(key=lambda item: item[0])
        stacks = _Stacks(self._traces)
        moments = [
            CapturedMoment(
                max(0, at_ns - thread.started_ns) // 1_000,
                own_ns // 1_000 if own_ns >= 0 else -1,
                site_id,
                stacks.index_of(stack),
            )
            for at_ns, own_ns, site_id, stack in seen[:MAX_CAPTURED_MOMENTS]
        ]
        return Capture(asked.request_id, tuple(moments), tuple(stacks.traces))

    def _asked_for(self, touched: Sequence[SiteCounters]) -> _Asked | None:
        for counters in touched:
            definition = counters.site.definition
            frame = definition.frames[definition.call_site]
            asked = self.wanted.pop(place_id(frame.path, frame.function), None)
            if asked is not None:
                return asked
        return None


class _Stacks:
    """The different stacks of one capture."""

    def __init__(self, traces: Traces) -> None:
        self.traces: list[tuple[Frame, ...]] = []
        self._traces = traces
        self._indexes: dict[tuple[object, ...], int] = {}

    def index_of(self, stack: list[StackFrame]) -> int:
        """-1 where there is no room for another one, or nothing to be seen."""
        key = tuple([part for frame in stack for part in (frame.module, frame.line)])
        index = self._indexes.get(key, -1)
        if index < 0 and stack and len(self.traces) < MAX_CAPTURED_TRACES:
            index = self._indexes[key] = len(self.traces)
            self.traces.append(self._traces.frames(stack[:MAX_FRAMES]))
        return index
