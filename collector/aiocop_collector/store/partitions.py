"""Partitions of the tables of minutes and hours, on PostgreSQL: one a day, so that old days go whole, not row by row.

    rollups_minute           what is asked and written: PostgreSQL finds the partition by bucket_s
    ├── …_before             what was there when it was divided, up to an edge
    ├── …_from_1790035200    a day each, made ahead
    └── …_other              what belongs to none: very late, or from a clock that is far ahead

Nothing but speed depends on them. The table of days is whole. Who has the duty of upkeep makes and drops partitions,
each in a transaction of its own, in which no counts are written: so neither races with an upsert, nor deadlocks. SQLite
has none of this.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Table, text
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import schema
from aiocop_collector.store.locks import COUNTS

STEP_S: Final = 86_400
"""How much time one partition holds."""

_DIVIDED: Final = schema.RESOLUTIONS[:2]
"""Days have few rows, and questions about a month would read a partition for each."""

_AHEAD: Final = 2
"""Days after the current one that are ready. Upkeep looks every hour."""

_LOCK_TIMEOUT: Final = "3s"
"""For questions that read the table to end; then it is tried again with the next upkeep."""

_BOUNDS: Final = text(
    "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = to_regclass(:name)"
)
_RANGE: Final = re.compile(r"FOR VALUES FROM \((?:MINVALUE|'(\d+)')\) TO \('(\d+)'\)")


@dataclass(frozen=True, slots=True)
class Partition:
    """Of one table, up to `until_s`; `from_s` is None for what was there when the table was divided."""

    table: Table
    name: str
    from_s: int | None
    until_s: int


def is_divided(dialect: Dialect, resolution: schema.Resolution) -> bool:
    """Whether the tables of this resolution have partitions there."""
    return dialect.name == "postgresql" and resolution in _DIVIDED


async def missing_partitions(connection: AsyncConnection, now_s: int) -> list[Partition]:
    """Those that should be there by now."""
    found: list[Partition] = []
    first_s = now_s - now_s % STEP_S
    for table in _tables(connection.dialect):
        edge_s = max((partition.until_s for partition in await _partitions(connection, table)), default=0)
        found += [
            Partition(table, f"{table.name}_from_{from_s}", from_s, from_s + STEP_S)
            for from_s in range(first_s, first_s + (_AHEAD + 1) * STEP_S, STEP_S)
            if from_s >= edge_s
        ]
    return found


async def ended_partitions(
    connection: AsyncConnection, resolution: schema.Resolution, before_s: int
) -> list[Partition]:
    """Those that hold nothing from `before_s` on, of the tables of one resolution."""
    if not is_divided(connection.dialect, resolution):
        return []
    return [
        partition
        for table in (resolution.rollups, resolution.histograms)
        for partition in await _partitions(connection, table)
        if partition.until_s <= before_s
    ]


async def create_partition(connection: AsyncConnection, partition: Partition) -> None:
    """Within the caller's transaction. What has come too early for it moves there."""
    await _hold_counts(connection)
    table, name, from_s, until_s = partition.table.name, partition.name, partition.from_s, partition.until_s
    if any(known.name == name for known in await _partitions(connection, partition.table)):
        return  # another collector was faster
    early = f"DELETE FROM {table}_other WHERE bucket_s >= {from_s} AND bucket_s < {until_s} RETURNING *"  # noqa: S608 our own names and numbers
    for statement in (
        f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)",
        f"WITH early AS ({early}) INSERT INTO {name} SELECT * FROM early",  # noqa: S608 see above
        f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({from_s}) TO ({until_s})",
    ):
        await connection.exec_driver_sql(statement)


async def drop_partition(connection: AsyncConnection, partition: Partition) -> int:
    """Within the caller's transaction. How many rows it had, as far as the server's statistics know."""
    await _hold_counts(connection)
    live = text("SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = to_regclass(:name)")
    rows = (await connection.execute(live, {"name": partition.name})).scalar()
    await connection.exec_driver_sql(f"DROP TABLE IF EXISTS {partition.name}")
    return int(rows or 0)


def _tables(dialect: Dialect) -> Iterator[Table]:
    for resolution in schema.RESOLUTIONS:
        if is_divided(dialect, resolution):
            yield from (resolution.rollups, resolution.histograms)


async def _hold_counts(connection: AsyncConnection) -> None:
    """Nobody writes counts until this transaction ends."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": COUNTS})
    await connection.execute(text("SELECT set_config('lock_timeout', :timeout, true)"), {"timeout": _LOCK_TIMEOUT})


async def _partitions(connection: AsyncConnection, table: Table) -> list[Partition]:
    """All but the one for all others."""
    found: list[Partition] = []
    for name, bound in await connection.execute(_BOUNDS, {"name": table.name}):
        if bound is None:
            continue  # another collector drops it right now
        range_s = _RANGE.fullmatch(bound)
        if range_s is not None:
            from_s, until_s = range_s.groups()
            found.append(Partition(table, name, None if from_s is None else int(from_s), int(until_s)))
    return found
