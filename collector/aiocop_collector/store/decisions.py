"""Decisions about hotspots, as rows: the current one of each, and the history of who changed what.

Two write them: people, through `PATCH /hotspots/{id}` (queries/triage.py), and the writer, when activity contradicts
a decision (reopening.py). Both hold the lock of the hotspot's own row first, so that numbers in the history are never
taken twice and neither misses what the other has just decided.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.buckets import among, site_list
from aiocop_collector.store.changes import Changes, add_change
from aiocop_collector.store.driver import fetch
from aiocop_collector.store.schema import decisions, history

COLLECTOR: Final = "collector"
"""Who the history names when nobody but the data decided."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about one hotspot, beyond its status. `resolved_*` and `ignored_*` are None in other states."""

    owner: str = ""
    resolved_release_id: int | None = None
    resolved_at_ms: int | None = None
    ignored_at_ms: int | None = None
    ignored_until_ms: int | None = None
    ignored_below_ms_per_hour: int | None = None

    def without_verdict(self) -> "Decided":
        """What is left when the hotspot is open again."""
        return Decided(self.owner)


_DECIDED: Final = f"SELECT {', '.join(column.name for column in decisions.columns)} FROM decisions"  # noqa: S608 no value


async def load_decided(connection: AsyncConnection, hotspot_ids: Iterable[int]) -> dict[int, Decided]:
    """By hotspot; one about which nothing was decided is not among them."""
    statement = f"{_DECIDED} WHERE {among(connection, 'hotspot_id')}"
    rows = await fetch(connection, statement, (site_list(connection, hotspot_ids),))
    return {hotspot_id: Decided(*values) for hotspot_id, *values in rows}


async def store_decided(connection: AsyncConnection, hotspot_id: int, decided: Decided) -> None:
    """Replace what was decided. The caller holds the lock of the hotspot's row."""
    await connection.execute(delete(decisions).where(decisions.c.hotspot_id == hotspot_id))
    if decided != Decided():
        await connection.execute(insert(decisions).values(hotspot_id=hotspot_id, **asdict(decided)))


async def remember(connection: AsyncConnection, hotspot_id: int, at_ms: int, who: str, changes: Changes) -> int:
    """Add to the history; the number of the entry. The caller holds the lock of the hotspot's row."""
    return await add_change(connection, history, hotspot_id, at_ms, who, changes)
