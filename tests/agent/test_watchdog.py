"""The watchdog's thread, where no freeze shows what it does."""

import asyncio
import re
import threading
import time

import pytest
from tests.support.detecting import LOOPS, detecting, line_of, run_tasks, the_slow_one

import aiocop
from aiocop.api import _agent


@pytest.mark.parametrize("loop", LOOPS)
def test_stop_does_not_wait_for_half_the_threshold(loop):
    """A slice wakes the parked watchdog, and stop() follows before it has had a CPU: nobody would wake it again."""

    async def main():
        await asyncio.sleep(0)

    def start_and_stop():
        aiocop.patch_audit_functions()
        aiocop.detect_slow_tasks(threshold_ms=3_600_000)
        aiocop.activate()
        time.sleep(0.2)  # no slice runs: most likely the watchdog parks
        LOOPS[loop](main())
        aiocop.stop(0)

    for _ in range(5):
        stopping = threading.Thread(target=start_and_stop, daemon=True)
        stopping.start()
        stopping.join(60)
        assert not stopping.is_alive()


@pytest.mark.parametrize("loop", LOOPS)
def test_who_held_the_gil_while_the_watchdog_read_something_is_seen_before_it_reads_on(loop, monkeypatch):
    """Each reading gives up the GIL: after the next one the slice is over, and nobody has seen what it did."""
    began, over = threading.Event(), threading.Event()
    pattern = re.compile(r"(a+)+b")

    async def computes():
        await asyncio.sleep(0)
        began.set()
        pattern.search("a" * 21)
        over.set()

    def note():
        began.wait(60)  # until the GIL is to be had
        yield
        over.wait(60)
        yield

    with detecting(threshold_ms=20) as events:
        monkeypatch.setattr(_agent._slices.workers, "note", note)
        run_tasks(loop, computes)
        monkeypatch.undo()
    event = the_slow_one(events)
    assert event.cause == "cpu"
    assert event.call_site.endswith(f"test_watchdog.py:{line_of(computes, 'pattern.search')}:{computes.__qualname__}")
