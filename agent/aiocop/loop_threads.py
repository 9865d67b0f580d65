"""The threads of the process that run event loops: each is met at its first slice and leaves when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from aiocop._stdlib import get_ident
from aiocop.aggregate import Aggregate
from aiocop.heartbeat import Heartbeat, private_slot
from aiocop.loop_thread import LoopThread


class _Departure:
    """Lives in a threading.local: its thread's end drops the last reference and so tells us."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def __del__(self) -> None:
        self._leave()


class LoopThreads:
    """The loop threads by ident, where they count, and where they show what they run."""

    def __init__(self, aggregate: Aggregate) -> None:
        self.aggregate = aggregate
        self.heartbeat: Heartbeat | None = None
        self.threads: dict[int, LoopThread] = {}
        """By thread ident; never replaced. A thread adds itself and takes itself away; others read a copy."""
        self._departures = threading.local()
        self._numbers = count(1)

    def new_thread(self, loop: str = "") -> LoopThread:
        """The state of the calling thread, which runs its first slice, on this kind of loop."""
        thread = LoopThread()
        thread.loop = loop
        number = next(self._numbers)
        aggregate = self.aggregate

        def leave() -> None:
            if self.threads.get(thread.ident) is thread:
                del self.threads[thread.ident]
            thread.clock.close()
            if self.heartbeat is not None:
                self.heartbeat.leave(thread.ident)
            aggregate.retire_table(number)

        aggregate.add_table(number, thread)
        if self.heartbeat is not None:
            thread.beat, thread.beat_text = self.heartbeat.slot(thread.ident)
        self.threads[thread.ident] = thread
        self._departures.departure = _Departure(leave)
        return thread

    def show_on(self, heartbeat: Heartbeat | None) -> None:
        """Let the threads write what they run where a collector can read it; None for nowhere, as after a fork."""
        self.heartbeat = heartbeat
        for thread in list(self.threads.values()):
            slot = private_slot() if heartbeat is None else heartbeat.slot(thread.ident)
            thread.beat, thread.beat_text = slot

    def this_thread(self) -> LoopThread:
        """The state of the calling thread."""
        return self.threads.get(get_ident()) or self.new_thread()

    def look_again(self) -> None:
        """Let the threads look at every stack once more, as if it were new."""
        for thread in list(self.threads.values()):
            thread.by_key.clear()
            thread.by_trace.clear()

    def forget_threads(self, aggregate: Aggregate) -> None:
        """Meet every thread anew, and let it count into `aggregate`."""
        self.aggregate = aggregate
        for thread in list(self.threads.values()):
            thread.clock.close()
        self.threads.clear()
