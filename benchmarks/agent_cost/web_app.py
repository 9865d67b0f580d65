"""The FastAPI service that is put under load: `python web_app.py VARIANT LOOP FD`, FD being a listening socket."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.agent_cost.variants import DEBUG, activate, set_up


def create_app(variant: str) -> FastAPI:
    """One handler that does nothing, one that makes a blocking call."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        set_up(variant)
        activate(variant)
        if variant == DEBUG:
            # Not PYTHONASYNCIODEBUG: uvicorn sets its loop's mode itself.
            asyncio.get_running_loop().set_debug(True)
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/nothing")
    async def nothing() -> dict[str, int]:
        return {"answer": 42}

    @app.get("/stat")
    async def stat() -> dict[str, int]:
        return {"size": os.stat("/").st_size}

    return app


def main() -> None:
    """Serve until SIGTERM."""
    variant, loop, descriptor = sys.argv[1:]
    config = uvicorn.Config(create_app(variant), loop=loop, log_level="warning", access_log=False)
    # Not `fd=`: uvicorn takes that for a Unix socket, on which asyncio sets no TCP_NODELAY, and answers take 40 ms.
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])


if __name__ == "__main__":
    main()
