"""What a request costs more while the agent is active: `python switching.py LOOP FD PAIRS`, FD a listening socket.

One process under load that switches the agent off and on again, in random order, pair by pair: so the two differ in
nothing else, and what other programs do to the machine meets both. Its rows are what a process per variant cannot tell
apart from the noise between processes. The audit hook, which nobody can remove, is there all the time.

Prints JSON: microseconds of CPU per request without the agent, what is added on the loop's thread and in other threads
(the watchdog, the shipper), as medians of the pairs, and how many slices a request is.
"""

import asyncio
import json
import random
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.agent_cost.variants import SHIPPING, set_up

import aiocop

SLOT_S = 0.2
SETTLE_S = 0.03
"""After a switch: requests that had begun before it, and a watchdog that wakes up."""
FIRST_REQUESTS = 2_000


class Switching:
    """Counts requests and measures pairs."""

    def __init__(self, pairs: int) -> None:
        self._wanted = pairs
        self.requests = 0

    async def measure(self) -> dict[str, float]:
        """Wait for load, then for the pairs."""
        while self.requests < FIRST_REQUESTS:
            await asyncio.sleep(SLOT_S)
        pairs = [await self._pair() for _ in range(self._wanted)]
        return {
            "bare_us": statistics.median(pair[False][0] + pair[False][1] for pair in pairs),
            "loop_us": statistics.median(pair[True][0] - pair[False][0] for pair in pairs),
            "others_us": statistics.median(pair[True][1] - pair[False][1] for pair in pairs),
            "slices": statistics.median(pair[True][2] for pair in pairs),
        }

    async def _pair(self) -> dict[bool, tuple[float, float, float]]:
        found: dict[bool, tuple[float, float, float]] = {}
        for active in random.sample((True, False), 2):
            (aiocop.activate if active else aiocop.deactivate)()
            await asyncio.sleep(SETTLE_S)
            requests, loop_s, all_s = self.requests, time.thread_time(), time.process_time()
            slices = aiocop.statistics().slices
            await asyncio.sleep(SLOT_S)
            loop_s, all_s = time.thread_time() - loop_s, time.process_time() - all_s
            done = self.requests - requests
            found[active] = (
                loop_s / done * 1e6,
                (all_s - loop_s) / done * 1e6,
                (aiocop.statistics().slices - slices) / done,
            )
        return found


def create_app(switching: Switching) -> FastAPI:
    """A handler that does nothing; ends the process when all pairs are measured."""

    async def run() -> None:
        found = await switching.measure()
        print(json.dumps(found), flush=True)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        set_up(SHIPPING)
        task = asyncio.create_task(run())
        yield
        await task

    app = FastAPI(lifespan=lifespan)

    @app.get("/nothing")
    async def nothing() -> dict[str, int]:
        switching.requests += 1
        return {"answer": 42}

    return app


def main() -> None:
    """Serve until SIGTERM; what was measured is printed as soon as it is."""
    loop, descriptor, pairs = sys.argv[1:]
    config = uvicorn.Config(create_app(Switching(int(pairs))), loop=loop, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
