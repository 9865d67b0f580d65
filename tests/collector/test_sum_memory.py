"""What questions leave behind for the next ones: an API that was asked before says what one says that never was."""

import itertools
import random
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import cycle

import httpx
import pytest
from sqlalchemy import delete, update
from tests.support.api_client import make_app
from tests.support.collector import make_identity, make_report, make_site
from tests.support.expected_hotspots import GROUP_KEYS
from tests.support.fill_store import insert_activity
from tests.support.known_activity import NOW_S
from tests.support.sql import create_database

from aiocop_collector.arrivals import Arrival
from aiocop_collector.counters import Counters
from aiocop_collector.queries.cells import Cells, Sums
from aiocop_collector.queries.columns import Columns
from aiocop_collector.queries.cursors import Cursor
from aiocop_collector.queries.fact_memory import SiteFacts
from aiocop_collector.queries.ranking import _first
from aiocop_collector.queries.shared_facts import Shared
from aiocop_collector.queries.sum_memory import SumMemory, merge_shared, shared_of
from aiocop_collector.queries.windows import Window
from aiocop_collector.store import schema
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.pruning import Limits, Pruner
from aiocop_collector.store.schema import RESOLUTIONS
from aiocop_collector.store.totals import Totals, pack_counters
from aiocop_collector.store.writer import Store
from aiocop_wire import SiteDelta

MONTH = timedelta(days=30)
WINDOWS = ("since=1h", "since=20h", "since=30d")
FILTERS = cycle(("", "service=shop", "", "release=1.4.0", "q=orders&status=open&status=ignored"))
SORTS = cycle(("p99", "last_seen", "blocked_time", "count"))
PATHS = [
    f"/hotspots?{window}&limit=3&group_by={grouping}&sort={sort}&{filters}"
    for (window, grouping), sort, filters in zip(itertools.product(WINDOWS, GROUP_KEYS), SORTS, FILTERS, strict=False)
]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def url(request, tmp_path, fleet):
    """Of a store with the fleet's activity."""
    url = f"sqlite:///{tmp_path}/c.sqlite3"
    if request.param == "postgres":
        url = await create_database(request.getfixturevalue("postgres_url"))
    async with opened(url) as engine:
        await prepare(engine)
        await insert_activity(engine, fleet)
    return url


@asynccontextmanager
async def opened(url):
    engine = open_engine(url)
    yield engine
    await engine.dispose()


@asynccontextmanager
async def client_of(engine, clock):
    transport = httpx.ASGITransport(make_app(engine, clock_s=lambda: clock.now_s))
    async with httpx.AsyncClient(transport=transport, base_url="http://collector") as client:
        yield client


class Clock:
    now_s = NOW_S


class Writer:
    """Another collector of the store."""

    def __init__(self, engine, clock) -> None:
        self._engine, self._clock = engine, clock
        self._store = Store(engine, Counters(), retention=MONTH, clock_s=lambda: clock.now_s)
        self._sequences = itertools.count(1)

    async def report(self, *sites, at_s: float | None = None, operation: str = "open") -> None:
        """Commit calls at some sites of a service, and of one that is new to the store."""
        made = [make_site(site, f"function_{site}", operation=operation) for site in sites]
        deltas = [SiteDelta(site, 30, 2, 700_000 * site, 300_000 + site, (20, 28, 40, 2)) for site in sites]
        report = make_report(next(self._sequences), *deltas, started_at_ms=int((at_s or self._clock.now_s) * 1000))
        self._store.offer(Arrival(make_identity("shop", environment="prod"), "unix", 100, report, tuple(made), ()))
        await self._store._write(self._store._take())

    async def sum_spans(self) -> None:
        await self._store._condense()
        while self._store._spans_are_behind:
            await self._store._condense()


