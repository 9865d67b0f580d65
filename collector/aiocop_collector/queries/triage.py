"""`PATCH /hotspots/{id}`: what a person decided about a hotspot."""

from dataclasses import dataclass

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.detail import find_hotspot
from aiocop_collector.schema import hotspots


@dataclass(frozen=True, slots=True)
class Decision:
    """The fields to change; None leaves one as it is."""

    status: str | None = None
    note: str | None = None


async def decide(connection: AsyncConnection, hotspot_id: str, decision: Decision) -> None:
    """Within the caller's transaction. Raises UnknownHotspotError."""
    hotspot = await find_hotspot(connection, hotspot_id)
    changes = {
        name: value for name, value in (("status", decision.status), ("note", decision.note)) if value is not None
    }
    if changes:
        await connection.execute(update(hotspots).where(hotspots.c.id == hotspot.id).values(**changes))
