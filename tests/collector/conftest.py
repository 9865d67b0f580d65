"""A store with known activity, and the API over it."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine
from tests.support.fill_store import fill
from tests.support.known_activity import NOW_S, make_fleet
from tests.support.postgres_server import find_binaries, run_postgres

from aiocop_collector.api import build_router, install_problem_handlers
from aiocop_collector.database import open_engine
from aiocop_collector.queries import Queries


def make_app(engine, clock_s=lambda: NOW_S):
    app = FastAPI()
    app.include_router(build_router(Queries(engine, clock_s=clock_s)))
    install_problem_handlers(app)
    return app


@pytest.fixture(scope="session")
def postgres_url():
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed here")
    with run_postgres(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def fleet():
    return make_fleet()


@pytest.fixture(scope="session")
def filled_postgres(postgres_url, fleet):
    asyncio.run(fill(postgres_url, fleet))
    return postgres_url


@pytest.fixture(scope="session")
def filled_sqlite(fleet, tmp_path_factory):
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('filled')}/collector.db"
    asyncio.run(fill(url, fleet))
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def filled_store(request):
    """The URL of a database that holds the fleet's activity; tests only read it."""
    return request.getfixturevalue(f"filled_{request.param}")


@pytest.fixture
async def api(filled_store):
    """An HTTP client of the API over the filled store, at the time NOW_S."""
    engine = open_engine(filled_store)
    transport = httpx.ASGITransport(make_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        yield client
    await engine.dispose()


@pytest.fixture
async def own_store(tmp_path):
    """The engine of an empty database that a test may change."""
    url = f"sqlite+aiosqlite:///{tmp_path}/collector.db"
    engine = create_async_engine(url)
    await engine.dispose()
    engine = open_engine(url)
    yield engine
    await engine.dispose()