@pytest.mark.parametrize("summarised", [False, True])
async def test_one_that_was_asked_before_says_what_a_new_one_says(url, monkeypatch, summarised):
    if summarised:
        monkeypatch.setattr("aiocop_collector.queries.fact_memory._FEW_IN_A_GROUP", 0)
        monkeypatch.setattr("aiocop_collector.queries.fact_memory._FEW_TO_SUM", 0)
    clock = Clock()
    async with opened(url) as engine, opened(url) as writers, client_of(engine, clock) as remembering:
        writer = Writer(writers, clock)

        async def same() -> None:
            async with client_of(engine, clock) as new:
                changed = 0
                for path in PATHS:
                    said = (await remembering.get(path)).raise_for_status().json()
                    assert said == (await new.get(path)).raise_for_status().json(), path
                    changed += before.get(path) != said
                    before[path] = said
            assert changed, "what happened is in the answers"

        before: dict[str, dict] = {}
        await writer.sum_spans()
        await same()
        await writer.report(1, 2, 3)
        await same()
        await writer.report(2, 3, 4, operation="time.sleep")
        await same()
        for later_s in (60, 75, 3600):
            clock.now_s += later_s
            await writer.report(1, 5)
            await same()
            await writer.sum_spans()
            await writer.report(5)
            await same()
        await writer.report(6, at_s=clock.now_s - 30 * 3600)
        await same()
        await writer.sum_spans()
        async with writers.begin() as connection:
            await connection.execute(delete(schema.summed).where(schema.summed.c.bucket_s % 7 == 0))
            await connection.execute(update(schema.sites).values(weight=77, advice="Don't."))
        await same()
        (hotspot,) = (await remembering.get("/hotspots?since=1h&limit=1")).json()["hotspots"]
        (await remembering.patch(f"/hotspots/{hotspot['id']}", json={"status": "ignored"})).raise_for_status()
        await same()
        clock.now_s += 3 * 86_400
        async for _ in Pruner(writers, Limits(MONTH), clock_s=lambda: clock.now_s).by_age():
            pass
        await same()


def columns_of(entries) -> Columns:
    """Of (site_id, release_id, count, slow_count, blocked_us, max_us), with a histogram of one bin."""
    totals = Totals()
    totals.add_counters(entries)
    totals.add_bins({entry[:2]: entry[2] << 64 * (entry[0] % 5) for entry in entries})
    return Columns.of(totals, by_release=True)


def entries_of(randomly, sites) -> list[tuple[int, ...]]:
    return [(site, randomly.choice((7, 8)), 1, 0, randomly.randrange(1000), randomly.randrange(9)) for site in sites]


def by_hand(cells, entries) -> tuple[list[int], list[int]]:
    packed, max_us = [0] * len(cells), [-1] * len(cells)
    for site, release, count, slow_count, blocked_us, longest_us in entries:
        first = 0 if cells.first_of is None else cells.first_of.get(release)
        if site in cells.cell_of and first is not None:
            cell = cells.cell_of[site] + first
            packed[cell] += pack_counters(count, slow_count, blocked_us)
            max_us[cell] = max(max_us[cell], longest_us)
    return packed, max_us


def bins_by_hand(cells, entries) -> list[int]:
    bins = [0] * len(cells)
    for site, release, count, *_ in entries:
        first = 0 if cells.first_of is None else cells.first_of.get(release)
        if site in cells.cell_of and first is not None:
            bins[cells.cell_of[site] + first] += count << 64 * (site % 5)
    return bins


@pytest.mark.parametrize(
    "first_of", [None, {8: 0}, {7: 0, 8: 4}], ids=["any release", "one release", "grouped by release"]
)
def test_sums_are_those_of_all_parts_whatever_is_remembered(first_of):
    randomly = random.Random(11)
    numbers = 4 * (2 if first_of and len(first_of) == 2 else 1)
    cells = Cells([(number,) for number in range(numbers)], {site: site % 4 for site in range(60)}, first_of=first_of)
    parts = [entries_of(randomly, randomly.sample(range(100), 50)) for _ in range(6)]
    made = [columns_of(part) for part in parts]
    for most_numbers in (0, 40, 100_000):
        memory = SumMemory(most_numbers=most_numbers)
        for _ in range(20):
            chosen = randomly.sample(range(6), randomly.randrange(4))
            sums = memory.sums(cells, [made[one] for one in chosen])
            entries = [entry for one in chosen for entry in parts[one]]
            assert (sums.packed, sums.max_us) == by_hand(cells, entries)
            active = {entry[0] for entry in entries if entry[0] < 60 and (first_of is None or entry[1] in first_of)}
            assert memory.idle(cells, [made[one] for one in chosen]) == set(range(60)) - active
            bins = memory.bins(cells, [made[one] for one in chosen])
            assert list(bins) == bins_by_hand(cells, entries)
            live = Sums.nothing(len(cells))
            for one in chosen:
                live.add(Columns.of_rows(sorted(parts[one]), by_release=True), cells)
            assert live == sums


