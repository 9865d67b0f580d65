"""Deleting by size: what goes first, what stays, what questions then answer, and that the file shrinks."""

import asyncio
import itertools
import time
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select, text
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site
from tests.support.sql import make_database
from tests.support.waiting import DEADLINE_S

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.store import schema
from aiocop_collector.store.condense import missing_spans
from aiocop_collector.store.database import open_engine, prepare, writing
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.pruning import Limits, Pruner
from aiocop_collector.store.retention import KEPT_FOR_EVER, buckets_before, expired
from aiocop_collector.store.size import measure
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

DAY_S = 86_400
NOW_S = 20_000 * DAY_S + 11 * 3600 + 1234
MONTH = timedelta(days=30)
SITES = 60
MINUTE, HOUR, DAY = schema.RESOLUTIONS


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def engine(request, tmp_path):
    """A store with ten hours of minutes, ten days of hours and twenty of days, of each site one call a minute."""
    url = f"sqlite:///{tmp_path}/c.sqlite3"
    if request.param == "postgres":
        url = await asyncio.to_thread(make_database, request.getfixturevalue("postgres_url"))
    engine = open_engine(url)
    await prepare(engine)
    store = Store(engine, Counters(), retention=MONTH, clock_s=lambda: NOW_S)
    deltas = [SiteDelta(number, 1, 0, 9, 9, (3, 1)) for number in range(SITES)]
    sites = tuple(make_site(number) for number in range(SITES))
    store.offer(Arrival(make_identity(), "unix", 100, make_report(1, *deltas, started_at_ms=NOW_S * 1000), sites, ()))
    await store._write(store._take())
    async with writing(engine) as connection:
        for resolution, hours in ((MINUTE, 10), (HOUR, 240), (DAY, 480)):
            await connection.exec_driver_sql(_past(resolution, resolution.rollups, hours, "1, 0, 9, 9"))
            await connection.exec_driver_sql(_past(resolution, resolution.histograms, hours, "1"))
    if request.param == "postgres":
        await engine.dispose()  # a session tells the server how many rows it wrote when it ends, at the latest
        async with engine.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).exec_driver_sql("VACUUM ANALYZE")
        while (await size(engine)).used_bytes < (await size(engine)).files_bytes / 2:
            await asyncio.sleep(0.05)  # the server counts rows a little later than they are there
    yield engine
    await engine.dispose()


def _past(resolution, table, hours: int, values: str) -> str:
    """Copies of each site's row, one in every bucket before that of NOW_S."""
    columns = [column.name for column in table.columns if not column.primary_key]
    if table is resolution.histograms:
        columns = ["b03"]
    until_s = NOW_S - NOW_S % resolution.seconds
    names = ", ".join(f'"{name}"' for name in columns)
    return (
        f"INSERT INTO {table.name} (bucket_s, site_id, release_id, {names}) "
        f"WITH RECURSIVE buckets(at_s) AS (SELECT {until_s - hours * 3600} "
        f"UNION ALL SELECT at_s + {resolution.seconds} FROM buckets WHERE at_s + {resolution.seconds} < {until_s}) "
        f"SELECT at_s, site_id, release_id, {values} FROM buckets, {MINUTE.rollups.name} AS now "
        f"WHERE now.bucket_s = {NOW_S - NOW_S % 60}"
    )


async def size(engine):
    async with engine.connect() as connection:
        return await measure(connection)


async def oldest_s(engine, resolution) -> int:
    async with engine.connect() as connection:
        found = {
            (await connection.execute(select(func.min(table.c.bucket_s)))).scalar_one() for table in resolution.tables
        }
    (oldest,) = found - {None}  # tables that the fixture leaves empty
    return oldest


async def prune_to(engine, max_bytes: int) -> int:
    rows = 0
    async for deleted in Pruner(engine, Limits(MONTH, max_bytes), clock_s=lambda: NOW_S).by_size():
        rows += deleted
    return rows


