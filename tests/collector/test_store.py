"""The writer with a real database in this process: what is counted once, kept, given up and cleaned."""

import asyncio
import itertools
import random
import sqlite3
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from tests.support.collector import make_identity, make_report, make_site, now_ms
from tests.support.sql import create_database
from tests.support.waiting import wait_until

from aiocop_collector.arrivals import Arrival, Sender
from aiocop_collector.counters import Counters
from aiocop_collector.store import ids, schema
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.fold import SiteIds
from aiocop_collector.store.retention import expired
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta, SlowEvent, SlowSite, TraceDefinition

MONTH = timedelta(days=30)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def engine(request, tmp_path):
    """A migrated database of the test's own."""
    if request.param == "sqlite":
        engine = open_engine(f"sqlite:///{tmp_path}/c.sqlite3")
        await prepare(engine)
        yield engine
        await engine.dispose()
        return
    server = request.getfixturevalue("postgres_url")
    name = f"store_{abs(hash(request.node.nodeid)) % 10**9}"
    admin = open_engine(server)
    async with admin.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
            text(f"CREATE DATABASE {name}")
        )
    await admin.dispose()
    engine = open_engine(server.rpartition("/")[0] + f"/{name}")
    await prepare(engine)
    yield engine
    await engine.dispose()


class Agent:
    """Offers reports to stores and remembers what was acknowledged."""

    def __init__(self, transport="unix", **identity) -> None:
        self.identity = make_identity(**identity)
        self.acknowledged = 0
        self.rejected = ""
        self._transport = transport
        self._sender = Sender(self._committed, self._rejected) if transport == "unix" else None

    def _committed(self, sequence: int) -> None:
        self.acknowledged = sequence

    def _rejected(self, why: str) -> None:
        self.rejected = why

    def offer(self, store, report, *sites, traces=()) -> None:
        store.offer(Arrival(self.identity, self._transport, 100, report, sites, traces, sender=self._sender))


async def commit(engine, *offers) -> Store:
    """A store that was given all offers and stopped."""
    store = Store(engine, Counters(), retention=MONTH)
    for offer in offers:
        offer(store)
    store.start()
    assert await store.stop(60)
    return store


async def rows(engine, statement) -> list:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(statement)]


async def total(engine, table=schema.RESOLUTIONS[0].rollups) -> int:
    ((count,),) = await rows(engine, select(func.sum(table.c.count)))
    return count


async def test_minutes_hours_and_days_agree(engine):
    agent = Agent()
    base_ms = 1_790_000_000_000
    reports = [
        make_report(n, SiteDelta(1, n, 1, 10 * n, 5 * n, (2, n)), started_at_ms=base_ms + n * 1_700_000)
        for n in range(1, 101)
    ]
    await commit(engine, *[lambda store, r=report: agent.offer(store, r, make_site(1)) for report in reports])
    for resolution in schema.RESOLUTIONS:
        table, bins = resolution.rollups.c, resolution.histograms.c
        expected: dict[int, list[int]] = {}
        for report in reports:
            second = report.started_at_ms // 1000
            row = expected.setdefault(second - second % resolution.seconds, [0, 0, 0, 0])
            (delta,) = report.deltas
            row[0] += delta.count
            row[1] += 1
            row[2] += delta.blocked_us
            row[3] = max(row[3], delta.max_us)
        found = await rows(
            engine, select(table.bucket_s, table.count, table.slow_count, table.blocked_us, table.max_us)
        )
        assert {bucket: list(values) for bucket, *values in found} == expected
        counted = await rows(engine, select(bins.bucket_s, bins.b02, bins.b03))
        assert {(bucket, b02, b03) for bucket, b02, b03 in counted} == {
            (bucket, values[0], None) for bucket, values in expected.items()
        }
    assert agent.acknowledged == 100


async def test_two_collectors_that_hold_the_same_reports_count_them_once(engine):
    agent = Agent()
    reports = [make_report(n, SiteDelta(1, 1, 0, 9, 9)) for n in range(1, 61)]
    stores = [Store(engine, Counters(), retention=MONTH) for _ in range(2)]
    for report in reports:
        for store in stores:
            agent.offer(store, report, make_site(1))
    for store in stores:
        store.start()
    assert all(await asyncio.gather(*[store.stop(60) for store in stores]))
    assert await total(engine) == 60
    columns = schema.agents.c
    assert await rows(
        engine, select(columns.committed_sequence, columns.reports_received, columns.reports_duplicated)
    ) == [(60, 60, 60)]


