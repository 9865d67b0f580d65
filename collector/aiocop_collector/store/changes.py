"""Who changed what, and when: entries of the tables `history` (hotspots) and `control_history` (settings)."""

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Row, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

Changes = Mapping[str, tuple[Any, Any]]
"""Field to what it was before and what it is now."""

_MAX_ENTRIES: Final = 100


async def add_change(
    connection: AsyncConnection, table: Table, subject_id: int, at_ms: int, who: str, changes: Changes
) -> int:
    """Add an entry; its number. The caller holds a lock that nobody else can add without."""
    subject = table.primary_key.columns[0]
    last = select(func.coalesce(func.max(table.c.number), 0)).where(subject == subject_id)
    number: int = (await connection.execute(last)).scalar_one() + 1
    text = json.dumps({field: list(pair) for field, pair in changes.items()}, separators=(",", ":"))
    values = {subject.name: subject_id, "number": number, "at_ms": at_ms, "who": who, "changes": text}
    await connection.execute(insert(table).values(values))
    return number


async def load_changes(connection: AsyncConnection, table: Table, subject_id: int) -> list[Row[Any]]:
    """The latest entries about one subject: `at_ms`, `who` and `changes` (JSON), the newest first."""
    subject = table.primary_key.columns[0]
    newest_first = (
        select(table.c.at_ms, table.c.who, table.c.changes)
        .where(subject == subject_id)
        .order_by(table.c.number.desc())
        .limit(_MAX_ENTRIES)
    )
    return list(await connection.execute(newest_first))
