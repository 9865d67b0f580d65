"""The levels of detail at which blocking calls are looked at, and what a call is counted at above the first.

Cost model. At level FULL nothing here runs. Above, this is the hot path: at most SHORT_FRAMES frames are read, and
nothing is allocated but the key.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from aiocop.aggregate import SiteCounters
from aiocop.catalogue import Operation
from aiocop.frames import FRAME_AIOCOP, FRAME_RUNNER
from aiocop.loop_thread import LoopThread
from aiocop.traces import Key, Traces
from aiocop_wire import FRAME_APPLICATION

FULL: Final = 0
SHORT_WALKS: Final = 1
NOTHING_NEW: Final = 2
COUNTS: Final = 3
LONG_CALL_NS: Final = 1_000_000
"""A call that took so long is looked at closely at every level: that adds less than a tenth to it."""
SHORT_FRAMES: Final = 4
_LOOK_AGAIN_AFTER: Final = 17
"""Calls after which somebody looks again whose a short walk was. A prime: callers that take turns each get theirs."""


class Detail:
    """Finds the counters of calls above level FULL."""

    def __init__(
        self, traces: Traces, look_closely: Callable[[LoopThread, Operation, FrameType], SiteCounters]
    ) -> None:
        self._traces = traces
        self._look_closely = look_closely

    def counters_at(self, thread: LoopThread, operation: Operation, frame: FrameType, level: int) -> SiteCounters:
        """Where to count a call above level FULL: at its site, or at its operation."""
        if level >= COUNTS:
            return self.operation_counters(thread, operation)
        key, cut = self._short_key(operation.name, frame)
        counters = thread.by_key.get(key)
        if cut:
            # Other callers may share these innermost frames: until somebody looks again, it is the last one's call.
            thread.cut_walks += 1
            if not thread.cut_walks % _LOOK_AGAIN_AFTER:
                counters = None
        if counters is None:
            counters = thread.by_key.get(self._traces.key_of(operation.name, frame)) if cut else None
            if counters is None and level < NOTHING_NEW:
                counters = self._look_closely(thread, operation, frame)
            if counters is None:
                counters = self.operation_counters(thread, operation)
            if cut:
                thread.remember(key, counters)
        return counters

    def operation_counters(self, thread: LoopThread, operation: Operation) -> SiteCounters:
        """Where calls of an operation are counted that nobody looks at."""
        counters = thread.by_operation.get(operation.name)
        if counters is None:
            site = self._traces.summary_site(operation)
            counters = thread.by_operation[operation.name] = thread.counters(site, self._traces.other_site)
        return counters

    def _short_key(self, operation: str, innermost: FrameType) -> tuple[Key, bool]:
        """What identifies the innermost frames of a call, and whether its call site may be beyond them.

        Where it is not, this is the key that a whole walk makes.
        """
        names = self._traces.names
        frame: FrameType | None = innermost
        key: list[Any] = [operation]
        while frame is not None:
            module = frame.f_globals.get("__name__")
            kind = names.kinds.get(module)
            if kind is None:
                kind = names.kind(frame)
            if kind == FRAME_RUNNER:
                break
            if kind != FRAME_AIOCOP:
                key += (module, frame.f_lineno)
                if kind == FRAME_APPLICATION:
                    return tuple(key), False
                if len(key) > 2 * SHORT_FRAMES:
                    key.append(SHORT_WALKS)
                    return tuple(key), True
            frame = frame.f_back
        key.append(None)
        return tuple(key), False
