"""Pauses of the garbage collector: measured, and not blamed on the line that happened to allocate.

`gc.callbacks` run on the thread that triggered the collection, right before and after it (Modules/gcmodule.c). It keeps
the GIL meanwhile, so a loop on another thread waits for it, and may be first to run when the collection is over: before
the callback that says so. A pause below 1 ms stays part of whatever it interrupted. An explicit gc.collect() is a call
like any other, its caller's.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from aiocop._stdlib import collect, current_frames, get_ident, getframe, perf_counter_ns
from aiocop.frames import FRAME_AIOCOP, FrameNames
from aiocop_wire.light_typing import NamedTuple

_SHORTEST_NS: Final = 1_000_000
_MAX_PAUSES: Final = 16
_MAX_INSIDE: Final = 8
"""Frames that are looked at of what runs inside a collection."""


class Pause(NamedTuple):
    """A collection that was not asked for, and the thread that collected."""

    ident: int
    began_ns: int
    ended_ns: int


class GarbagePauses:
    """Listens to the collector between `install` and `remove`.

    `told` is called at the end of each pause, on the thread that collected, with the pause and the frame that it
    interrupted.

    All is written by the thread that collects, of which there is never more than one.
    """

    def __init__(self, names: FrameNames, told: Callable[[Pause, FrameType], None]) -> None:
        self._names = names
        self._told = told
        self._began_ns = 0
        """When the collection that goes on began; 0 while there is none."""
        self._ident = 0
        """The thread that collected last."""
        self.pauses: deque[Pause] = deque(maxlen=_MAX_PAUSES)
        """The last pauses."""

    def install(self) -> None:
        if self._on_collection not in gc.callbacks:
            gc.callbacks.append(self._on_collection)

    def remove(self) -> None:
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)
        self._began_ns = 0
        self.pauses.clear()

    def others_ns(self, waiting: int, since_ns: int) -> int:
        """For how long threads other than `waiting` collected garbage since then. Any thread."""
        return sum([_overlap_ns(pause, since_ns) for pause in self._known() if pause.ident != waiting])

    def own_ns(self, ident: int, since_ns: int) -> int:
        """For how long a thread collected garbage since then. Any thread."""
        return sum([_overlap_ns(pause, since_ns) for pause in self._known() if pause.ident == ident])

    def _known(self) -> list[Pause]:
        """The last pauses, with that which goes on, or ended without having been told."""
        pauses = list(self.pauses)
        began_ns = self._began_ns
        now_ns = perf_counter_ns()
        # Who collects itself does not wait for that; and its own frame, kept in a local of it, would be a cycle.
        if began_ns and now_ns - began_ns >= _SHORTEST_NS and self._ident != get_ident():
            frame = current_frames().get(self._ident)
            if frame is not None and not self._is_explicit(frame):
                pauses.append(Pause(self._ident, began_ns, now_ns))
        return pauses

    def _on_collection(self, phase: str, _info: dict[str, Any]) -> None:
        if phase == "start":
            self._ident = get_ident()
            self._began_ns = perf_counter_ns()
            return
        began_ns, self._began_ns = self._began_ns, 0
        ended_ns = perf_counter_ns()
        if not began_ns or ended_ns - began_ns < _SHORTEST_NS:
            return
        # Not getframe(1): below the agent's own frame there may be none, where a thread that C code made begins.
        frame = getframe().f_back
        if frame is not None and not self._is_explicit(frame):
            pause = Pause(self._ident, began_ns, ended_ns)
            self.pauses.append(pause)
            self._told(pause, frame)

    def _is_explicit(self, innermost: FrameType) -> bool:
        """Whether somebody called gc.collect(), by a wrapper of ours (calls.py), and did not just allocate something.

        Further in there may be callbacks and finalisers, which the collector calls. Only our own frames are looked
        into: what they hold would live longer otherwise.
        """
        frame: FrameType | None = innermost
        for _ in range(_MAX_INSIDE):
            if frame is None:
                return False
            if self._names.kind(frame) == FRAME_AIOCOP and frame.f_locals.get("original") is collect:
                return True
            frame = frame.f_back
        return False


def _overlap_ns(pause: Pause, since_ns: int) -> int:
    return max(0, pause.ended_ns - max(pause.began_ns, since_ns))
