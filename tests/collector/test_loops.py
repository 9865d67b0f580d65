"""How loops fare, in the store and in answers: sums over agents and buckets, what an agent's loops did lately."""

from datetime import timedelta

import pytest
from tests.support.api_client import serving
from tests.support.collector import make_identity, make_report
from tests.support.known_activity import NOW_S
from tests.support.sql import create_database

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.loops import add_recent, read_recent, recent_text
from aiocop_collector.store.writer import Store
from aiocop_wire import LoopDelta, percentile_ms, to_sparse
from aiocop_wire.histogram import BIN_COUNT

MINUTE_MS = 60_000
NOW_MS = NOW_S * 1000


def loop(number: int = 1, *, lag_bins: tuple[int, ...] = (0, 3, 20, 1), **fields) -> LoopDelta:
    known = {
        "observed_us": 1_000_000,
        "blocked_us": 50_000,
        "starved_us": 1_000,
        "slow_slices": 1,
        "waiting": 7,
        "waiting_max": 7,
        "lag_us": 21_000,
        "lag_max_us": 20_500,
    }
    return LoopDelta(number, f"thread-{number}", "asyncio", **known | fields, lag_bins=lag_bins)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/c.sqlite3"
    return await create_database(request.getfixturevalue("postgres_url"))


async def keep(url: str, *arrivals: Arrival) -> None:
    engine = open_engine(url)
    await prepare(engine)
    store = Store(engine, Counters(), retention=timedelta(days=365), clock_s=lambda: NOW_S)
    for arrival in arrivals:
        store.offer(arrival)
    store.start()
    assert await store.stop(60)
    await engine.dispose()


async def test_a_service_is_the_sum_of_its_loops_in_every_window(url):
    shop, shop_too, mail = make_identity(), make_identity(), make_identity("mail")
    aged = [(shop, 1, 5), (shop, 2, 65), (shop_too, 1, 5), (mail, 1, 5), (shop, 3, 3 * 1440)]
    arrivals = [
        Arrival(
            identity,
            "unix",
            100,
            make_report(
                sequence,
                started_at_ms=NOW_MS - minutes * MINUTE_MS,
                loops=(loop(1), loop(2, lag_max_us=900_000, lag_bins=(40, 1), waiting=9, waiting_max=9)),
            ),
        )
        for identity, sequence, minutes in sorted(aged, key=lambda one: one[1])
    ]
    await keep(url, *arrivals)
    await keep(url, arrivals[0])  # comes again: counts once
    async with serving(url) as client:
        for since, reports in (("30m", 2), ("2h", 3), ("24h", 3), ("7d", 4), ("30d", 4)):
            rows = (await client.get("/services", params={"since": since})).json()["services"]
            told = {row["name"]: row for row in rows}
            row = told["shop"]
            assert row["loop_ms"] == reports * 2000, since
            assert row["loop_blocked_ms"] == reports * 100
            assert row["blocked_share"] == 0.05
            assert (row["starved_ms"], row["slow_slices"]) == (reports * 2, reports * 2)
            assert (row["waiting"], row["waiting_max"]) == (reports * 16, 9)
            assert row["timers"] == reports * 5
            bins = [0] * BIN_COUNT
            bins[0], bins[20], bins[40] = 3 * reports, reports, reports
            assert row["lag_p50_ms"] == pytest.approx(percentile_ms(bins, 0.5), abs=0.001)
            assert row["lag_p95_ms"] == pytest.approx(percentile_ms(bins, 0.95), abs=0.001)
            assert row["lag_max_ms"] == 900
            assert row["lag_mean_ms"] == pytest.approx(42 / 5)
            assert told["mail"]["loop_ms"] == 2000
        (row,) = (await client.get("/services", params={"since": "4m", "service": "mail"})).json()["services"]
        assert (row["loop_ms"], row["blocked_share"], row["timers"], row["lag_p50_ms"]) == (0, None, 0, None)


async def test_an_agent_shows_its_loops_of_late_and_an_older_one_none(url):
    tells, older = make_identity(), make_identity()
    reports = [
        make_report(number + 1, started_at_ms=NOW_MS + number * 1000, loops=(loop(1), loop(2))) for number in range(3)
    ]
    await keep(
        url,
        *[Arrival(tells, "unix", 100, report) for report in reports],
        Arrival(older, "unix", 100, make_report(1, started_at_ms=NOW_MS)),
    )
    async with serving(url) as client:
        agents = {agent["id"]: agent["loops"] for agent in (await client.get("/agents")).json()["agents"]}
    assert agents[older.instance.hex()] == []
    first, second = agents[tells.instance.hex()]
    assert (first["thread_name"], second["thread_name"], first["loop"]) == ("thread-1", "thread-2", "asyncio")
    assert (first["loop_ms"], first["loop_blocked_ms"], first["blocked_share"]) == (3000, 150, 0.05)
    assert (first["timers"], first["lag_max_ms"], first["waiting_max"]) == (12, 20.5, 7)


def recent_with(text: str | None, loops: list[LoopDelta], started_at_ms: int, ended_at_ms: int) -> str:
    """`agents.loops` after one more report."""
    recent = read_recent(text)
    add_recent(recent, loops, started_at_ms, ended_at_ms)
    return recent_text(recent)


def test_what_is_lately_is_the_minute_before_and_this_one():
    text = None
    for second in range(200):
        text = recent_with(text, [loop()], second * 1000, second * 1000 + 1000)
        (recent,) = read_recent(text)
        assert recent.totals().named()["observed_us"] == 1_000_000 * (second + 1 - recent.parts[0][0] // 1000)
        assert second * 1000 - recent.parts[0][0] < 2 * MINUTE_MS
    assert recent.parts[0][0] == 120_000
    text = recent_with(text, [loop(2)], 250_000, 251_000)
    assert [one.number for one in read_recent(text)] == [1, 2]
    text = recent_with(text, [loop(2)], 321_000, 322_000)
    assert [one.number for one in read_recent(text)] == [2]


def test_an_agent_with_loops_without_end_keeps_a_bounded_row():
    text = None
    for start in range(0, 1000, 50):
        loops = [LoopDelta(start + number, "x" * 200, "asyncio", 2**50, 2**50) for number in range(1, 51)]
        text = recent_with(text, loops, 1_000, 2_000)
    assert len(read_recent(text)) == 64
    assert len(text) < 40_000


def test_sparse_bins_come_back():
    text = recent_with(None, [loop(lag_bins=(0, 3, 20, 1))], 0, 1000)
    bins = read_recent(text)[0].totals().bins
    assert to_sparse([bins.get(index, 0) for index in range(BIN_COUNT)]) == [0, 3, 20, 1]
