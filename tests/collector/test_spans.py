"""Spans only ever shorten the way to an answer: with, without and with half of them it is the same."""

import random
from datetime import timedelta
from itertools import pairwise

import httpx
import pytest
from sqlalchemy import delete, func, select, text
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site
from tests.support.fill_store import insert_activity
from tests.support.known_activity import NOW_S

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.store import schema
from aiocop_collector.store.condense import GRACE_S, missing_spans, sum_some
from aiocop_collector.store.database import WRITES, open_engine, prepare
from aiocop_collector.store.pruning import Limits, Pruner
from aiocop_collector.store.schema import RESOLUTIONS
from aiocop_collector.store.spans import SPANS, cover
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

MONTH = timedelta(days=30)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def engine(request, tmp_path, fleet):
    """A migrated database of the test's own with the fleet's activity; nothing is summed yet."""
    url = f"sqlite:///{tmp_path}/c.sqlite3"
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_url")
        name = f"spans_{abs(hash(request.node.nodeid)) % 10**9}"
        admin = open_engine(server)
        async with admin.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
                text(f"CREATE DATABASE {name}")
            )
        await admin.dispose()
        url = server.rpartition("/")[0] + f"/{name}"
    engine = open_engine(url)
    await prepare(engine)
    await insert_activity(engine, fleet)
    yield engine
    await engine.dispose()


async def sum_all(engine, now_s: int = int(NOW_S)) -> int:
    """As the writer does; how many spans there were to sum."""
    async with engine.connect() as connection:
        spans = await missing_spans(connection, MONTH, now_s)
    wanted, more = iter(spans), True
    while more:
        async with engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                more = await sum_some(connection, wanted, now_s * 1000)
    return len(spans)


async def listed(engine) -> set[tuple[int, int]]:
    async with engine.connect() as connection:
        found = await connection.execute(select(schema.spans.c.span_s, schema.spans.c.bucket_s))
        return {tuple(row) for row in found}