@pytest.mark.postgres
async def test_collectors_that_write_the_same_rows_do_not_deadlock(postgres_url, monkeypatch):
    """Each transaction writes the same services, sites, traces, events and buckets, which come in any order."""
    # Three arrivals of Agent.offer with 30 definitions.
    monkeypatch.setattr("aiocop_collector.store.writer.FLUSH_BYTES", 30_000)
    monkeypatch.setattr("aiocop_collector.store.writer.FLUSH_INTERVAL_S", 0.0)
    engine = open_engine(await create_database(postgres_url))
    await prepare(engine)
    counters = Counters()
    started_at_ms = now_ms()
    stores = [Store(engine, counters, retention=MONTH) for _ in range(4)]
    numbers = list(range(1, 31))
    traces = tuple(TraceDefinition(number, number, make_site(number).frames) for number in numbers)
    for store in stores:
        agents = [Agent(service=name) for name in ("shop", "mail", "cart")]
        for sequence in range(1, 16):
            shuffled = random.sample(numbers, len(numbers))
            deltas = [SiteDelta(number, 1, 1, 9, 9, (number % 80, 1)) for number in shuffled]
            event = SlowEvent(started_at_ms, 50_000, 30_000, "io", 10, (SlowSite(shuffled[0], 1, 9, shuffled[0]),))
            report = make_report(sequence, *deltas, started_at_ms=started_at_ms, slow_events=(event,))
            for agent in random.sample(agents, len(agents)):
                agent.offer(store, report, *[make_site(number) for number in shuffled], traces=traces)
        store.start()
    assert all(await asyncio.gather(*[store.stop(120) for store in stores]))
    assert await total(engine) == len(stores) * 3 * 15 * len(numbers)
    assert counters.totals()["commits"] == len(stores) * 15
    assert counters.totals().get("commits_failed", 0) == 0
    await engine.dispose()


async def test_a_fleet_that_is_new_to_a_store_is_taken_in_in_several_commits(engine):
    """Each definition is a row of its own, however short: all in one commit would keep everybody's reports waiting."""
    counters = Counters()
    store = Store(engine, counters, retention=MONTH)
    agents = [Agent(service=f"service-{number}") for number in range(12)]
    definitions = [make_site(number) for number in range(1, 301)]
    for agent in agents:
        agent.offer(store, make_report(1, SiteDelta(1, 1, 0, 9, 9)), *definitions)
    store.start()
    assert await store.stop(60)
    assert counters.totals()["commits"] > 2
    assert [agent.acknowledged for agent in agents] == [1] * len(agents)
    assert await total(engine) == len(agents)


async def test_first_and_last_are_of_all_time_whatever_the_order(engine):
    old, new = Agent(release="1.4"), Agent(release="1.5")
    early_ms, late_ms = 1_790_000_000_000, 1_790_500_000_000
    delta = SiteDelta(1, 1, 0, 9, 9)
    await commit(engine, lambda store: new.offer(store, make_report(1, delta, started_at_ms=late_ms), make_site(1)))
    await commit(engine, lambda store: old.offer(store, make_report(1, delta, started_at_ms=early_ms), make_site(1)))
    service = ids.service_id("shop", "test")
    releases = (ids.release_id(service, "1.4"), ids.release_id(service, "1.5"))
    for table in (schema.hotspots, schema.sites):
        c = table.c
        seen = select(c.first_seen_ms, c.last_seen_ms, c.first_release_id, c.last_release_id)
        assert await rows(engine, seen) == [(early_ms, late_ms + 1000, *releases)]


def test_the_rows_of_a_service_lie_side_by_side():
    services = [ids.service_id(f"service-{number}", "test") for number in range(20)]
    service_of = {ids.site_id(service, number): service for service in services for number in range(200)}
    assert len(service_of) == 20 * 200
    in_order = [service for service, _ in itertools.groupby(service_of[site] for site in sorted(service_of))]
    assert len(in_order) == 20


