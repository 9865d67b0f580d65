"""How fast `GET /hotspots` is on a month of a fleet: `python benchmarks/queries.py [--quick] [--postgres] [--few] …`.

Fills a store (see fleet_store.py), lets the collector's own code sum its spans, starts a real collector process on it,
feeds it reports over a unix stream the whole time, and asks over HTTP: every window, grouping and sort. Printed: the
median and 95th percentile of the wall time, the collector's CPU time per question (ingest and commits meanwhile are in
it), and whether issue 5's aim is met. Also the store's size and the time to start.
"""

import argparse
import asyncio
import contextlib
import itertools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.fleet_store import extend_fleet, fill_fleet
from benchmarks.processes import cpu_seconds, peak_mib
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.collector import CollectorProcess, StreamPeer, make_identity, make_report, make_site, run_collector
from tests.support.postgres_server import find_binaries, run_postgres

from aiocop_collector.store.condense import claim_spans, finish, missing_spans, sum_span
from aiocop_collector.store.database import open_engine, prepare, writing
from aiocop_collector.store.snapshot import snapshot
from aiocop_wire import Define, SiteDelta

WINDOWS = ("1h", "24h", "7d", "30d")
GROUPINGS = ("call_site", "entry_point", "line", "fingerprint", "operation", "service", "release")
SORTS = ("blocked_time", "count", "last_seen", "p99")
INGEST_SITES = 30


@dataclass(frozen=True)
class Asked:
    name: str
    path: str
    aim_ms: int


def questions(*, few: bool) -> Iterator[Asked]:
    for window in WINDOWS:
        for grouping, sort in itertools.product(GROUPINGS, SORTS):
            if few and (grouping not in ("call_site", "operation") or sort not in ("blocked_time", "p99")):
                continue
            path = f"/hotspots?since={window}&group_by={grouping}&sort={sort}"
            yield Asked(f"{window:>3} by {grouping}, {sort}", path, 1000 if sort == "p99" else 100)
        yield Asked(f"{window:>3} of one service", f"/hotspots?since={window}&service=service-007", 20)


async def build(url: str, options: argparse.Namespace) -> None:
    engine = open_engine(url)
    await prepare(engine)
    now_s, started_s = int(time.time()), time.perf_counter()
    await fill_fleet(engine, services=options.services, sites=options.sites, days=options.days, now_s=now_s)
    print(f"filled in {time.perf_counter() - started_s:.0f} s", flush=True)
    await sum_spans(engine, options, now_s)
    async with engine.connect() as connection:
        total = calls = 0
        for name in ("rollups_minute", "rollups_hour", "rollups_day", "summed_totals", "presence"):
            rows = (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one()
            total += rows if name in ("rollups_minute", "rollups_hour", "rollups_day") else 0
            print(f"    {name}: {rows:,} rows")
        calls = (await connection.execute(text('SELECT sum("count") FROM rollups_day'))).scalar_one()
        if engine.dialect.name == "postgresql":
            size = (await connection.execute(text("SELECT pg_database_size(current_database())"))).scalar_one()
        else:
            await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))  # not what filling it left behind
            size = Path(engine.url.database).stat().st_size
    per_million_kib = size / float(calls) * 1e6 / 1024
    print(f"{total:,} roll-up rows; {size / 2**20:,.0f} MiB; {per_million_kib:,.1f} KiB per million events")
    if engine.dialect.name == "postgresql":
        async with engine.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("VACUUM ANALYZE"))
    await engine.dispose()


async def sum_missing(engine: AsyncEngine, days: int, at_s: int) -> tuple[int, float]:
    """What a collector would sum at that time: how many spans, and how many seconds the longest transaction took."""
    longest_s = 0.0
    async with engine.connect() as connection:
        wanted = await missing_spans(connection, timedelta(days=days), at_s)
    async with writing(engine) as connection:
        claims = await claim_spans(connection, wanted)
    for claim in claims:
        async with snapshot(engine) as connection:
            done = await sum_span(connection, claim, at_s)
        began_s = time.perf_counter()
        async with writing(engine) as connection:
            await finish(connection, done)
        longest_s = max(longest_s, time.perf_counter() - began_s)
    return len(claims), longest_s


async def sum_spans(engine: AsyncEngine, options: argparse.Namespace, now_s: int) -> None:
    """All that a collector would have summed by now."""
    started_s = time.perf_counter()
    spans, longest_s = await sum_missing(engine, options.days, now_s)
    took_s = time.perf_counter() - started_s
    print(
        f"summed {spans} spans in {took_s:.0f} s, the longest transaction {longest_s * 1000:.0f} ms",
        flush=True,
    )


async def go_on(engine: AsyncEngine, now_s: int) -> None:
    """The fleet's minutes up to the one that has begun."""
    async with writing(engine) as connection:
        await extend_fleet(connection, until_s=now_s)


async def bring_up_to_date(url: str, options: argparse.Namespace) -> None:
    """A store that an earlier run made."""
    engine = open_engine(url)
    await prepare(engine)
    now_s = int(time.time())
    await go_on(engine, now_s)
    await sum_spans(engine, options, now_s)
    await engine.dispose()


