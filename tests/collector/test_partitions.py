"""Tables of buckets divided by time on PostgreSQL: nothing is lost, old time goes whole, few are read."""

import asyncio
import re
import time
from datetime import timedelta

import pytest
from sqlalchemy import select, text
from tests.support.sql import create_database

from aiocop_collector.store import schema
from aiocop_collector.store.database import open_engine, prepare, writing
from aiocop_collector.store.migrations import upgrade
from aiocop_collector.store.partitions import ended_partitions
from aiocop_collector.store.pruning import Limits, Pruner

pytestmark = pytest.mark.postgres

DAY_S = 86_400
MINUTE, HOUR, _ = schema.RESOLUTIONS
NOW_S = 40_000 * DAY_S + 5
"""In 2079: tables are divided after their latest row, where that is later than the clock of the day."""


@pytest.fixture
async def undivided(postgres_url):
    """With a row of today in its tables."""
    engine = open_engine(await create_database(postgres_url))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0011")
    await insert(engine, 0)
    async with writing(engine) as connection:
        for hours, minutes in zip(HOUR.tables, MINUTE.tables, strict=True):
            await connection.execute(hours.insert().from_select(minutes.c.keys(), select(minutes)))
    yield engine
    await engine.dispose()


@pytest.fixture
async def divided(undivided):
    """Empty, and prepared as if today."""
    await prepare(undivided)
    async with writing(undivided) as connection:
        for table in (*MINUTE.tables, *HOUR.tables):
            await connection.execute(table.delete())
    return undivided


async def insert(engine, *days: float) -> None:
    """A row of minutes so many days from now, in both tables."""
    async with writing(engine) as connection:
        for day in days:
            bucket_s = NOW_S // 60 * 60 + int(day * DAY_S)
            key = {"bucket_s": bucket_s, "site_id": 1, "release_id": 1}
            counters = {"count": 1, "slow_count": 1, "blocked_us": 1, "max_us": 1}
            await connection.execute(MINUTE.rollups.insert(), key | counters)
            await connection.execute(MINUTE.histograms.insert(), key | {"b03": 1})


async def days_in(engine, table: str) -> list[int]:
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT bucket_s FROM {table} ORDER BY bucket_s"))
        return [round((bucket_s - NOW_S // 60 * 60) / DAY_S) for (bucket_s,) in found]


async def partitions(engine, table: str) -> set[str]:
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:name)"),
            {"name": table},
        )
        return set(found.scalars())


async def prune(engine, now_s: int) -> None:
    async for _ in Pruner(engine, Limits(timedelta(days=30)), clock_s=lambda: now_s).by_age():
        pass


def first_s(day: int) -> int:
    return NOW_S - NOW_S % DAY_S + day * DAY_S


async def test_tables_that_are_there_are_divided_in_place(undivided):
    await insert(undivided, -40, -2)
    await prepare(undivided)
    await insert(undivided, -1, 0.5, 3)
    assert await days_in(undivided, "rollups_minute") == [-40, -2, -1, 0, 0, 3]
    assert await days_in(undivided, "rollups_minute_before") == [-40, -2, -1, 0, 0]
    assert await days_in(undivided, "histograms_minute_other") == [3]


async def test_tables_without_a_row_are_divided_after_the_day_of_the_clock(postgres_url):
    engine = open_engine(await create_database(postgres_url))
    began_s = int(time.time())
    await prepare(engine)
    async with engine.connect() as connection:
        edges_s = {
            partition.until_s
            for resolution in schema.RESOLUTIONS
            for partition in await ended_partitions(connection, resolution, NOW_S)
        }
    await engine.dispose()
    (edge_s,) = edges_s
    assert began_s < edge_s <= time.time() + DAY_S
    assert edge_s % DAY_S == 0


async def test_partitions_are_made_ahead_and_take_over_what_came_too_early(divided):
    await insert(divided, 0, 1, 2, 9)
    await asyncio.gather(*[prune(divided, NOW_S) for _ in range(3)])
    for table in ("rollups_minute", "histograms_minute"):
        made = {f"{table}_from_{first_s(day)}" for day in (1, 2)}
        assert await partitions(divided, table) == made | {f"{table}_before", f"{table}_other"}
        assert await days_in(divided, f"{table}_from_{first_s(1)}") == [1]
        assert await days_in(divided, f"{table}_other") == [9]
        assert await days_in(divided, table) == [0, 1, 2, 9]


async def test_old_time_goes_whole(divided):
    for day in range(12):
        await prune(divided, NOW_S + day * DAY_S)
        await insert(divided, day, day - 20)  # and one that comes very late
    for table in ("rollups_minute", "histograms_minute"):
        left = range(8, 14)  # three days kept, the one they begin in, and two ahead
        assert await partitions(divided, table) == {f"{table}_from_{first_s(day)}" for day in left} | {f"{table}_other"}
        assert await days_in(divided, f"{table}_other") == [-9]
        assert await days_in(divided, table) == [-9, 8, 9, 10, 11]


async def test_questions_read_only_the_partitions_of_their_window(divided):
    for day in range(6):
        await prune(divided, NOW_S + day * DAY_S)
    window = f"bucket_s IN ({first_s(4)}, {first_s(4) + 60})"
    plan = text(f"EXPLAIN SELECT site_id, sum(count) FROM rollups_minute WHERE {window} GROUP BY site_id")
    async with divided.connect() as connection:
        lines = "\n".join((await connection.execute(plan)).scalars())
    assert set(re.findall(r"rollups_minute_\w+?(?=_pkey|\b)", lines)) == {f"rollups_minute_from_{first_s(4)}"}, lines


async def test_collectors_that_drop_the_same_days_at_once_leave_each_other_alone(divided):
    for day in range(0, 40, 10):
        await asyncio.gather(*[prune(divided, NOW_S + day * DAY_S) for _ in range(4)])
    for table in ("rollups_minute", "rollups_hour"):
        assert f"{table}_from_{first_s(32)}" in await partitions(divided, table)
        assert f"{table}_before" not in await partitions(divided, table)
