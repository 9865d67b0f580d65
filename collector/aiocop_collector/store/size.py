"""How large the database is, and giving back what deleting left over.

SQLite reuses the pages that deleted rows leave, and shrinks its file only when it is told to. PostgreSQL reuses the
space of deleted rows after a (auto)vacuum and hardly ever shrinks its files. So what a limit is held against is what is
in use, not how large the files once had to be: pages that are not free, or live rows times their width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import schema

PAGES_PER_STEP: Final = 256
"""Given back in one transaction."""

_SPARE_SHARE: Final = 0.1
_SPARE_PAGES: Final = 256
"""Free pages that are left for what comes next: growing a file again costs more than keeping them."""

_INCREMENTAL: Final = 2  # PRAGMA auto_vacuum

# A row's width: 28 bytes of header and pointer, its columns where they are not NULL, and an index entry for its key
# (PostgreSQL 15, sections 73.6 and 67.4.1); before the first ANALYZE what the files hold, divided by their rows. A
# partition counts as part of its table.
_POSTGRESQL: Final = text(
    """
    SELECT name, CAST(sum(bytes) AS float), CAST(sum(live * width) AS float),
        CAST(sum(live * width) / greatest(sum(live), 1) AS float)
    FROM (
        SELECT coalesce(parent.relname, s.relname) AS name,
            pg_total_relation_size(s.relid) AS bytes, n_live_tup AS live,
            coalesce(
                (SELECT 68 + sum(avg_width * (1 - null_frac)) FROM pg_stats p
                 WHERE p.schemaname = s.schemaname AND p.tablename = s.relname),
                pg_total_relation_size(s.relid) / greatest(n_live_tup + n_dead_tup, 1)
            ) AS width
        FROM pg_stat_user_tables s
        LEFT JOIN pg_inherits i ON i.inhrelid = s.relid
        LEFT JOIN pg_class parent ON parent.oid = i.inhparent
        WHERE s.schemaname = current_schema()
    ) AS tables
    WHERE name = ANY(:ours)
    GROUP BY name
    """
)


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes on disk."""

    used_bytes: int
    """Of what is stored; on PostgreSQL an estimate."""
    files_bytes: int
    """Of the files, a write-ahead log included."""
    row_bytes: Mapping[str, float] = field(default_factory=dict)
    """PostgreSQL: what deleting a row of each table takes off `used_bytes`."""


async def measure(connection: AsyncConnection) -> Size:
    """How large the database is now. Cheap: no table is read."""
    if connection.dialect.name == "sqlite":
        page_bytes, pages, free = [
            await _pragma(connection, name) for name in ("page_size", "page_count", "freelist_count")
        ]
        return Size((pages - free) * page_bytes, pages * page_bytes + _log_bytes(connection))
    tables = (await connection.execute(_POSTGRESQL, {"ours": list(schema.metadata.tables)})).all()
    files_bytes, used_bytes = (int(sum(row[index] for row in tables)) for index in (1, 2))
    return Size(min(used_bytes, files_bytes), files_bytes, {name: width for name, _, _, width in tables})


async def give_back(connection: AsyncConnection) -> bool:
    """Shrink a SQLite file by some of its free pages, in a transaction of its own. Whether more should follow.

    Nothing may have been executed on the connection. A file of an older version cannot shrink this way:
    `aiocop-collector db prune --vacuum` makes it one that can.
    """
    if connection.dialect.name != "sqlite":
        return False
    driver: Any = (await connection.get_raw_connection()).driver_connection
    pages, free, mode = [
        int((await driver.execute_fetchall(f"PRAGMA {name}"))[0][0])
        for name in ("page_count", "freelist_count", "auto_vacuum")
    ]
    surplus = free - max(_SPARE_PAGES, int(pages * _SPARE_SHARE))
    if surplus <= 0 or mode != _INCREMENTAL:
        return False
    # It frees one page per step, and has no columns: only executescript() steps to the end of such a statement.
    await driver.executescript(f"PRAGMA incremental_vacuum({min(surplus, PAGES_PER_STEP)})")
    return surplus > PAGES_PER_STEP


async def rebuild(connection: AsyncConnection) -> None:
    """Write a SQLite file anew, without free pages, as one that shrinks by itself from then on.

    Nothing may have been executed on the connection. Nobody else can write meanwhile.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    await driver.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    await driver.execute("VACUUM")
    await driver.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")


async def _pragma(connection: AsyncConnection, name: str) -> int:
    return int((await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one())


def _log_bytes(connection: AsyncConnection) -> int:
    log = Path(f"{connection.engine.url.database}-wal")
    return log.stat().st_size if log.exists() else 0