async def test_only_the_newest_events_and_traces_are_kept(engine):
    agent = Agent()
    base_ms = now_ms()

    def report(sequence):
        event = SlowEvent(base_ms + sequence, 50_000, 30_000, "io", 10, (SlowSite(1, 1, 9, sequence),))
        return make_report(sequence, SiteDelta(1, 1, 1, 9, 9), started_at_ms=base_ms + sequence, slow_events=(event,))

    def offers(first, last):
        return [
            lambda store, n=n: agent.offer(
                store, report(n), make_site(1), traces=(TraceDefinition(n, 1, make_site(1).frames),)
            )
            for n in range(first, last)
        ]

    await commit(engine, *offers(1, 90))
    await commit(engine, *offers(90, 121))
    kept = await rows(engine, select(schema.slow_events.c.started_at_ms).order_by(schema.slow_events.c.started_at_ms))
    assert kept == [(base_ms + n,) for n in range(71, 121)]
    traces = await rows(engine, select(schema.traces.c.id))
    site = ids.site_id(ids.service_id("shop", "test"), 1)
    assert {row[0] for row in traces} == {ids.trace_id(site, n) for n in range(101, 121)}


async def test_datagram_ranges_stay_bounded_and_the_accounting_exact(engine):
    agent = Agent("udp")
    every_other = [make_report(n, SiteDelta(1, 1, 0, 9, 9)) for n in range(2, 1401, 2)]
    await commit(engine, *[lambda store, r=r: agent.offer(store, r, make_site(1)) for r in every_other])
    columns = schema.agents.c
    ((received, lost, ranges),) = await rows(
        engine, select(columns.reports_received, columns.reports_lost, columns.received_ranges)
    )
    assert (received, lost) == (700, 700)
    assert len(ranges) < 256 * 16
    # A gap that was closed stays lost; an open one heals.
    await commit(
        engine,
        lambda store: agent.offer(store, make_report(3, SiteDelta(1, 1, 0, 9, 9))),
        lambda store: agent.offer(store, make_report(1399, SiteDelta(1, 1, 0, 9, 9))),
    )
    assert await rows(engine, select(columns.reports_received, columns.reports_lost)) == [(701, 699)]
    assert await total(engine) == 701


async def test_hostile_totals_neither_overflow_nor_stop_the_writer(engine):
    hostile, good = Agent(), Agent()
    largest = SiteDelta(1, (1 << 32) - 1, (1 << 32) - 1, (1 << 53) - 1, (1 << 53) - 1, (0, (1 << 32) - 1))
    await commit(
        engine,
        *[lambda store, n=n: hostile.offer(store, make_report(n, *[largest] * 1000), make_site(1)) for n in (1, 2, 3)],
        lambda store: good.offer(store, make_report(1, SiteDelta(2, 5, 0, 9, 9)), make_site(2, "a\x00b")),
    )
    assert (hostile.acknowledged, good.acknowledged) == (3, 1)
    table = schema.RESOLUTIONS[2].rollups.c
    found = await rows(engine, select(table.count, table.blocked_us).order_by(table.count))
    assert found[0] == (5, 9)
    assert all(type(value) is int for value in found[1])


async def test_values_the_database_refuses_are_refused_and_the_rest_goes_on(engine, monkeypatch):
    monkeypatch.setattr("aiocop_collector.store.counts.MAX_TOTAL", 1 << 70)  # as if the bound were missing
    hostile, good = Agent(), Agent()
    largest = SiteDelta(1, 1, 1, (1 << 53) - 1, 1)
    store = await commit(
        engine,
        lambda store: good.offer(store, make_report(1, SiteDelta(2, 5, 0, 9, 9)), make_site(2)),
        lambda store: hostile.offer(store, make_report(1, *[largest] * 2000), make_site(1)),
        lambda store: good.offer(store, make_report(2, SiteDelta(2, 5, 0, 9, 9))),
    )
    assert (good.acknowledged, hostile.acknowledged) == (2, 0)
    assert "cannot hold" in hostile.rejected
    assert await total(engine) == 10
    assert store.status().pending_reports == 0
    assert store.status().pending_bytes == 0


