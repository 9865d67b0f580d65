"""Where a freeze can hide: in loops that the set-up did not see begin, or that others make."""

import asyncio
import threading
import time

from tests.corpus.harness import Harness
from tests.corpus.scenario import freezes, stopwatch

SLEEP = {"operation": "time.sleep", "cause": "wait"}


@freezes("a loop on another thread", **SLEEP)
def loop_on_a_thread(harness: Harness):
    async def main():
        await asyncio.sleep(0.005)
        with stopwatch:
            time.sleep(0.06)  # <- culprit
        await asyncio.sleep(0.005)

    harness.activate()
    thread = threading.Thread(target=harness.run_bare, args=(main,))
    thread.start()
    thread.join()


@freezes("several loops at once", **SLEEP)
def several_loops(harness: Harness):
    async def main(blocks):
        for _ in range(40):
            await asyncio.sleep(0.005)
            if blocks.is_set():
                blocks.clear()
                with stopwatch:
                    time.sleep(0.06)  # <- culprit

    one_blocks = threading.Event()
    threads = [
        threading.Thread(target=harness.run, args=(lambda: main(one_blocks),)),
        threading.Thread(target=harness.run, args=(lambda: main(threading.Event()),)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    one_blocks.set()
    for thread in threads:
        thread.join()


@freezes("a second `asyncio.run`", **SLEEP)
def second_run(harness: Harness):
    async def first():
        await asyncio.sleep(0.005)

    async def second():
        await asyncio.sleep(0.005)
        with stopwatch:
            time.sleep(0.06)  # <- culprit
        await asyncio.sleep(0.005)

    harness.run(first)
    harness.run_bare(second)
