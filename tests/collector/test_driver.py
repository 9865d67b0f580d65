"""Statements past SQLAlchemy: the same transaction, the same errors, and connections that broke are not used again."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.support.postgres_server import find_binaries, run_server
from tests.support.sql import create_database

from aiocop_collector.store import schema
from aiocop_collector.store.database import blames_values, open_engine, prepare, writing
from aiocop_collector.store.driver import execute_rows, fetch, integer_array
from aiocop_collector.store.snapshot import snapshot
from aiocop_collector.store.statements import REPLACE, Statements

COUNT = "SELECT count(*) FROM control_revision"


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


def row(number: int, **changed) -> tuple:
    """Of `services`."""
    values = {"id": number, "name": f"service-{number}", "environment": "", "first_seen_ms": 1, "last_seen_ms": 2}
    return tuple((values | changed).values())


async def names(engine) -> set[str]:
    async with snapshot(engine) as connection:
        found = await fetch(connection, "SELECT name FROM services")
        again = (await connection.execute(select(schema.services.c.name))).scalars().all()
    assert {name for (name,) in found} == set(again)
    return set(again)


async def test_both_ways_write_and_read_in_one_transaction(engine):
    upsert = Statements(engine.dialect).upsert(schema.services, {"name": REPLACE})
    count = select(func.count()).select_from(schema.services)

    async def write_and_fail(first: bool) -> None:
        async with writing(engine) as connection:
            if first:
                await connection.execute(insert(schema.services).values(row(1)))
            await execute_rows(connection, upsert, [row(2), row(3)])
            await connection.execute(insert(schema.services).values(row(4)))
            ((counted,),) = await fetch(connection, "SELECT count(*) FROM services")
            assert counted == (await connection.execute(count)).scalar() == 3 + first
            raise LookupError

    for first in (True, False):  # the statement that begins the transaction is SQLAlchemy's, or is not
        with pytest.raises(LookupError):
            await write_and_fail(first)
        assert await names(engine) == set()
    async with writing(engine) as connection:
        await execute_rows(connection, upsert, [row(2, name="ü, 'ü' {ü}"), row(3), row(-(1 << 63), name='"\\')])
    assert await names(engine) == {"ü, 'ü' {ü}", "service-3", '"\\'}


async def test_a_snapshot_sees_nothing_of_what_comes_later(engine):
    upsert = Statements(engine.dialect).upsert(schema.services, {"name": REPLACE})
    async with snapshot(engine) as connection:
        assert await fetch(connection, "SELECT name FROM services") == []
        async with writing(engine) as other:
            await execute_rows(other, upsert, [row(1)])
        assert await fetch(connection, "SELECT name FROM services") == []
    assert await names(engine) == {"service-1"}


async def test_nothing_is_given_as_nothing(engine):
    nullable = Statements(engine.dialect).upsert(schema.decisions, {})
    rows = [(number, "", None, None, None, None, number or None) for number in range(3)]
    async with writing(engine) as connection:
        await execute_rows(connection, nullable, rows)
        await execute_rows(connection, nullable, [])
    async with snapshot(engine) as connection:
        found = await fetch(connection, "SELECT * FROM decisions ORDER BY hotspot_id")
    assert [tuple(one) for one in found] == rows


async def test_impossible_values_are_told_from_trouble(engine):
    insertion = Statements(engine.dialect).upsert(schema.services, {})

    async def write(begun: bool, *rows: tuple) -> None:
        async with writing(engine) as connection:
            if begun:
                await fetch(connection, "SELECT 1")
            await execute_rows(connection, insertion, rows)

    for begun in (False, True):
        for impossible in (row(1 << 63), row(1, name=None)):
            with pytest.raises(Exception) as raised:  # noqa: PT011 whatever the driver raises
                await write(begun, row(5), impossible)
            assert blames_values(raised.value), repr(raised.value)
        assert await names(engine) == set()


@pytest.mark.postgres
async def test_what_postgresql_refuses_is_raised_as_sqlalchemy_would(postgres_url):
    engine = open_engine(await create_database(postgres_url))

    async def read_nothing(begun: bool) -> None:
        async with snapshot(engine) as connection:
            if begun:
                await fetch(connection, "SELECT 1")
            await fetch(connection, "SELECT nothing FROM nowhere")

    for begun in (False, True):
        with pytest.raises(DBAPIError) as raised:
            await read_nothing(begun)
        assert raised.value.orig.sqlstate == "42P01"
        assert not raised.value.connection_invalidated
    await engine.dispose()


@pytest.mark.postgres
async def test_a_connection_that_broke_is_not_used_again(postgres_url):
    url = await create_database(postgres_url)
    engine, admin = open_engine(url), open_engine(url)
    await prepare(engine)
    end_all = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )

    async def use_when_cut(use: Callable[[AsyncConnection], Awaitable[object]]) -> None:
        async with writing(engine) as connection:
            await fetch(connection, COUNT)
            async with admin.connect() as other:
                await other.execute(end_all)
            await use(connection)

    statement = Statements(engine.dialect).upsert(schema.services, {})
    for use in (lambda it: fetch(it, COUNT), lambda it: execute_rows(it, statement, [row(1)])):
        with pytest.raises(DBAPIError) as raised:
            await use_when_cut(use)
        assert raised.value.connection_invalidated
        assert not blames_values(raised.value)
        async with snapshot(engine) as connection:
            assert [tuple(one) for one in await fetch(connection, COUNT)] == [(0,)]
    await engine.dispose()
    await admin.dispose()


@pytest.mark.postgres
async def test_who_gives_up_waiting_leaves_a_connection_that_can_be_used(postgres_url):
    """As an HTTP client does that goes away."""
    engine = open_engine(await create_database(postgres_url))
    begun, slept = asyncio.Event(), asyncio.Event()

    async def sleep() -> None:
        async with snapshot(engine) as connection:
            await fetch(connection, "SELECT 1")
            begun.set()
            await fetch(connection, "SELECT pg_sleep(3600)")
            slept.set()

    async def asleep() -> int:
        query = "datname = current_database() AND query LIKE '%sleep(3600)' AND state = 'active'"
        async with snapshot(engine) as connection:
            ((found,),) = await fetch(connection, f"SELECT count(*) FROM pg_stat_activity WHERE {query}")
            return found

    for _ in range(3):
        begun.clear()
        sleeping = asyncio.create_task(sleep())
        await begun.wait()
        while not await asleep():
            await asyncio.sleep(0.01)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        while await asleep():
            await asyncio.sleep(0.01)
    assert not slept.is_set()
    assert engine.pool.checkedout() == 0
    await engine.dispose()


@pytest.mark.postgres
async def test_connections_that_idled_while_the_server_was_restarted_are_replaced():
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed here")
    with run_server(binaries) as server:
        engine = open_engine(server.url)
        async with snapshot(engine) as one, snapshot(engine) as other:
            assert [await fetch(it, "SELECT 1") for it in (one, other)] == [[(1,)], [(1,)]]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with snapshot(engine) as one, snapshot(engine) as other:
            assert [await fetch(it, "SELECT 1") for it in (one, other)] == [[(1,)], [(1,)]]
        await engine.dispose()


def test_integers_in_postgresqls_notation():
    assert integer_array([]) == "{}"
    assert integer_array([5]) == "{5}"
    assert integer_array((-(1 << 63), None, 0)) == "{-9223372036854775808, NULL, 0}"
