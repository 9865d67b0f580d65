"""The CPU time of `GET /hotspots` alone: `python benchmarks/questions_alone.py STORE [--windows …] [--sorts …]`.

In one process, without HTTP, on a SQLite file that `benchmarks/queries.py --keep` made (use a copy: it is written to).
Each question is asked again and again while the clock moves on; before each time, 20 agents' reports are committed and
spans are summed, as a collector does meanwhile. That is not in the figures: only what the question itself takes, in all
threads. The first time of each, when nothing is remembered, is shown apart.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.queries import GROUPINGS, INGEST_SITES, WINDOWS, bring_up_to_date, go_on, sum_missing
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.support.collector import make_identity, make_report, make_site

from aiocop_collector.arrivals import Arrival
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.hotspots import HotspotsQuestion, ask_hotspots
from aiocop_collector.queries.memory import Memory
from aiocop_collector.store.database import open_engine, writing
from aiocop_collector.store.snapshot import snapshot
from aiocop_collector.store.statements import Statements
from aiocop_collector.store.transaction import Memory as StoreMemory
from aiocop_collector.store.transaction import Transaction
from aiocop_wire import SiteDelta

AGENTS = 20
STEP_S = 7.0


class Meanwhile:
    """What goes on in a collector between two questions."""

    def __init__(self, engine: AsyncEngine, days: int) -> None:
        self.now_s = time.time()
        self._engine, self._days = engine, days
        self._memory = StoreMemory(Statements(engine.dialect))
        self._identities = [make_identity(f"service-{number:03}", environment="prod") for number in range(AGENTS)]
        self._sequences = itertools.count(1)

    async def go_on(self) -> None:
        """Time passes, agents report, a collector commits that and sums what is over."""
        self.now_s += STEP_S
        await go_on(self._engine, int(self.now_s))
        now_ms, sequence, sites = int(self.now_s * 1000), next(self._sequences), range(1, INGEST_SITES + 1)
        deltas = [SiteDelta(site, 20, 1, 90_000, 40_000, (3, 15, 12, 4, 26, 1)) for site in sites]
        defined = tuple(map(make_site, sites)) if sequence == 1 else ()
        report = make_report(sequence, *deltas, started_at_ms=now_ms)
        arrivals = [Arrival(identity, "unix", 100, report, defined, ()) for identity in self._identities]
        async with writing(self._engine) as connection:
            transaction = Transaction(connection, self._memory, now_ms=now_ms, announcer=None, rules=None)
            outcome = await transaction.apply(arrivals)
        self._memory.learn(outcome)
        await sum_missing(self._engine, self._days, int(self.now_s))


def questions(windows: list[str], sorts: list[str]) -> Iterator[tuple[str, HotspotsQuestion]]:
    for window, grouping, sort in itertools.product(windows, GROUPINGS, sorts):
        yield f"{window:>3} by {grouping}, {sort}", HotspotsQuestion(window, group_by=grouping, sort=sort)
    for window, sort in itertools.product(windows, sorts):
        yield (
            f"{window:>3} of one service, {sort}",
            HotspotsQuestion(window, None, Filters(("service-007",)), sort=sort),
        )


async def measure(options: argparse.Namespace) -> None:
    url = f"sqlite:///{options.store}"
    await bring_up_to_date(url, options)
    engine, memory = open_engine(url), Memory()
    meanwhile = Meanwhile(engine, options.days)
    for name, question in questions(options.windows.split(","), options.sorts.split(",")):
        took_ms = []
        for _ in range(options.rounds + 1):
            await meanwhile.go_on()
            began_s = time.process_time()
            async with snapshot(engine) as connection:
                await ask_hotspots(connection, memory, question, meanwhile.now_s)
            took_ms.append((time.process_time() - began_s) * 1000)
        first_ms, warm_ms = took_ms[0], took_ms[1:]
        print(
            f"{name:36} first {first_ms:6.0f}   best {min(warm_ms):6.1f}   median {statistics.median(warm_ms):6.1f} ms",
            flush=True,
        )
    await engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--windows", default=",".join(WINDOWS))
    parser.add_argument("--sorts", default="blocked_time")
    parser.add_argument("--days", type=int, default=30, help="that the store keeps")
    parser.add_argument("--rounds", type=int, default=7, help="times each question is asked, after the first")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
