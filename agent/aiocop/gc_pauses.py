"""Pauses of the garbage collector inside slices: measured, and not blamed on the line that happened to allocate.

`gc.callbacks` run on the thread that triggered the collection, right before and after it (Modules/gcmodule.c). A pause
below 1 ms stays part of whatever it interrupted. An explicit gc.collect() is a call like any other, its caller's.
"""

import gc
from typing import Any, Final

from aiocop._stdlib import get_ident, getframe, perf_counter_ns
from aiocop.catalogue import GC
from aiocop.slice import Slices

_SHORTEST_NS: Final = 1_000_000
PSEUDO_SITE: Final = "<gc>"


class GarbagePauses:
    """Listens to the collector between `install` and `remove`."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def install(self) -> None:
        if self._on_collection not in gc.callbacks:
            gc.callbacks.append(self._on_collection)

    def remove(self) -> None:
        if self._on_collection in gc.callbacks:
            gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, _info: dict[str, Any]) -> None:
        thread = self._slices.threads.get(get_ident())
        if thread is None or not thread.started_ns:
            return
        if phase == "start":
            thread.gc_started_ns = perf_counter_ns()
        elif thread.gc_started_ns:
            pause_ns = perf_counter_ns() - thread.gc_started_ns
            thread.gc_started_ns = 0
            if pause_ns >= _SHORTEST_NS and (thread.operation is None or thread.operation.cause != GC.cause):
                self._slices.interrupt(thread, GC, PSEUDO_SITE, pause_ns, getframe(1))
