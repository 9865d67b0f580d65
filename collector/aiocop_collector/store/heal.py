"""A site whose definition arrived late moves from the `<unknown>` hotspot to its own, with its past.

Counters need no move: they belong to sites. What belongs to hotspots does: when they were seen, and sampled events.
"""

import json
from collections.abc import Iterable

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.schema import decisions, hotspots, sites, slow_events
from aiocop_collector.store.sites import Moved
from aiocop_collector.store.statements import Statements


async def move_events(connection: AsyncConnection, statements: Statements, moved: Iterable[Moved]) -> None:
    """Take the sampled events of moved sites along, and drop old hotspots that have no site and no verdict left."""
    for move in sorted(moved, key=lambda item: (item.old_hotspot_id, item.site_id)):
        query = select(slow_events).where(slow_events.c.hotspot_id == move.old_hotspot_id).order_by(slow_events.c.id)
        rows = [
            (row["id"], move.new_hotspot_id, *list(row.values())[2:])
            for row in (await connection.execute(query)).mappings()
            if any(site["site_id"] == move.site_id for site in json.loads(row["event"])["sites"])
        ]
        await execute_rows(connection, statements.upsert(slow_events, {}), rows)
    for hotspot_id in sorted({move.old_hotspot_id for move in moved}):
        deserted = await connection.execute(
            delete(hotspots)
            .where(hotspots.c.id == hotspot_id, hotspots.c.status == "open", hotspots.c.note == "")
            .where(~exists().where(sites.c.hotspot_id == hotspot_id))
            .where(~exists().where(decisions.c.hotspot_id == hotspot_id))
        )
        if deserted.rowcount:
            await connection.execute(delete(slow_events).where(slow_events.c.hotspot_id == hotspot_id))
