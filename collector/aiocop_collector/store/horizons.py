"""Horizons: from when on the buckets of each resolution are all there.

Finer buckets are deleted before coarser ones. The horizon is raised first, in a transaction of its own, and rows go
afterwards in batches: a question that reads no bucket before the horizon never sees one that is half deleted.
"""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import schema
from aiocop_collector.store.driver import execute_rows, fetch
from aiocop_collector.store.statements import LARGEST, Statements

Horizons = Mapping[int, int]
"""Unix seconds by a resolution's seconds; nothing of a resolution without one was ever deleted."""


async def load_horizons(connection: AsyncConnection) -> Horizons:
    """As this connection's transaction sees them."""
    return dict(await fetch(connection, "SELECT resolution_s, from_s FROM horizons"))


async def raise_horizon(connection: AsyncConnection, resolution: schema.Resolution, from_s: int) -> None:
    """Buckets of this resolution that start before `from_s` are no longer read. A horizon never sinks."""
    statement = Statements(connection.dialect).upsert(schema.horizons, {"from_s": LARGEST})
    await execute_rows(connection, statement, [(resolution.seconds, from_s)])
