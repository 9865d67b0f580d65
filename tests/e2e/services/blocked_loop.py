"""A loop that is frozen for 200 ms while timers are due, or one that only waits.

    python blocked_loop.py (blocked | idle) (asyncio | uvloop)

The collector's address comes from AIOCOP_COLLECTOR.
"""

import asyncio
import sys
import threading
import time

import uvloop

import aiocop


async def ticks() -> None:
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        await asyncio.sleep(0.02)


async def blocked() -> None:
    tickers = []
    for _ in range(10):
        tickers.append(asyncio.create_task(ticks()))
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    time.sleep(0.2)
    await asyncio.gather(*tickers)


async def idle() -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    thread = threading.Thread(target=wake, args=(loop, done))
    thread.start()
    await done.wait()  # not joined here: that would be a wait of the loop


def wake(loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
    time.sleep(0.5)
    loop.call_soon_threadsafe(done.set)


if __name__ == "__main__":
    aiocop.start(service=sys.argv[1])
    run = uvloop.run if sys.argv[2] == "uvloop" else asyncio.run
    run({"blocked": blocked, "idle": idle}[sys.argv[1]]())
    sys.exit(not aiocop.flush(60))
