"""Who changed what, as answers show it."""

import json

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.base import HistoryEntry
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.store.changes import load_changes


async def history_of(connection: AsyncConnection, table: Table, subject_id: int) -> list[HistoryEntry]:
    """The latest changes of one subject, the newest first."""
    return [
        HistoryEntry(at=to_rfc3339(row.at_ms), who=row.who, changes=json.loads(row.changes))
        for row in await load_changes(connection, table, subject_id)
    ]
