"""What is remembered of sites between questions: never longer than it is true, whoever changes it."""

import itertools
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import text, update
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site, now_ms
from tests.support.sql import create_database

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.queries.fact_memory import FACT_COLUMNS, FactMemory
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import GROUPINGS
from aiocop_collector.store import schema
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.triggers import FACTS_OF_SITES
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

IDENTITY = make_identity()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def engine(request, tmp_path):
    """A migrated database of the test's own."""
    url = f"sqlite:///{tmp_path}/c.sqlite3"
    if request.param == "postgres":
        url = await create_database(request.getfixturevalue("postgres_url"))
    engine = open_engine(url)
    await prepare(engine)
    yield engine
    await engine.dispose()


@pytest.fixture
def report(engine):
    """Commit a call at each of the sites, which are defined again."""
    sequences = itertools.count(1)

    async def commit(*sites) -> None:
        store = Store(engine, Counters(), retention=timedelta(days=30))
        deltas = [SiteDelta(site.site_id, 1, 1, 90_000, 90_000) for site in sites]
        made = make_report(next(sequences), *deltas, started_at_ms=now_ms())
        store.offer(Arrival(IDENTITY, "unix", 100, made, tuple(sites)))
        store.start()
        assert await store.stop(60)

    return commit


@pytest.fixture
async def client(engine):
    app = make_app(engine, clock_s=lambda: now_ms() / 1000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://collector") as client:
        yield client


async def version(engine) -> frozenset[int]:
    async with engine.connect() as connection:
        return await FactMemory().version(connection)


async def hotspots(client, **parameters) -> list[dict]:
    """Asked twice: of what was found the first time, the second answer is made."""
    parameters = {"since": "1h", **parameters}
    first, second = [(await client.get("/hotspots", params=parameters)).raise_for_status().json() for _ in range(2)]
    assert first["hotspots"] == second["hotspots"]
    return second["hotspots"]


async def test_another_number_for_every_change_and_none_for_counts(engine, report, client):
    site = make_site(1)
    numbers = [await version(engine)]

    async def expect_change() -> None:
        numbers.append(await version(engine))
        assert len(set(numbers)) == len(numbers)

    await report(site)
    await expect_change()
    await report(site, make_site(2))
    await expect_change()
    await report(site, make_site(2))
    assert await version(engine) == numbers[-1], "nothing was said that was not known"
    moved_down = site._replace(frames=tuple(frame._replace(line=frame.line + 1) for frame in site.frames))
    await report(moved_down)
    await expect_change()
    await report(site)
    await expect_change()
    (first, _) = await hotspots(client)
    for status in ("resolved", "open"):
        (await client.patch(f"/hotspots/{first['id']}", json={"status": status})).raise_for_status()
        await expect_change()
    (await client.patch(f"/hotspots/{first['id']}", json={"note": "seen"})).raise_for_status()
    assert await version(engine) == numbers[-1]


async def test_answers_follow_what_is_defined_and_decided(report, client):
    await report(make_site(1, "one"), make_site(2, "two", operation="time.sleep"))
    by_operation = await hotspots(client, group_by="operation")
    assert {row["key"] for row in by_operation} == {"open", "time.sleep"}
    one = next(row for row in await hotspots(client) if row["call_site"].endswith(":one"))
    await report(make_site(3, "three", operation="os.stat"))
    assert {row["key"] for row in await hotspots(client, group_by="operation")} == {"open", "time.sleep", "os.stat"}
    (await client.patch(f"/hotspots/{one['id']}", json={"status": "ignored"})).raise_for_status()
    assert {row["key"] for row in await hotspots(client, group_by="operation")} == {"time.sleep", "os.stat"}
    assert [row["id"] for row in await hotspots(client, status="ignored")] == [one["id"]]
    assert len(await hotspots(client)) == 2


async def test_answers_follow_what_is_changed_in_the_database(engine, report, client):
    """As a collector of the version before does, and everybody else who knows nothing of the memory."""
    await report(make_site(1, "one"), make_site(2, "two"))
    assert [row["severity_score"] for row in await hotspots(client, group_by="service")] == [make_site(1).weight]
    async with engine.begin() as connection:
        await connection.execute(update(schema.sites).values(weight=77, advice="Don't."))
    (row,) = await hotspots(client, group_by="service")
    assert (row["severity_score"], row["advice"]) == (77, "Don't.")


async def test_when_something_was_seen_is_never_remembered(engine, report, client):
    await report(make_site(1, "one"))
    for grouping in GROUPINGS:
        (before,) = await hotspots(client, group_by=grouping, sort="last_seen")
        async with engine.begin() as connection:
            for table in (schema.sites, schema.hotspots, schema.releases):
                await connection.execute(update(table).values(last_seen_ms=table.c.last_seen_ms + 1000))
        (after,) = await hotspots(client, group_by=grouping, sort="last_seen")
        assert before["last_seen"] < after["last_seen"]


async def test_a_question_that_began_earlier_is_answered_as_of_then(engine, report):
    """Its transaction does not see the change, whatever others have asked and remembered meanwhile."""
    await report(make_site(1), make_site(2))
    memory, grouping = FactMemory(), GROUPINGS["operation"]

    async def asked(connection):
        found = await memory.version(connection)
        matching = await memory.cells(connection, found, Filters(), grouping)
        weights = {facts.weight for facts in (await memory.facts(connection, found, range(1000))).values()}
        return len(matching.cell_of), weights

    isolation = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    async with engine.connect() as earlier, engine.connect() as later:
        await earlier.execution_options(**isolation)
        assert await asked(earlier) == (2, {make_site(1).weight})
        await report(make_site(3))
        async with engine.begin() as connection:
            await connection.execute(update(schema.sites).values(weight=77))
        assert await asked(later) == (3, {77})
        assert await asked(earlier) == (2, {make_site(1).weight})
        assert await asked(later) == (3, {77})


async def test_what_is_remembered_is_bounded(engine, report):
    await report(*[make_site(number) for number in range(1, 11)])
    memory = FactMemory(most_sites=5, most_matches=100)
    by_site = {name: Filters(q=(name,)) for name in ("open", "shop", "orders", "Path")}
    async with engine.connect() as connection:
        found = await memory.version(connection)

        async def matching(filters):
            return await memory.cells(connection, found, filters, GROUPINGS["call_site"])

        before = [await matching(filters) for filters in by_site.values()]
        assert [len(matches.cell_of) for matches in before] == [10] * 4
        again = [await matching(filters) for filters in reversed(by_site.values())]
        assert [one is other for one, other in zip(again, reversed(before), strict=True)] == [True, True, True, False]
        wanted = list(before[0].cell_of)
        facts = await memory.facts(connection, found, [*wanted, *range(1000)])
        assert facts.keys() == set(wanted)
        assert await memory.facts(connection, found, wanted[:1]) != facts, "a store of more sites is not remembered"


@pytest.mark.postgres
async def test_transactions_that_change_facts_do_not_wait_for_each_other(postgres_url):
    engine = open_engine(await create_database(postgres_url))
    await prepare(engine)
    site = {column.name: 0 if column.type.python_type is int else "" for column in schema.sites.columns}
    async with engine.begin() as connection:
        await connection.execute(schema.sites.insert(), [site | {"id": number} for number in range(4)])
    states = [await version(engine)]
    async with engine.connect() as one, engine.connect() as other:
        for connection, number in ((one, 1), (other, 2), (one, 3), (other, 0)):
            await connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            await connection.execute(update(schema.sites).where(schema.sites.c.id == number).values(line=number + 7))
        for connection in (other, one):  # not in the order in which they began
            await connection.commit()
            states.append(await version(engine))
    for number in range(3):
        async with engine.begin() as connection:
            await connection.execute(update(schema.sites).where(schema.sites.c.id == number).values(line=number))
        states.append(await version(engine))
    await engine.dispose()
    assert len(set(states)) == len(states)
    assert len(states[-1]) == 1, "numbers of earlier transactions go"


def test_triggers_name_all_that_is_remembered():
    remembered = {column.name for column in FACT_COLUMNS if column.table is schema.sites} - {"id"}
    columns = [column for grouping in GROUPINGS.values() for column in grouping.columns]
    keys = {column.name for column in columns if column.table is schema.sites}
    assert remembered | keys | {"hotspot_id", "service_id"} == set(FACTS_OF_SITES)
    assert {column.name for column in FACT_COLUMNS if column.table is schema.hotspots} == {
        "id",
        "path",
        "function",  # an id stands for one path and function
        "status",
    }
