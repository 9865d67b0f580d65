"""A web service with known freezes, started in each of the ways the README promises.

    python counted.py (before-run | lifespan) (asyncio | uvloop)     under uvicorn, prints its port
    python counted.py (uvloop-main | plain) FLUSH_S                  a script, prints its answer

The collector's address comes from AIOCOP_COLLECTOR. `/work?flush_s=` answers with what the service
measured itself, in ms.
"""

import asyncio
import json
import os
import socket
import sys
import time
from contextlib import asynccontextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

import aiocop

NAPS = 1000
FILES = 500


async def takes_naps() -> float:
    measured_s = 0.0
    for number in range(NAPS):
        began = time.perf_counter()
        time.sleep(0.002)
        measured_s += time.perf_counter() - began
        if number % 9 == 0:
            await asyncio.sleep(0)
    return measured_s * 1000


async def opens_files() -> None:
    for number in range(FILES):
        with open(os.devnull):
            pass
        if number % 7 == 0:
            await asyncio.sleep(0)


async def does_it_right() -> None:
    await asyncio.to_thread(time.sleep, 0.05)
    await asyncio.sleep(0.05)


async def work(flush_s: float = 30.0) -> dict[str, object]:
    measured_ms, _, _ = await asyncio.gather(takes_naps(), opens_files(), does_it_right())
    flushed = await asyncio.to_thread(aiocop.flush, flush_s)
    told = aiocop.statistics()
    return {"measured_ms": measured_ms, "flushed": flushed, "recorded": told.recorded, "faults": told.faults}


async def script() -> None:
    if sys.argv[1] == "uvloop-main":
        aiocop.start(service="counted")
    print(json.dumps(await work(float(sys.argv[2]))))


def serve(how: str, loop: str) -> None:
    @asynccontextmanager
    async def lifespan(_app):
        if how == "lifespan":
            aiocop.start(service="counted")
        yield

    app = FastAPI(lifespan=lifespan)
    app.get("/work")(work)
    if how == "before-run":
        aiocop.start(service="counted")
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, loop=loop, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    if sys.argv[1] in ("before-run", "lifespan"):
        serve(*sys.argv[1:])
    elif sys.argv[1] == "uvloop-main":
        uvloop.run(script())
    else:
        aiocop.start(service="counted")
        asyncio.run(script())
