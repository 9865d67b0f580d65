"""Decisions about hotspots, as rows: the current one of each, and the history of who changed what.

Two write them: people, through `PATCH /hotspots/{id}` (queries/triage.py), and the writer, when activity contradicts
a decision (reopening.py). Both hold the lock of the hotspot's own row first, so that numbers in the history are never
taken twice and neither misses what the other has just decided.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.agents import chunks
from aiocop_collector.store.schema import decisions, history

COLLECTOR: Final = "collector"
"""Who the history names when nobody but the data decided."""

Changes = Mapping[str, tuple[Any, Any]]
"""Field to what it was before and what it is now."""


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


async def load_decided(connection: AsyncConnection, hotspot_ids: Iterable[int]) -> dict[int, Decided]:
    """By hotspot; one about which nothing was decided is not among them."""
    found: dict[int, Decided] = {}
    for part in chunks(sorted(hotspot_ids)):
        for hotspot_id, *values in await connection.execute(select(decisions).where(decisions.c.hotspot_id.in_(part))):
            found[hotspot_id] = Decided(*values)
    return found


async def store_decided(connection: AsyncConnection, hotspot_id: int, decided: Decided) -> None:
    """Replace what was decided. The caller holds the lock of the hotspot's row."""
    await connection.execute(delete(decisions).where(decisions.c.hotspot_id == hotspot_id))
    if decided != Decided():
        await connection.execute(insert(decisions).values(hotspot_id=hotspot_id, **asdict(decided)))


async def remember(connection: AsyncConnection, hotspot_id: int, at_ms: int, who: str, changes: Changes) -> int:
    """Add to the history; the number of the entry. The caller holds the lock of the hotspot's row."""
    last = select(func.coalesce(func.max(history.c.number), 0)).where(history.c.hotspot_id == hotspot_id)
    number: int = (await connection.execute(last)).scalar_one() + 1
    text = json.dumps({field: list(pair) for field, pair in changes.items()}, separators=(",", ":"))
    entry = insert(history).values(hotspot_id=hotspot_id, number=number, at_ms=at_ms, who=who, changes=text)
    await connection.execute(entry)
    return number