def facts_of(randomly, site: int) -> SiteFacts:
    few = [randomly.choice("ab") if randomly.random() < 0.1 else "a" for _ in range(9)]
    return SiteFacts(site, "open", few[0], randomly.randrange(9), 1, few[1], randomly.choice((3, 3, 4)), few[2], few[3],
                     1, few[4], few[5], few[6], few[7], few[8])  # fmt: skip


def test_what_is_shared_by_two_parts_is_what_is_shared_by_all():
    randomly = random.Random(3)
    cells = Cells([("x",), ("y",)], {site: site % 2 for site in range(12)})
    for _ in range(300):
        facts = {site: facts_of(randomly, site) for site in range(12)}
        parts = [randomly.sample(range(12), randomly.randrange(1, 6)) for _ in range(2)]
        made = [columns_of(entries_of(randomly, part)) for part in parts]
        merged = merge_shared(*[shared_of(cells, columns, facts) for columns in made])
        assert merged == SumMemory().shared(cells, made, facts)
        for group in (0, 1):
            members = [facts[site] for site in {*parts[0], *parts[1]} if site % 2 == group]
            if not members:
                assert group not in merged
                continue
            assert merged[group] == Shared.of(members)
            assert merged[group].weight == max(one.weight for one in members)
            for name in Shared._fields[1:]:
                values = {getattr(one, name) for one in members}
                assert getattr(merged[group], name) == (values.pop() if len(values) == 1 else None)


def test_the_line_of_a_pseudo_entry_point_may_vary():
    site = facts_of(random.Random(1), 1)._replace(entry_path="<gc>", entry_line=0, entry_function="")
    assert Shared.of([site, site._replace(entry_line=5)]).entry_point == "<gc>"
    assert Shared.of([site, site._replace(entry_path="<loop>")]).entry_point is None
    real = site._replace(entry_path="a.py", entry_function="f")
    assert Shared.of([real, real._replace(entry_line=5)]).entry_point is None
    assert Shared.of([real]).entry_point == "a.py:0:f"


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_the_first_of_a_page_are_those_of_all_in_order(order):
    randomly = random.Random(17)
    sign = -1 if order == "desc" else 1
    window = Window(0, 60, RESOLUTIONS[0])
    for most in (1, 3, 30, 100):
        keys = [(number,) for number in randomly.sample(range(1000), 40)]
        values = [randomly.randrange(6) for _ in keys]
        expected = sorted((sign * value, key) for value, key in zip(values, keys, strict=True))
        found = _first(values, keys, order, most, None)
        assert found == [(key, sign * value) for value, key in expected][:most]
        for value, key in expected[::7]:
            after = _first(values, keys, order, most, Cursor(window, sign * value, key))
            assert after == [(key, sign * value) for value, key in expected[expected.index((value, key)) + 1 :]][:most]


def test_no_more_than_so_many_numbers_are_remembered():
    cells = Cells([(number,) for number in range(10)], {site: site % 10 for site in range(30)})
    memory = SumMemory(most_numbers=100)
    parts = [columns_of(entries_of(random.Random(seed), range(30))) for seed in range(20)]
    for part in parts:
        memory.sums(cells, [part])
        assert memory._numbers <= 100
    assert memory.sums(cells, parts[-1:]) is memory.sums(cells, parts[-1:])
    assert memory.sums(cells, parts[:1]) == SumMemory().sums(cells, parts[:1])
