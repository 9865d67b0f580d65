"""The query API over a database, without the rest of the collector: what `create_app` mounts, at a fixed time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from tests.support.known_activity import NOW_S

from aiocop_collector.api import build_router, install_problem_handlers
from aiocop_collector.queries import Queries
from aiocop_collector.store.database import open_engine


def make_app(engine, clock_s=lambda: NOW_S) -> FastAPI:
    """An application with the routers of the API only."""
    app = FastAPI()
    app.include_router(build_router(Queries(engine, clock_s=clock_s)))
    install_problem_handlers(app)
    return app


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API over the database at `url`."""
    engine = open_engine(url)
    transport = httpx.ASGITransport(make_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        yield client
    await engine.dispose()