@contextlib.contextmanager
def meanwhile(collector: CollectorProcess, url: str, agents: int) -> Iterator[None]:
    """Agents report each second, and each minute the fleet's rows of that minute are there, until the block ends.

    In processes of their own: who asks must not wait for the interpreter of who reports.
    """
    spawning = multiprocessing.get_context("spawn")
    ended = spawning.Event()
    others = [
        spawning.Process(target=report, args=(collector.socket_path, agents, ended)),
        spawning.Process(target=go_on_until, args=(url, ended)),
    ]
    for other in others:
        other.start()
    try:
        yield
    finally:
        ended.set()
        for other in others:
            other.join()
    if any(other.exitcode for other in others):
        sys.exit("whoever was to report meanwhile failed: this measured nothing")


def report(socket_path: Path, agents: int, ended: Event) -> None:
    with contextlib.ExitStack() as peers:
        streams = [peers.enter_context(StreamPeer(socket_path)) for _ in range(agents)]
        for number, stream in enumerate(streams):
            stream.greet(make_identity(f"service-{number:03}", environment="prod"))
            stream.send(Define(tuple(make_site(n) for n in range(1, INGEST_SITES + 1))))
        for sequence in itertools.count(1):
            deltas = [SiteDelta(n, 20, 1, 90_000, 40_000, (3, 15, 12, 4, 26, 1)) for n in range(1, INGEST_SITES + 1)]
            for stream in streams:
                stream.send(make_report(sequence, *deltas, started_at_ms=int(time.time() * 1000)))
            for stream in streams:
                stream.wait_for_ack(sequence)
            if ended.wait(1.0):
                return


def go_on_until(url: str, ended: Event) -> None:
    async def once() -> None:
        engine = open_engine(url)
        await go_on(engine, int(time.time()))
        await engine.dispose()

    while not ended.wait(60 - time.time() % 60):
        asyncio.run(once())


def ask(collector: CollectorProcess, asked: Asked, rounds: int) -> bool:
    times_ms, cpu_before_s = [], cpu_seconds(collector.pid)
    for _ in range(rounds + 1):
        started_s = time.perf_counter()
        with urllib.request.urlopen(collector.url + asked.path, timeout=120) as answer:
            answer.read()
        times_ms.append((time.perf_counter() - started_s) * 1000)
    cpu_ms = (cpu_seconds(collector.pid) - cpu_before_s) * 1000 / (rounds + 1)
    first_ms, warm_ms = times_ms[0], sorted(times_ms[1:])
    p95_ms = warm_ms[max(0, -(-len(warm_ms) * 95 // 100) - 1)]
    met = p95_ms < asked.aim_ms
    print(
        f"{asked.name:40} first {first_ms:7.0f}   p50 {statistics.median(warm_ms):7.1f}   p95 {p95_ms:7.1f} ms   "
        f"CPU {cpu_ms:6.0f} ms   aim {asked.aim_ms:4}  {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def measure(name: str, url: str, folder: Path, options: argparse.Namespace) -> None:
    print(f"\n== {name}: {options.services} services, {options.sites} sites, {options.days} days", flush=True)
    asyncio.run(bring_up_to_date(url, options) if options.reuse else build(url, options))
    started_s = time.perf_counter()
    with run_collector(folder, "--database", url) as collector:
        print(f"ready {time.perf_counter() - started_s:.2f} s after its start (Python's own included)", flush=True)
        with meanwhile(collector, url, options.agents):
            met = [ask(collector, asked, options.rounds) for asked in questions(few=options.few)]
            print(f"{collector.counters()['commits']} commits meanwhile")
        print(
            f"{sum(met)} of {len(met)} aims met; {peak_mib(collector.pid):.0f} MiB at most; load of the machine now "
            f"{os.getloadavg()[0]:.1f}",
            flush=True,
        )
        collector.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--sites", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=20, help="times each question is asked")
    parser.add_argument("--agents", type=int, default=20, help="reporting each second meanwhile")
    parser.add_argument("--quick", action="store_true", help="few questions, a tenth of the sites")
    parser.add_argument("--few", action="store_true", help="a sixth of the questions")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL instead of SQLite")
    parser.add_argument("--keep", type=Path, help="make the store in this folder and leave it there")
    parser.add_argument("--reuse", action="store_true", help="with --keep: go on from an earlier run")
    options = parser.parse_args()
    if options.quick:
        options.services, options.sites, options.rounds, options.few = 20, 1000, 5, True
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if options.postgres:
            binaries = find_binaries()
            if binaries is None:
                sys.exit("no PostgreSQL server is installed here: apt-get install postgresql")
            data = options.keep and options.keep / "postgresql"
            if data:
                data.mkdir(parents=True, exist_ok=True)
            measure("PostgreSQL", stack.enter_context(run_postgres(binaries, data)), folder, options)
        else:
            store = options.keep or folder
            store.mkdir(parents=True, exist_ok=True)
            measure("SQLite", f"sqlite:///{store}/collector.sqlite3", folder, options)


if __name__ == "__main__":
    main()