async def test_what_is_too_old_goes_and_what_must_stay_stays(engine):
    day_ms = 86_400_000
    now = now_ms()
    agent = Agent()
    ages_days = (0, 2, 5, 20, 40)
    await commit(
        engine,
        *[
            lambda store, n=n, age=age: agent.offer(
                store, make_report(n, SiteDelta(1, 1, 0, 9, 9, (0, 1)), started_at_ms=now - age * day_ms), make_site(1)
            )
            for n, age in enumerate(ages_days, start=1)
        ],
    )
    # A store prunes when it starts; nothing is pending.
    store = Store(engine, Counters(), retention=MONTH)
    store.start()
    while not await rows_are(engine, {"minute": 2, "hour": 3, "day": 4}):
        await asyncio.sleep(0.01)
    while len(await rows(engine, select(schema.presence.c.day_s))) != 4:  # the last to go
        await asyncio.sleep(0.01)
    assert await store.stop(60)
    assert await rows(engine, select(schema.agents.c.committed_sequence)) == [(5,)]
    assert len(await rows(engine, select(schema.sites.c.id))) == 1


async def test_who_reads_waits_for_datagrams_and_not_for_what_a_stream_is_yet_to_be_told_of(engine):
    store = Store(engine, Counters(), retention=MONTH)
    store.start()
    report = make_report(1, SiteDelta(1, 1, 0, 9, 9))
    store.offer(Arrival(make_identity(), "unix", 100, report, (make_site(1),)))
    await store.settle()
    assert store.status().pending_reports == 1
    store.offer(Arrival(make_identity(), "udp", 100, report, (make_site(1),)))
    await store.settle()
    assert store.status().pending_reports == 0
    assert await store.stop(60)


async def rows_are(engine, expected: dict[str, int]) -> bool:
    for resolution in schema.RESOLUTIONS:
        for table in (resolution.rollups, resolution.histograms):
            if len(await rows(engine, select(table.c.bucket_s))) != expected[resolution.name]:
                return False
    return True


def test_agents_outlive_a_short_retention():
    now = now_ms()
    (agents,) = [old for old in expired(timedelta(hours=1), now) if old.table is schema.agents]
    assert now - agents.before == 7 * 86_400_000


async def test_a_store_that_cannot_commit_says_so_when_it_stops(tmp_path, monkeypatch):
    monkeypatch.setattr("aiocop_collector.store.database._BUSY_TIMEOUT_S", 0.05)
    engine = open_engine(f"sqlite:///{tmp_path}/c.sqlite3")
    await prepare(engine)
    blocker = sqlite3.connect(tmp_path / "c.sqlite3", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    agent = Agent()
    store = Store(engine, Counters(), retention=MONTH)
    agent.offer(store, make_report(1, SiteDelta(1, 1, 0, 9, 9)), make_site(1))
    store.start()
    await asyncio.to_thread(wait_until, lambda: store.status().error, "a failed commit")
    assert store.status().writer == "waiting"
    assert not await store.stop(0.2)
    assert agent.acknowledged == 0
    assert store.status().pending_reports == 1
    blocker.execute("ROLLBACK")
    blocker.close()
    await engine.dispose()


async def test_a_defect_that_one_agent_brings_out_stops_only_its_own_reports(engine, monkeypatch):
    monkeypatch.setattr("aiocop_collector.store.writer._FIRST_RETRY_S", 0.001)
    victim, good = Agent(service="victim"), Agent()

    class Defective(SiteIds):
        def __init__(self) -> None:
            super().__init__()
            of = self.of
            broken = ids.service_id("victim", "test")
            self.of = lambda service, site: {}[site] if service == broken else of(service, site)

    monkeypatch.setattr("aiocop_collector.store.transaction.SiteIds", Defective)
    await commit(
        engine,
        lambda store: victim.offer(store, make_report(1, SiteDelta(1, 1, 0, 9, 9)), make_site(1)),
        lambda store: good.offer(store, make_report(1, SiteDelta(1, 5, 0, 9, 9)), make_site(1)),
    )
    assert (victim.acknowledged, good.acknowledged) == (0, 1)
    assert victim.rejected
    assert await total(engine) == 5
