"""Spans only ever shorten the way to an answer: with, without and with half of them it is the same."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import cycle, groupby, pairwise

import httpx
import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site
from tests.support.expected_hotspots import GROUP_KEYS
from tests.support.fill_store import insert_activity
from tests.support.known_activity import NOW_S
from tests.support.sql import copy_database, create_database

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.queries.columns import Columns
from aiocop_collector.queries.seen import _SEEN_SITES
from aiocop_collector.store import schema
from aiocop_collector.store.checks import check_store
from aiocop_collector.store.condense import MINUTE_GRACE_S, claim_spans, finish, missing_spans, sum_span
from aiocop_collector.store.database import open_engine, prepare, writing
from aiocop_collector.store.driver import fetch
from aiocop_collector.store.pruning import Limits, Pruner
from aiocop_collector.store.retention import kept_span
from aiocop_collector.store.schema import RESOLUTIONS
from aiocop_collector.store.snapshot import snapshot
from aiocop_collector.store.spans import DAY_S, SPANS, Span, cover
from aiocop_collector.store.totals import AgentBits, Presence, Totals, counters_of, pack_bins, split_packed, unpack_bins
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

MONTH = timedelta(days=30)
SORTS = ("p99", "last_seen", "blocked_time", "max", "slow_count")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def originals(request, tmp_path_factory, fleet) -> dict[str, str]:
    """URLs of two migrated databases with the fleet's activity: nothing is summed in the first, all in the second."""
    folder = tmp_path_factory.mktemp("spans")

    async def make() -> dict[str, str]:
        urls = {"unsummed": f"sqlite:///{folder}/unsummed.sqlite3"}
        if request.param == "postgres":
            urls["unsummed"] = await create_database(request.getfixturevalue("postgres_url"))
        async with opened(urls["unsummed"]) as engine:
            await prepare(engine)
            await insert_activity(engine, fleet)
        (folder / "summed").mkdir()
        urls["summed"] = await copy_database(urls["unsummed"], folder / "summed")
        async with opened(urls["summed"]) as engine:
            await sum_all(engine)
        return urls

    return asyncio.run(make())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(url)
    yield engine
    await engine.dispose()


@pytest.fixture
async def engine(originals, tmp_path):
    """A database of the test's own with the fleet's activity; nothing is summed yet."""
    async with opened(await copy_database(originals["unsummed"], tmp_path)) as engine:
        yield engine


@pytest.fixture
async def summed(originals, tmp_path):
    """The same, and all that can be is summed."""
    async with opened(await copy_database(originals["summed"], tmp_path)) as engine:
        yield engine


async def sum_all(engine, now_s: int = int(NOW_S)) -> int:
    """As the writer does, but many in a transaction; how many spans there were to sum."""
    async with engine.connect() as connection:
        wanted = await missing_spans(connection, MONTH, now_s)
    async with writing(engine) as connection:
        claims = await claim_spans(connection, wanted)
    for _, same_length in groupby(claims, lambda claim: claim.span.span_s):
        async with snapshot(engine) as connection:
            done = [await sum_span(connection, claim, now_s) for claim in same_length]
        async with writing(engine) as connection:
            for one in done:
                assert await finish(connection, one)
    return len(claims)


async def write_late(engine, late_s: int) -> None:
    """Commit a report about the past, as the writer does."""
    store = Store(engine, Counters(), retention=MONTH, clock_s=lambda: NOW_S)
    report = make_report(1, SiteDelta(1, 1, 0, 9, 9, (0, 1)), started_at_ms=late_s * 1000)
    store.offer(Arrival(make_identity("shop", environment="prod"), "unix", 100, report, (make_site(1),), ()))
    await store._write(store._take())


async def listed(engine) -> set[tuple[int, int]]:
    async with engine.connect() as connection:
        found = await connection.execute(
            select(schema.summed.c.span_s, schema.summed.c.bucket_s).where(schema.summed.c.ready == 1)
        )
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
                    "service=shop&release=1.4.0",
                    "group_by=operation&release=1.4.0&status=ignored&status=resolved",
                    *(f"group_by={grouping}&sort={sort}" for grouping, sort in zip(GROUP_KEYS, cycle(SORTS))),
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
        await connection.execute(delete(schema.summed).where(schema.summed.c.bucket_s % 7 == 0))
    assert await answers(engine) == without
    assert await sum_all(engine) > 0, "what was struck off is summed again"
    assert await sum_all(engine) == 0
    assert await answers(engine) == without


