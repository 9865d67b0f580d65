"""The query API over a database, without the rest of the collector: what `create_app` mounts, at a fixed time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import httpx
from fastapi import FastAPI
from tests.support.known_activity import NOW_S

from aiocop_collector.api import build_router, install_problem_handlers
from aiocop_collector.queries import Queries
from aiocop_collector.store.database import open_engine

_asked: ContextVar[Queries] = ContextVar("asked")


class _Asked:
    """Stands for the Queries of the application that a request came to."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_asked.get(), name)


@cache
def _routes() -> FastAPI:
    """Of all applications: what FastAPI works out at the first request takes a third of a second."""
    app = FastAPI()
    app.include_router(build_router(_Asked()))
    install_problem_handlers(app)
    return app


def make_app(engine, clock_s=lambda: NOW_S) -> Callable[..., Any]:
    """An application with the routers of the API only."""
    queries = Queries(engine, clock_s=clock_s)

    async def app(scope, receive, send) -> None:
        _asked.set(queries)
        await _routes()(scope, receive, send)

    return app


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API over the database at `url`."""
    engine = open_engine(url)
    transport = httpx.ASGITransport(make_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        yield client
    await engine.dispose()
