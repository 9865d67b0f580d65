"""A store with known activity, and the API over it."""

import asyncio

import pytest
from tests.support.api_client import serving
from tests.support.fill_store import fill
from tests.support.known_activity import make_fleet
from tests.support.postgres_server import find_binaries, run_postgres
from tests.support.sql import make_database

from aiocop_collector.store.database import open_engine


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
    async with serving(filled_store) as client:
        yield client


@pytest.fixture
async def own_store(tmp_path):
    """The engine of an empty database that a test may change."""
    url = f"sqlite+aiosqlite:///{tmp_path}/collector.db"
    engine = open_engine(url)
    yield engine
    await engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request, tmp_path):
    """The URL of an empty database, for a collector of the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/collector.sqlite3"
    return make_database(request.getfixturevalue("postgres_url"))
