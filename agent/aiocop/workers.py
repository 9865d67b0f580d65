"""The process's other threads: how much each has worked lately, how long it had no CPU meanwhile, and where it is.

Whoever holds the GIL works, as a rule; where it does not, because the host gives its CPU to somebody else, who waits
for the GIL waits for the host.

Cost model. At most every 50 ms, a microsecond per thread; and 3 more for each of the few whose times are followed.

Who writes what. `note` runs on the watchdog's thread; the others on any thread, under the GIL.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from aiocop._stdlib import current_frames, perf_counter_ns, process_time_ns
from aiocop.frames import is_idle
from aiocop.gc_pauses import GarbagePauses
from aiocop.thread_clock import ThreadClock, cpu_ns
from aiocop.traces import StackFrame, Traces
from aiocop_wire.light_typing import NamedTuple

OWN_THREADS: Final = "aiocop-"
"""How the names of the agent's own threads begin."""
_MAX_WORKERS: Final = 3
_MAX_FOLLOWED: Final = 8
"""Threads whose times are read from files, which stay open."""
_FOLLOWED_FROM_NS: Final = 200_000
"""Who worked for so long between two notes is followed from then on, and who is new."""
_HOLDER_WORKS: Final = 8
"""One part in so many of the time that the GIL was held its holder worked at least: several may take turns."""
_NOTE_EVERY_NS: Final = 50_000_000
_NOTE_EVERY_PER_THREAD_NS: Final = 1_000_000
"""CPU times are noted so rarely that a thread more costs about 1.5 µs in a millisecond of these."""


class Worker(NamedTuple):
    """A thread that has worked lately."""

    ident: int
    queued_ns: int
    """How long it was ready and had no CPU since the times were noted; 0 where unknown."""
    stack: list[StackFrame]
    """Where it is; empty where it has ended."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for something by now."""
        return is_idle(self.stack[0].module, self.stack[0].code)


class Workers:
    """The threads of the process, by what they work."""

    def __init__(self, traces: Traces, gc_pauses: GarbagePauses) -> None:
        self._traces = traces
        self._gc_pauses = gc_pauses
        self._cpu_ns: dict[int, int] = {}
        """CPU time of the process's threads by native id, when it was noted last."""
        self._process_cpu_ns = 0
        """That of the whole process then."""
        self._noted_ns = 0
        self._clocks: dict[int, ThreadClock] = {}
        """Of the threads that are followed, by native id."""
        self._queued_ns: dict[int, int] = {}
        """For how long each of these had no CPU, when that was noted last."""

    def forget(self) -> None:
        """After stop(), and in a forked child, whose threads are others."""
        self._cpu_ns = {}
        self._noted_ns = 0
        for _ in self._follow([]):
            pass

    def note(self) -> Iterator[None]:
        """Note the times of all threads, so that the one that works next can be told. At most every 50 ms.

        Suspends after everything that gives up the GIL: whoever was kept waiting for it then may want to look first.
        """
        now_ns = perf_counter_ns()
        before = self._cpu_ns
        if now_ns < self._noted_ns + _NOTE_EVERY_NS + len(before) * _NOTE_EVERY_PER_THREAD_NS:
            return
        threads = [thread for thread in _threads() if thread.native_id]
        self._cpu_ns = noted = {thread.native_id: cpu_ns(thread.native_id) for thread in threads if thread.native_id}
        self._process_cpu_ns = process_time_ns()
        self._noted_ns = now_ns
        own = {thread.native_id for thread in threads if thread.name.startswith(OWN_THREADS)}
        worked = [
            native_id
            for native_id, used_ns in noted.items()
            if native_id not in own and used_ns >= before.get(native_id, -_FOLLOWED_FROM_NS) + _FOLLOWED_FROM_NS
        ]
        # Who is new or worked just now comes before who did once.
        wanted = [*worked, *[native_id for native_id in self._clocks if native_id in noted and native_id not in worked]]
        yield from self._follow(wanted[:_MAX_FOLLOWED])

    def _follow(self, native_ids: list[int]) -> Iterator[None]:
        for native_id in [one for one in self._clocks if one not in native_ids]:
            self._queued_ns.pop(native_id, None)
            self._clocks.pop(native_id).close()
            yield
        for native_id in native_ids:
            if native_id not in self._clocks:
                self._clocks[native_id] = ThreadClock(native_id)
                yield
            times = self._clocks[native_id].read()
            if times is not None:
                self._queued_ns[native_id] = times.queued_ns
            yield

    def busiest(self, gil_ns: int) -> list[Worker]:
        """The threads that worked most since the times were noted, of those that may have held the GIL so long."""
        noted = self._cpu_ns
        worked = [
            (
                cpu_ns(thread.native_id)
                - noted.get(thread.native_id, 0)
                - self._gc_pauses.own_ns(thread.ident, self._noted_ns),
                thread.ident,
                thread.native_id,
            )
            for thread in _threads()
            if thread.ident and thread.native_id and not thread.name.startswith(OWN_THREADS)
        ]
        stack, depth = self._traces.stack, self._traces.looked_depth
        at_least_ns = gil_ns // _HOLDER_WORKS
        busiest = sorted([item for item in worked if item[0] >= at_least_ns], reverse=True)[:_MAX_WORKERS]
        # All frames are asked for anew for each, because to keep them would be a cycle: this frame is among them. They,
        # and whatever their functions hold, would then live until the garbage collection, which CPython 3.12 does not
        # survive where that is a view of a BytesIO (multiprocessing's Connection.recv makes one).
        stacks = [stack(current_frames().get(ident), depth) for _, ident, _ in busiest]
        # Only now what gives up the GIL: a holder goes on then.
        return [
            Worker(ident, self._queued_since_ns(native_id), seen)
            for (_, ident, native_id), seen in zip(busiest, stacks)  # noqa: B905 - same length by construction
        ]

    def _queued_since_ns(self, native_id: int) -> int:
        clock, before_ns = self._clocks.get(native_id), self._queued_ns.get(native_id)
        times = None if clock is None else clock.read()
        return 0 if times is None or before_ns is None else times.queued_ns - before_ns

    def somebody_is_gone(self, gil_ns: int) -> bool:
        """Whether a thread that is no more worked since the times were noted, for as much as a holder must have."""
        noted = self._cpu_ns
        # A thread without a frame is about to end. Their idents alone: see `busiest`.
        idents = frozenset(current_frames())
        alive_ns = sum(
            [
                cpu_ns(thread.native_id) - noted.get(thread.native_id, 0)
                for thread in _threads()
                if thread.native_id and thread.ident in idents
            ]
        )
        return process_time_ns() - self._process_cpu_ns - alive_ns >= gil_ns // _HOLDER_WORKS


def _threads() -> list[threading.Thread]:
    # Not threading.enumerate(): it takes a lock, and this may run on a loop's thread. A list of a dict's values is one
    # step under the GIL.
    return list(threading._active.values())  # type: ignore[attr-defined] # noqa: SLF001 - as said