async def ask(engine, **parameters) -> dict:
    transport = httpx.ASGITransport(make_app(engine, clock_s=lambda: NOW_S))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        answer = await client.get("/hotspots", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_table_is_either_pruned_or_kept_on_purpose():
    pruned = {old.table for old in expired(MONTH, NOW_S * 1000)}
    pruned |= {old.table for resolution in schema.RESOLUTIONS for old in buckets_before(resolution, NOW_S)}
    assert pruned | KEPT_FOR_EVER == set(schema.metadata.tables.values())
    assert not pruned & KEPT_FOR_EVER


async def test_the_oldest_minutes_go_first_and_the_file_shrinks(engine):
    before = await size(engine)
    unpruned = [await oldest_s(engine, resolution) for resolution in schema.RESOLUTIONS]
    assert await prune_to(engine, before.used_bytes) == 0
    assert await prune_to(engine, int(before.used_bytes * 0.9)) > 0
    after = [await oldest_s(engine, resolution) for resolution in schema.RESOLUTIONS]
    assert unpruned[0] < after[0] <= NOW_S - 2 * 3600
    assert after[1:] == unpruned[1:]
    async with engine.connect() as connection:
        assert await load_horizons(connection) == {60: after[0]}
        # Spans that would be sums of what is left are not summed.
        spans = await missing_spans(connection, MONTH, NOW_S)
        assert min(span.start_s for span in spans if span.span_s == 600) >= after[0]
    if engine.dialect.name == "sqlite":
        assert (await size(engine)).used_bytes <= before.used_bytes * 0.9
        async with engine.connect() as connection:
            pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            free = (await connection.exec_driver_sql("PRAGMA freelist_count")).scalar_one()
        assert free <= max(256, pages * 0.1)


async def test_a_window_of_deleted_minutes_is_answered_from_hours_and_one_of_deleted_hours_from_days(engine):
    earlier = await ask(engine, since="6h", until="5h")
    assert earlier["window"]["resolution_s"] == 60
    await prune_to(engine, 1 << 20)
    recent = await ask(engine, since="90m", until="60m")
    assert recent["window"]["resolution_s"] == 60
    assert {row["count"] for row in recent["hotspots"]} == {31}
    later = await ask(engine, since="6h", until="5h")
    assert later["window"] == {"since": to_rfc3339((NOW_S - 1234 - 6 * 3600) * 1000), "resolution_s": 3600} | {
        "until": to_rfc3339((NOW_S - 1234 - 4 * 3600) * 1000)
    }
    assert {row["count"] for row in later["hotspots"]} == {
        2
    }  # one in each hour's row: the fixture's rows do not add up
    days = await ask(engine, since="4d", until="3d")
    assert days["window"]["resolution_s"] == DAY_S
    # Older days are gone too: the answer says from when on it is.
    month = await ask(engine, since="30d")
    assert month["window"]["since"] == to_rfc3339((NOW_S - NOW_S % DAY_S - 2 * DAY_S) * 1000)


async def test_what_was_decided_and_first_seen_survives_and_so_do_the_last_days(engine):
    async with writing(engine) as connection:
        await connection.execute(text("UPDATE hotspots SET status = 'resolved', note = 'see 4711'"))
        seen = (await connection.execute(select(schema.hotspots).order_by(schema.hotspots.c.id))).all()
    await prune_to(engine, 1 << 20)
    for resolution, kept_s in ((MINUTE, 2 * 3600), (HOUR, 2 * DAY_S), (DAY, 2 * DAY_S)):
        latest_s = NOW_S - kept_s
        assert await oldest_s(engine, resolution) == latest_s - latest_s % resolution.seconds
    async with engine.connect() as connection:
        assert (await connection.execute(select(schema.hotspots).order_by(schema.hotspots.c.id))).all() == seen
        assert (await connection.execute(select(func.count()).select_from(schema.agents))).scalar_one() == 1


async def test_reports_are_committed_while_a_store_shrinks(engine):
    """The writer deletes in batches, and commits what has come in between."""
    acknowledged: list[int] = []
    counters = Counters()
    store = Store(
        engine,
        counters,
        retention=MONTH,
        max_bytes=1 << 20,
        clock_s=lambda: NOW_S,
        on_commit=lambda _outcome, _seconds: acknowledged.append(counters.totals().get("rows_pruned", 0)),
    )
    store.start()
    identity = make_identity()
    give_up_at = time.monotonic() + DEADLINE_S
    for sequence in itertools.count(1):
        assert time.monotonic() < give_up_at, "the store does not shrink"
        report = make_report(sequence, SiteDelta(1, 1, 0, 9, 9), started_at_ms=NOW_S * 1000)
        store.offer(Arrival(identity, "udp", 100, report, (make_site(1),), ()))
        await store.settle()
        async with engine.connect() as connection:
            if (await load_horizons(connection)).get(DAY_S, 0) > NOW_S - 3 * DAY_S:
                break
    assert await store.stop(60)
    assert len({rows for rows in acknowledged if rows}) > 3
