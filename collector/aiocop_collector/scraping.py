"""What a collector's metrics say at one moment: its own counters, and what it finds in the store."""

import time
from collections.abc import Collection
from typing import Final

from prometheus_client.core import Metric
from sqlalchemy import and_, case, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from aiocop_collector.collector import Collector
from aiocop_collector.metrics import MAX_SERVICES, FleetCounts, Scrape
from aiocop_collector.store.agents import FULL_DETAIL, chunks
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import agents, hotspots, services
from aiocop_collector.store.size import measure

_ALIVE_MS: Final = 300_000

Labels = tuple[str, str, str, str]


class Scraper:
    """Fills in what `Metrics` does not count itself; answers without the database too."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._names: dict[int, Labels] = {}  # of the costliest; a hotspot keeps its name for life

    async def page(self) -> bytes:
        """In Prometheus's text format."""
        return self._collector.metrics.page(await self._scrape())

    async def families(self) -> list[Metric]:
        """The same, for who writes another format."""
        return self._collector.metrics.snapshot(await self._scrape())

    async def _scrape(self) -> Scrape:
        collector, names = self._collector, self._names
        costliest = collector.metrics.costliest()
        fleet = size = None
        try:
            names.update(await _names(collector.engine, set(costliest) - names.keys()))
            fleet = await _fleet(collector.engine)
            async with collector.engine.connect() as connection:
                size = await measure(connection)
        except (SQLAlchemyError, OSError):
            pass  # shown as aiocop_collector_database_up 0, and by /readyz in words
        for forgotten in names.keys() - set(costliest):
            del names[forgotten]
        shown = {hotspot_id: names[hotspot_id] for hotspot_id in costliest if hotspot_id in names}
        duties = collector.election.standing()
        return Scrape(collector.counters.totals(), collector.store.status(), fleet, shown, duties, size)


async def _names(engine: AsyncEngine, hotspot_ids: Collection[int]) -> dict[int, Labels]:
    found: dict[int, Labels] = {}
    if not hotspot_ids:
        return found
    source = hotspots.join(services, services.c.id == hotspots.c.service_id)
    columns = (hotspots.c.id, services.c.name, services.c.environment, hotspots.c.path, hotspots.c.function)
    async with engine.connect() as connection:
        for part in chunks(sorted(hotspot_ids)):
            query = select(*columns).select_from(source).where(hotspots.c.id.in_(part))
            for hotspot_id, service, environment, path, function in await connection.execute(query):
                # Without a line: it moves with every edit, and a label that changes is another series.
                call_site = f"{path}:{function}" if function else path
                found[hotspot_id] = (service, environment, call_site, to_hex(hotspot_id))
    return found


async def _fleet(engine: AsyncEngine) -> list[FleetCounts]:
    is_alive = agents.c.last_seen_ms >= int(time.time() * 1000) - _ALIVE_MS
    alive = func.sum(case((is_alive, 1), else_=0))
    reduced = func.sum(case((and_(is_alive, agents.c.overhead.not_like(f"{FULL_DETAIL}%")), 1), else_=0))
    query = (
        select(services.c.name, services.c.environment, alive, reduced, func.sum(agents.c.reports_lost))
        .select_from(agents.join(services, services.c.id == agents.c.service_id))
        .group_by(services.c.id, services.c.name, services.c.environment)
        .order_by(alive.desc(), services.c.id)
        .limit(MAX_SERVICES)
    )
    async with engine.connect() as connection:
        return [
            FleetCounts(name, env, int(count), int(less), int(lost))
            for name, env, count, less, lost in await connection.execute(query)
        ]
