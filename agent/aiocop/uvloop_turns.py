"""Long turns of uvloop's loops, made of short callbacks: uvloop polls inside libuv, where no turn can be seen to end.

So a loop's thread that has been busy for a while is probed: the watchdog schedules a callback that runs when the turn
is over, and which schedules itself again as long as turns are not short, so that each turn is measured from the end of
the one before. The first one's beginning is that of the busy time, as the thread's clock tells.

Cost model. A look at a thread: no more than arithmetic. A loop that is busy: a callback per turn, past every
measurement, about 1 µs; a loop that is not: nothing.

Who writes what. `_Busy` belongs to the watchdog's thread; while a probe is under way, `probing`, `turn_ns` and
`credited_ns` belong to the loop's.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from aiocop._stdlib import perf_counter_ns
from aiocop.attribution import Moment
from aiocop.loop_thread import LoopThread
from aiocop.slice import Slices

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

_BUSY_PARTS: Final = 9, 10
"""A thread that was ready to run for so much of the time between two looks was busy all along."""
_SHORT_TURN_NS: Final = 500_000
"""A turn that is over sooner ends the probing: it would keep an idle loop from sleeping."""


class _Busy:
    """One loop's thread since it is busy."""

    __slots__ = ("credited_ns", "last", "loop", "probing", "since_ns", "turn_ns")

    def __init__(self, loop: ref[Any], last: Moment) -> None:
        self.loop = loop
        self.last = last
        """The look before."""
        self.since_ns = last.at_ns
        self.probing = False
        self.turn_ns = 0
        """When a turn began: the busy time, or when the turn before ended."""
        self.credited_ns = 0
        """The thread's at that time."""


class UvloopTurns:
    """What the watchdog's looks tell of turns."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._busy: dict[int, _Busy] = {}
        """By thread ident."""
        self._loop_class: type | None = None
        """uvloop's, once it is watched, and its own methods."""
        self._call_soon: Callable[..., Any]
        self._call_soon_threadsafe: Callable[..., Any]

    def install(self, uvloop: ModuleType) -> None:
        """Before the methods of its loop are replaced."""
        self._call_soon = uvloop.Loop.call_soon
        self._call_soon_threadsafe = uvloop.Loop.call_soon_threadsafe
        self._loop_class = uvloop.Loop

    def remove(self) -> None:
        self._loop_class = None
        self._busy.clear()

    def note_loop(self, thread: LoopThread) -> None:
        """On a loop's thread, in a slice: remember its loop if it is uvloop's."""
        loop = _get_running_loop()
        known = thread.uvloop
        if self._loop_class is not None and (known is None or known() is not loop):
            thread.uvloop = ref(loop) if isinstance(loop, self._loop_class) else None

    def looked(self, thread: LoopThread, seen: Moment) -> None:
        """The watchdog saw no slice, or a young one, and these times of its thread."""
        loop = thread.uvloop
        if loop is None or self._loop_class is None or seen.times is None:
            return
        busy = self._busy.get(thread.ident)
        if busy is None or busy.loop is not loop:
            self._busy[thread.ident] = _Busy(loop, seen)
            return
        before, busy.last = busy.last, seen
        if before.times is None:
            return
        ready_ns = seen.times.ready_ns - before.times.ready_ns
        part, of = _BUSY_PARTS
        if of * ready_ns < part * (seen.at_ns - before.at_ns):
            busy.since_ns = seen.at_ns - ready_ns
            if not busy.probing:
                busy.credited_ns = thread.credited_ns
        elif not busy.probing and seen.at_ns - busy.since_ns >= self._slices.threshold_ns // 2:
            running = loop()
            if running is not None:
                busy.probing = True
                busy.turn_ns = max(busy.turn_ns, busy.since_ns)
                try:
                    self._call_soon_threadsafe(running, self._probe, thread, busy, perf_counter_ns())
                except RuntimeError:
                    self._busy.pop(thread.ident, None)  # closed meanwhile

    def _probe(self, thread: LoopThread, busy: _Busy, sent_ns: int) -> None:
        """Runs on the loop's thread, outside every slice, when the turn in which it was scheduled is over."""
        now_ns = perf_counter_ns()
        slices = self._slices
        elapsed_ns = now_ns - busy.turn_ns
        credited_ns = thread.credited_ns - busy.credited_ns
        running = busy.loop()
        if running is None or self._loop_class is None or not slices.active:
            busy.probing = False
            return
        # Sent in the middle of a turn, it proves only what followed: a chain of short turns is no long one.
        proven = now_ns - sent_ns >= slices.threshold_ns // 2
        if proven and elapsed_ns - credited_ns >= slices.threshold_ns and not thread.started_ns:
            thread.credited_ns = credited_ns
            slices.finish_turn(thread, elapsed_ns)
            now_ns = perf_counter_ns()
        busy.turn_ns = now_ns
        busy.credited_ns = thread.credited_ns
        if elapsed_ns >= _SHORT_TURN_NS:
            self._call_soon(running, self._probe, thread, busy, now_ns)
        else:
            busy.probing = False
