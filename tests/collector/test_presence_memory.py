"""Who was seen today is remembered between questions: completed whenever somebody else is seen, whoever writes it."""

import itertools
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site
from tests.support.sql import create_database

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.queries import span_memory
from aiocop_collector.queries.span_memory import SpanMemory
from aiocop_collector.store import schema
from aiocop_collector.store.database import open_engine, prepare, writing
from aiocop_collector.store.snapshot import snapshot
from aiocop_collector.store.spans import DAY_S
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

NOW_S = int(time.time()) // DAY_S * DAY_S + DAY_S / 2
"""Noon: the day does not end meanwhile."""

DAY = int(NOW_S) // DAY_S * DAY_S


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def engine(request, tmp_path) -> AsyncIterator[AsyncEngine]:
    """A migrated database of the test's own."""
    url = f"sqlite:///{tmp_path}/c.sqlite3"
    if request.param == "postgres":
        url = await create_database(request.getfixturevalue("postgres_url"))
    engine = open_engine(url)
    await prepare(engine)
    yield engine
    await engine.dispose()


@pytest.fixture(autouse=True)
def remembering(monkeypatch):
    """However few sites a page has: otherwise those of few are read each time."""
    monkeypatch.setattr("aiocop_collector.queries.processes._FEW_SITES", -1)


class Agents:
    """Agents of some services, each in a process of its own."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self._sequences = itertools.count(1)

    async def see(self, identity, *sites: int) -> None:
        """It reports a call at each of the sites."""
        store = Store(self._engine, Counters(), retention=timedelta(days=30), clock_s=lambda: NOW_S)
        deltas = [SiteDelta(site, 1, 1, 90_000, 90_000) for site in sites]
        report = make_report(next(self._sequences), *deltas, started_at_ms=int(NOW_S * 1000) - 5000)
        store.offer(Arrival(identity, "unix", 100, report, tuple(map(make_site, sites))))
        store.start()
        assert await store.stop(60)


@pytest.fixture
def agents(engine) -> Agents:
    return Agents(engine)


@pytest.fixture
async def client(engine):
    transport = httpx.ASGITransport(make_app(engine, clock_s=lambda: NOW_S))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        yield client


async def processes(client, group_by: str) -> dict[str, int]:
    """By key, asked twice: the second answer is remembered."""
    found = []
    for _ in range(2):
        answer = (await client.get("/hotspots", params={"since": "1h", "group_by": group_by})).raise_for_status().json()
        found.append({row["key"]: row["processes"] for row in answer["hotspots"]})
    assert found[0] == found[1]
    return found[0]


async def changes(engine) -> dict[int, int]:
    async with engine.connect() as connection:
        rows = await connection.execute(select(schema.presence_changed.c.service_id, schema.presence_changed.c.change))
        return dict(tuple(row) for row in rows)


async def test_answers_follow_who_is_seen(agents, client):
    shop, shop_too, mail = make_identity("shop"), make_identity("shop"), make_identity("mail")
    await agents.see(shop, 1, 2)
    await agents.see(mail, 1)
    assert await processes(client, "service") == {"shop": 1, "mail": 1}
    assert set((await processes(client, "line")).values()) == {1, 2}
    await agents.see(shop_too, 2)
    assert await processes(client, "service") == {"shop": 2, "mail": 1}
    assert await processes(client, "operation") == {make_site(1).operation: 3}
    await agents.see(mail, 3)
    await agents.see(shop_too, 1, 3)
    assert await processes(client, "service") == {"shop": 2, "mail": 1}
    assert sorted((await processes(client, "line")).values()) == [2, 2, 3]


async def test_answers_follow_what_another_version_writes(engine, agents, client):
    """Which knows nothing of the memory."""
    await agents.see(make_identity("shop"), 1)
    assert await processes(client, "service") == {"shop": 1}
    async with engine.connect() as connection:
        (site_id,) = (await connection.execute(select(schema.sites.c.id))).scalars()
    async with writing(engine) as connection:
        await connection.execute(insert(schema.presence).values(day_s=DAY, site_id=site_id, agent_id="0" * 32))
    assert await processes(client, "service") == {"shop": 2}


async def test_another_number_for_a_service_where_somebody_is_seen_and_only_then(engine, agents):
    shop, mail = make_identity("shop"), make_identity("mail")
    await agents.see(shop, 1)
    await agents.see(mail, 1)
    before = await changes(engine)
    assert len(before) == 2
    await agents.see(shop, 1)
    assert await changes(engine) == before
    await agents.see(make_identity("shop"), 1)
    after = await changes(engine)
    assert len([service for service, change in after.items() if before[service] != change]) == 1


async def test_only_sites_of_services_that_changed_are_read_again(engine, agents, monkeypatch):
    read = []

    async def read_presence(connection, days_s, site_ids=None):
        read.append(None if site_ids is None else len(site_ids))
        return await reading(connection, days_s, site_ids)

    reading = span_memory.read_presence
    monkeypatch.setattr(span_memory, "read_presence", read_presence)
    memory = SpanMemory()

    async def seen(horizons=None):
        async with snapshot(engine) as connection:
            presence = await memory.presence(connection, [], [DAY], {}, horizons or {})
            return sorted(bits.bit_count() for bits in presence.seen_by.values())

    shop = make_identity("shop")
    await agents.see(shop, 1, 2, 3)
    await agents.see(make_identity("mail"), 1, 2)
    assert await seen() == [1] * 5
    assert await seen() == [1] * 5
    assert read == [None]
    await agents.see(make_identity("mail"), 2)
    assert await seen() == [1, 1, 1, 1, 2]
    assert read == [None, 2]
    await agents.see(shop, 4)
    assert await seen() == [1, 1, 1, 1, 1, 2]
    assert read == [None, 2, 4]
    assert await seen() == [1, 1, 1, 1, 1, 2]
    # Rows of days before the horizon may be gone: nothing is known of what was read before it rose.
    assert await seen({DAY_S: DAY}) == [1, 1, 1, 1, 1, 2]
    assert read == [None, 2, 4, None]


async def test_a_question_that_began_earlier_is_answered_as_of_then(engine, agents):
    """Whatever others have asked and remembered meanwhile: as is one on a database that was put back from a backup."""
    memory = SpanMemory()
    await agents.see(make_identity("shop"), 1)
    await agents.see(make_identity("mail"), 1)

    async def seen(connection):
        return len((await memory.presence(connection, [], [DAY], {}, {})).seen_by)

    async with snapshot(engine) as earlier:
        assert await seen(earlier) == 2
        await agents.see(make_identity("shop"), 2)
        await agents.see(make_identity("cart"), 1)
        async with snapshot(engine) as later:
            assert await seen(later) == 4
            assert await seen(earlier) == 2
            assert await seen(later) == 4