async def answers(engine) -> dict[str, dict]:
    """What the API says to questions of all kinds."""
    found = {}
    transport = httpx.ASGITransport(make_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        for window in ("since=20h", "since=2d&until=1h", "since=30d"):
            paths = [f"/services?{window}", f"/operations?{window}"]
            paths += [
                f"/hotspots?{window}&limit=2&{question}"
                for question in (
                    "sort=count",
                    "group_by=operation&sort=p99",
                    "group_by=release",
                    "service=shop&release=1.4.0",
                )
            ]
            for path in paths:
                found[path] = (await client.get(path)).raise_for_status().json()
            for row in found[paths[2]]["hotspots"][:1]:
                path = f"/hotspots/{row['id']}?{window}"
                found[path] = (await client.get(path)).raise_for_status().json()
    return found


async def test_answers_are_the_same_with_without_and_with_some_spans(engine):
    without = await answers(engine)
    assert await sum_all(engine) > 100
    assert {length_s for length_s, _ in await listed(engine)} == set(SPANS)
    assert await answers(engine) == without
    async with engine.begin() as connection:
        await connection.execute(delete(schema.spans).where(schema.spans.c.bucket_s % 7 == 0))
    assert await answers(engine) == without
    assert await sum_all(engine) > 0, "what was struck off is summed again"
    assert await sum_all(engine) == 0
    assert await answers(engine) == without


async def test_spans_are_read_at_all(engine):
    await sum_all(engine)
    before = await answers(engine)
    async with engine.begin() as connection:
        await connection.execute(schema.span_rollups.update().values(count=schema.span_rollups.c["count"] + 1))
    changed = await answers(engine)
    assert all(before[path] != changed[path] for path in before if path.startswith("/operations?since=2d"))


async def test_a_late_report_is_in_every_answer(engine):
    await sum_all(engine)
    summed = await listed(engine)
    store = Store(engine, Counters(), retention=MONTH, clock_s=lambda: NOW_S)
    late_s = int(NOW_S) - 30 * 3600
    report = make_report(1, SiteDelta(1, 1000, 0, 9, 9, (0, 1000)), started_at_ms=late_s * 1000)
    store.offer(Arrival(make_identity("shop", environment="prod"), "unix", 100, report, (make_site(1),), ()))
    store.start()
    await store.settle()
    assert await store.stop(60)
    with_spans = await answers(engine)
    by_function = with_spans["/operations?since=2d&until=1h"]["operations"]
    assert sum(row["count"] for row in by_function) >= 1000
    async with engine.begin() as connection:
        await connection.execute(delete(schema.spans))
    assert await answers(engine) == with_spans
    assert {(length_s, late_s - late_s % length_s) for length_s in (600, 10_800, 43_200)} <= summed


async def test_a_commit_strikes_off_what_it_makes_untrue(engine):
    await sum_all(engine)
    summed = await listed(engine)
    store = Store(engine, Counters(), retention=MONTH, clock_s=lambda: NOW_S)
    late_s = int(NOW_S) - 30 * 3600
    report = make_report(1, SiteDelta(1, 1, 0, 9, 9, (0, 1)), started_at_ms=late_s * 1000)
    store.offer(Arrival(make_identity("shop", environment="prod"), "unix", 100, report, (make_site(1),), ()))
    await store._write(store._take())
    untrue = {(length_s, late_s - late_s % length_s) for length_s in SPANS}
    assert await listed(engine) == summed - untrue
    assert summed & untrue


async def test_what_goes_with_its_buckets(engine):
    await sum_all(engine)
    later_ms = int(NOW_S + 20 * 86_400) * 1000
    async for _ in Pruner(engine, Limits(MONTH), clock_s=lambda: later_ms / 1000).by_age():
        pass
    assert 2 * 86_400 in {length_s for length_s, _ in await listed(engine)} <= {2 * 86_400, 8 * 86_400}
    async with engine.connect() as connection:
        for table in (schema.span_rollups, schema.span_histograms):
            lengths = (await connection.execute(select(table.c.span_s).distinct())).scalars().all()
            assert 2 * 86_400 in lengths
            assert set(lengths) <= {2 * 86_400, 8 * 86_400}
            oldest_s = (await connection.execute(select(func.min(table.c.bucket_s)))).scalar_one()
            assert oldest_s >= later_ms // 1000 - 31 * 86_400


async def test_only_what_is_over_and_whole_is_summed(engine):
    await sum_all(engine)
    kept_s = {"minute": 3 * 86_400, "hour": 14 * 86_400, "day": 30 * 86_400}
    for length_s, start_s in await listed(engine):
        assert start_s + length_s <= NOW_S - GRACE_S
        assert start_s >= NOW_S - kept_s[SPANS[length_s].name]


def test_a_cover_is_the_window_no_more_no_less():
    randomly = random.Random(5)
    for _ in range(300):
        finest = randomly.choice(RESOLUTIONS)
        since_s = randomly.randrange(20_000 * 86_400, 20_040 * 86_400) // finest.seconds * finest.seconds
        until_s = since_s + randomly.randrange(1, 1440 if finest.seconds == 60 else 40) * finest.seconds
        share = randomly.random()
        summed = {
            length_s: {
                at_s for at_s in range(since_s // length_s * length_s, until_s, length_s) if randomly.random() < share
            }
            for length_s in SPANS
        }
        parts = cover(since_s, until_s, finest, summed)
        pieces = sorted((start_s, start_s + part.span_s) for part in parts for start_s in part.starts_s)
        assert pieces[0][0] == since_s
        assert pieces[-1][1] == until_s
        assert all(end_s == next_s for (_, end_s), (next_s, _) in pairwise(pieces))
        for part in parts:
            assert part.span_s >= finest.seconds
            if part.resolution is None:
                assert set(part.starts_s) <= summed[part.span_s]


def test_a_month_takes_few_parts():
    everything = {length_s: range(0, 1 << 40, length_s) for length_s in SPANS}
    for now_s in range(20_000 * 86_400, 20_010 * 86_400, 37 * 60):
        hour_s = now_s - now_s % 3600
        parts = cover(hour_s - 7 * 86_400, hour_s + 3600, RESOLUTIONS[1], everything)
        assert sum(len(part.starts_s) for part in parts) <= 20
