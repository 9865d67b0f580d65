"""What is in a store, for `aiocop-collector db info`."""

from dataclasses import dataclass

from sqlalchemy import func, inspect, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import schema
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.migrations import revisions, usable_revision, written_by
from aiocop_collector.store.size import Size, measure


@dataclass(frozen=True, slots=True)
class Kept:
    """What there is of one resolution. Unix seconds at which buckets start."""

    resolution: str
    rows: int
    oldest_s: int | None
    newest_s: int | None
    horizon_s: int | None
    """Everything that started earlier was deleted; None where nothing was."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One store, as of one moment."""

    revision: str | None
    newest_revision: str
    """The one that this version makes; another one in the store is changed when a collector starts on it."""
    collector_version: str | None
    """The one that migrated it last."""
    size: Size
    shrinks: bool
    """Whether the space of deleted rows goes back to the volume by itself: not so for a SQLite file of an old version,
    nor on PostgreSQL, which reuses it."""
    rows: dict[str, int]
    kept: tuple[Kept, ...]


async def take_inventory(connection: AsyncConnection) -> Inventory:
    """Counts every row, which takes some seconds for a store of gigabytes."""
    there = set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
    rows: dict[str, int] = {}
    for name, table in sorted(schema.metadata.tables.items()):
        if name in there:  # not so for those that an upgrade will make
            rows[name] = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    horizons = await load_horizons(connection) if schema.horizons.name in there else {}
    kept = []
    for resolution in schema.RESOLUTIONS:
        bucket_s = resolution.rollups.c.bucket_s
        oldest_s, newest_s = (await connection.execute(select(func.min(bucket_s), func.max(bucket_s)))).one()
        horizon_s = horizons.get(resolution.seconds)
        kept.append(Kept(resolution.name, rows[resolution.rollups.name], oldest_s, newest_s, horizon_s))
    shrinks = False
    if connection.dialect.name == "sqlite":
        shrinks = bool((await connection.exec_driver_sql("PRAGMA auto_vacuum")).scalar_one())
    return Inventory(
        revision=await connection.run_sync(usable_revision),
        newest_revision=revisions()[-1],
        collector_version=await connection.run_sync(written_by),
        size=await measure(connection),
        shrinks=shrinks,
        rows=rows,
        kept=tuple(kept),
    )