async def test_answers_are_the_same_however_many_sites_there_are(engine, monkeypatch):
    """Where sites are many they are passed by, summarised, or added up in the database, not looked up one by one."""
    await sum_all(engine, int(NOW_S) - 7200)  # the last two hours are read row by row
    as_few = await answers(engine)
    monkeypatch.setattr("aiocop_collector.queries.fact_memory._FEW_IN_A_GROUP", 0)
    monkeypatch.setattr("aiocop_collector.queries.fact_memory._FEW_TO_SUM", 0)
    assert await answers(engine) == as_few
    for name in ("scope.FEW_SITES", "processes.FEW_SITES", "processes._FEW_SITES", "fact_memory._FEW_SITES"):
        monkeypatch.setattr(f"aiocop_collector.queries.{name}", 0)
    monkeypatch.setattr("aiocop_collector.queries.columns._LOOK_UP_COSTS", 1_000_000)
    for few in (-1, 1_000_000):
        monkeypatch.setattr("aiocop_collector.queries.seen._FEW_OTHERS", few)
        assert await answers(engine) == as_few


@pytest.mark.parametrize("group_by", ["entry_point", "line", "fingerprint"])
async def test_the_last_seen_are_found_among_those_of_the_last_minutes(engine, monkeypatch, group_by):
    await sum_all(engine, int(NOW_S) - 7200)  # the last two hours are read row by row
    asked: list[str] = []

    async def listening(connection, statement, *parameters):
        asked.append(statement)
        return await fetch(connection, statement, *parameters)

    monkeypatch.setattr("aiocop_collector.queries.seen.fetch", listening)
    question = {"since": "30d", "group_by": group_by, "sort": "last_seen"}
    transport = httpx.ASGITransport(make_app(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        first = (await client.get("/hotspots", params={**question, "limit": 2})).raise_for_status().json()
        passed_by = [one for one in asked if one.startswith(_SEEN_SITES)]
        everything = (await client.get("/hotspots", params={**question, "limit": 1000})).raise_for_status().json()
    assert first["hotspots"] == everything["hotspots"][:2]
    assert first["total"] == everything["total"] > 2
    assert [one.startswith(f"{_SEEN_SITES} WHERE") for one in passed_by] == [True]
    assert _SEEN_SITES in asked, "of all others too, where they are asked for"


async def test_spans_are_read_at_all(engine, summed):
    before = await answers(engine)
    async with summed.begin() as connection:
        await connection.execute(schema.summed_totals.update().values(totals=Totals().to_bytes()))
    changed = await answers(summed)
    assert all(before[path] != changed[path] for path in before if path.startswith("/operations"))


async def test_what_comes_while_a_span_is_summed_strikes_it_off(engine):
    late_s = int(NOW_S) - 30 * 3600
    span = Span(3600, late_s - late_s % 3600)
    async with writing(engine) as connection:
        claims = await claim_spans(connection, [span])
    async with snapshot(engine) as connection:
        done = await sum_span(connection, claims[0], int(NOW_S))
    assert await listed(engine) == set(), "what is claimed is not read"
    await write_late(engine, late_s)
    async with writing(engine) as connection:
        assert not await finish(connection, done)
    assert await listed(engine) == set()


async def test_of_two_that_sum_the_same_the_one_that_claimed_last_finishes(engine):
    span = Span(3600, int(NOW_S) // 3600 * 3600 - 7200)
    done = []
    for _ in range(2):
        async with writing(engine) as connection:
            claims = await claim_spans(connection, [span])
        async with snapshot(engine) as connection:
            done.append(await sum_span(connection, claims[0], int(NOW_S)))
    for one, expected in zip(done, (False, True), strict=True):
        async with writing(engine) as connection:
            assert await finish(connection, one) == expected
    assert await listed(engine) == {(span.span_s, span.start_s)}


async def test_what_is_remembered_goes_by_the_version_of_a_span(summed):
    """One API keeps its memory between questions; the answers of another, that has none, are the same."""
    transport = httpx.ASGITransport(make_app(summed))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        path = "/hotspots?since=30d&group_by=operation&sort=p99&limit=1000"
        first = (await client.get(path)).json()
        await write_late(summed, int(NOW_S) - 30 * 3600)
        struck = (await client.get(path)).json()
        assert struck["hotspots"] != first["hotspots"]
        assert await sum_all(summed) > 0
        assert (await client.get(path)).json() == struck


async def test_a_late_report_is_in_every_answer(summed):
    listed_before = await listed(summed)
    store = Store(summed, Counters(), retention=MONTH, clock_s=lambda: NOW_S)
    late_s = int(NOW_S) - 30 * 3600
    report = make_report(1, SiteDelta(1, 1000, 0, 9, 9, (0, 1000)), started_at_ms=late_s * 1000)
    store.offer(Arrival(make_identity("shop", environment="prod"), "udp", 100, report, (make_site(1),), ()))
    store.start()
    await store.settle()
    assert await store.stop(60)
    with_spans = await answers(summed)
    by_function = with_spans["/operations?since=2d&until=1h"]["operations"]
    assert sum(row["count"] for row in by_function) >= 1000
    async with summed.begin() as connection:
        await connection.execute(delete(schema.summed))
    assert await answers(summed) == with_spans
    assert {(length_s, late_s - late_s % length_s) for length_s in (600, 10_800, 43_200)} <= listed_before


@pytest.mark.parametrize("ahead_s", [90, 1200, 5 * 3600])
async def test_what_comes_too_early_counts_too(summed, ahead_s):
    async def count() -> int:
        transport = httpx.ASGITransport(make_app(summed))
        async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
            answer = (await client.get("/hotspots?since=30d&limit=1000")).raise_for_status().json()
        return sum(row["count"] for row in answer["hotspots"])

    before = await count()
    await write_late(summed, int(NOW_S) + ahead_s)
    assert await count() == before + 1


async def test_a_commit_strikes_off_what_it_makes_untrue(summed):
    listed_before = await listed(summed)
    late_s = int(NOW_S) - 30 * 3600
    await write_late(summed, late_s)
    untrue = {(length_s, late_s - late_s % length_s) for length_s in SPANS}
    assert await listed(summed) == listed_before - untrue
    assert listed_before & untrue


async def test_what_goes_with_its_buckets(summed):
    later_ms = int(NOW_S + 20 * 86_400) * 1000
    async for _ in Pruner(summed, Limits(MONTH), clock_s=lambda: later_ms / 1000).by_age():
        pass
    days = {DAY_S, 2 * DAY_S, 8 * DAY_S}
    assert 2 * DAY_S in {length_s for length_s, _ in await listed(summed)} <= days
    async with summed.connect() as connection:
        kept = schema.summed_totals.c
        assert 2 * DAY_S in set((await connection.execute(select(kept.span_s).distinct())).scalars()) <= days
        oldest_s = (await connection.execute(select(func.min(kept.bucket_s)))).scalar_one()
        assert oldest_s >= later_ms // 1000 - 31 * DAY_S


async def test_only_what_is_over_and_whole_is_summed(summed):
    for length_s, start_s in await listed(summed):
        assert start_s + length_s <= NOW_S - MINUTE_GRACE_S
        assert start_s >= NOW_S - kept_span(MONTH, length_s).total_seconds()


def test_a_cover_is_the_window_no_more_no_less():
    randomly = random.Random(5)
    for _ in range(300):
        finest = randomly.choice(RESOLUTIONS)
        since_s = randomly.randrange(20_000 * 86_400, 20_040 * 86_400) // finest.seconds * finest.seconds
        until_s = since_s + randomly.randrange(1, 1440 if finest.seconds == 60 else 40) * finest.seconds
        share = randomly.random()
        listed = {
            Span(length_s, at_s): 1
            for length_s in SPANS
            for at_s in range(since_s // length_s * length_s, until_s, length_s)
            if randomly.random() < share
        }
        now_s = randomly.randrange(since_s, until_s + 2 * DAY_S)
        # Finer buckets are deleted first, and a window begins where its own are there.
        hours_s, minutes_s = sorted(randomly.randrange(since_s - DAY_S, until_s) for _ in range(2))
        horizons = {60: minutes_s, 3600: hours_s} if finest.seconds == DAY_S else {60: minutes_s}
        horizons = horizons if finest.seconds > 60 else {}
        parts = cover(since_s, until_s, finest, listed, now_s, horizons)
        pieces = sorted(
            [(span.start_s, span.end_s) for span in parts.spans]
            + [(start_s, start_s + some.resolution.seconds) for some in parts.buckets for start_s in some.starts_s]
        )
        assert pieces[0][0] == since_s
        assert pieces[-1][1] == until_s
        assert all(end_s == next_s for (_, end_s), (next_s, _) in pairwise(pieces))
        assert set(parts.spans) <= listed.keys()
        for start_s, end_s in pieces:
            if end_s - start_s < finest.seconds:
                base = SPANS[end_s - start_s].seconds
                assert start_s >= horizons.get(base, 0), "what is deleted is not read"
                assert start_s >= now_s // DAY_S * DAY_S - DAY_S


def test_a_month_takes_few_parts():
    for now_s in range(20_000 * DAY_S, 20_010 * DAY_S, 197 * 60):
        listed = {
            Span(length_s, at_s): 1
            for length_s in SPANS
            for at_s in range(
                (now_s - min(31 * DAY_S, 300 * length_s)) // length_s * length_s, now_s - 90 - length_s, length_s
            )
        }
        tomorrow_s = now_s // DAY_S * DAY_S + DAY_S
        parts = cover(tomorrow_s - 31 * DAY_S, tomorrow_s, RESOLUTIONS[2], listed, now_s, {})
        assert len(parts.spans) <= 40
        lately_s = min(some.start_s for some in parts.buckets)
        assert lately_s >= now_s - 180, "only what has come lately is read row by row"


def bins_of(packed: int) -> list[int]:
    return list(unpack_bins(split_packed(packed)[1]) or [0] * 86)


def test_packed_totals_are_what_they_were():
    randomly = random.Random(3)
    totals = Totals()
    for _ in range(100):
        key = (randomly.getrandbits(63) - (1 << 62), randomly.getrandbits(63) - (1 << 62))
        bins = [randomly.choice((None, 0, 1, 1 << 40)) for _ in range(86)]
        counters = [randomly.getrandbits(42) for _ in range(4)]
        totals.add_counters([(*key, *counters)])
        totals.add_bins({key: pack_bins(bins)})
        packed = totals.sums[key]
        assert [*counters_of(packed), totals.max_us[key]] == counters
        assert bins_of(packed) == [count or 0 for count in bins]
    unpacked = Totals.from_bytes(totals.to_bytes())
    assert unpacked == totals
    unpacked.add_bytes(totals.to_bytes())
    assert all(bins_of(both) == [2 * n for n in bins_of(totals.sums[key])] for key, both in unpacked.sums.items())
    assert unpacked.max_us == totals.max_us


@pytest.mark.parametrize("by_release", [True, False])
def test_columns_hold_what_totals_held(by_release):
    randomly = random.Random(5)
    totals = Totals()
    for site_id in range(-50, 50):
        for release_id in randomly.sample(range(-9, 9), 3):
            key = (site_id, release_id)
            totals.add_counters([(*key, *[randomly.getrandbits(42) for _ in range(4)])])
            if site_id % 5:
                empty = [None] * (site_id % 40)
                totals.add_bins(
                    {key: pack_bins([*empty, *randomly.choices((None, 1, 1 << 40), k=20), *[None] * 60][:86])}
                )
    totals = totals if by_release else totals.of_any_release()
    columns = Columns.of(totals, by_release=by_release)
    again = Totals()
    columns.add_to(again)
    assert again == totals
    every = sorted(columns.entries())
    assert {(site_id, release_id): max_us for site_id, release_id, _, max_us in every} == totals.max_us
    for sites in (range(-60, 60, 2), {7, 8, 9}, {1000}):
        assert sorted(columns.entries_of(sites)) == [entry for entry in every if entry[0] in sites]
    for position, (*_, bins, first) in enumerate(columns.histograms()):
        assert columns.bins_at(position) == bins << 64 * first


def test_packed_presence_is_what_it_was_whatever_the_bits():
    rows = [(site, site % 3, f"{randomly.getrandbits(20)}") for randomly in [random.Random(4)] for site in range(300)]
    rows = rows * 2 + [(site, service, f"{number}") for site, service, _ in rows for number in range(site % 20)]
    packed = Presence(AgentBits())
    packed.add(rows)
    unpacked = Presence(AgentBits())
    unpacked.add(reversed(rows[::7]))
    unpacked.add_bytes(packed.to_bytes())
    for presence in (packed, unpacked):
        names = {service: list(presence.bits.of(service)) for service in range(3)}
        seen = {
            (site, names[presence.service_of[site]][bit])
            for site, bits in presence.seen_by.items()
            for bit in range(bits.bit_length())
            if bits >> bit & 1
        }
        assert seen == {(site, agent) for site, _, agent in rows}


async def test_a_check_finds_spans_that_are_not_the_sums_of_their_buckets(summed):
    async with snapshot(summed) as connection:
        assert [check async for check in check_store(connection, int(NOW_S)) if check.problems] == []
    longest_s = max(SPANS)
    table = schema.summed_totals
    async with writing(summed) as connection:
        (start_s,) = (
            await connection.execute(select(func.max(table.c.bucket_s)).where(table.c.span_s == longest_s))
        ).one()
        this = (table.c.span_s == longest_s, table.c.bucket_s == start_s)
        await connection.execute(table.update().where(*this).values(totals=Totals().to_bytes()))
    async with snapshot(summed) as connection:
        (wrong,) = [check async for check in check_store(connection, int(NOW_S)) if check.problems]
    assert wrong.name == f"spans of {longest_s} s are sums of their days"
    assert len(wrong.problems) == 1
