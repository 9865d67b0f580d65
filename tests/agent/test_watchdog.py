"""The watchdog's thread, where no freeze shows what it does."""

import asyncio
import threading
import time

import pytest
from tests.support.detecting import LOOPS

import aiocop


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
