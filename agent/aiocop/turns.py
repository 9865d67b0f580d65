"""Turns of a loop: from the moment its selector returns to the moment it asks again.

Many short callbacks can freeze a loop together, none of them slow: what no slice and no measured call accounts for in a
turn over the threshold is `<loop>`, with cause `loop`. This is for asyncio's own loops; uvloop's have uvloop_turns.py.

Cost model: per turn, two look-ups of the thread and two clock readings, about 0.4 µs.
"""

from __future__ import annotations

import asyncio.base_events
import selectors
from collections.abc import Callable
from typing import Any

from aiocop._stdlib import get_ident, perf_counter_ns
from aiocop.patches import Patches
from aiocop.slice import Slices


class Turns:
    """The two methods of asyncio's loops between which a turn lies."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._patches = Patches()

    def install(self) -> None:
        slices = self._slices
        self._patches.replace(
            asyncio.base_events.BaseEventLoop, "_run_once", lambda original: _run_once(slices, original)
        )
        self._patches.replace(selectors.DefaultSelector, "select", lambda original: _select(slices, original))

    def remove(self) -> None:
        self._patches.restore()


def _select(slices: Slices, original: Callable[..., Any]) -> Callable[..., Any]:
    find_thread = slices.threads.get

    def select(selector: Any, timeout: Any = None) -> Any:
        thread = find_thread(get_ident())
        if thread is None or not thread.turn_started_ns:
            return original(selector, timeout)
        if thread.started_ns and not slices.leave_implicit(thread):
            # A callback uses a selector of its own.
            return original(selector, timeout)
        found = original(selector, timeout)
        thread.turn_started_ns = perf_counter_ns()
        return found

    return select


def _run_once(slices: Slices, original: Callable[[Any], None]) -> Callable[[Any], None]:
    find_thread = slices.threads.get

    def run_once(loop: Any) -> None:
        thread = find_thread(get_ident())
        if thread is None or thread.turn_started_ns or not slices.active:
            return original(loop)
        thread.turn_started_ns = perf_counter_ns()
        thread.credited_ns = 0
        try:
            return original(loop)
        finally:
            elapsed_ns = perf_counter_ns() - thread.turn_started_ns
            thread.turn_started_ns = 0
            if elapsed_ns - thread.credited_ns >= slices.threshold_ns and not thread.started_ns:
                slices.finish_turn(thread, elapsed_ns)

    return run_once
