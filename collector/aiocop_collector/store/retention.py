"""What is deleted for its age, and how: in small batches, by the one writer, between its other transactions.

| what                                   | kept                                                              |
| -------------------------------------- | ----------------------------------------------------------------- |
| minute roll-ups and histograms         | 3 days, or `--retention` where that is shorter                    |
| hour roll-ups and histograms           | 14 days, likewise                                                 |
| spans                                  | like the buckets they are sums of                                 |
| day roll-ups and histograms, presence, traces, slow events, stalls | `--retention`                         |
| agents                                 | `--retention`, but at least 7 days after they were last seen      |
| services, releases, hotspots, sites    | always: "first seen" is of all time, and they are few             |

Agents outlive the rest because their row holds the last sequence applied: without it, what an agent sends again after a
long outage would count twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import Column, ColumnElement, Table, delete, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import schema
from aiocop_collector.store.spans import SPANS

KEEP_MINUTES: Final = timedelta(days=3)
KEEP_HOURS: Final = timedelta(days=14)
KEEP_AGENTS: Final = timedelta(days=7)
KEEP_MESSAGES: Final = timedelta(days=7)

ROWS_PER_BATCH: Final = 2_000
"""Deleted in one transaction, so that commits never wait long behind it."""

_KEPT_BY_RESOLUTION: Final = {"minute": KEEP_MINUTES, "hour": KEEP_HOURS, "day": timedelta.max}


@dataclass(frozen=True, slots=True)
class Expired:
    """Rows of one table whose `column` is below `before`."""

    table: Table
    column: "Column[int]"
    before: int
    only: "ColumnElement[bool]" = field(default_factory=true)

    async def delete_batch(self, connection: AsyncConnection) -> bool:
        """Delete some. Whether more may be left."""
        key = list(self.table.primary_key.columns)
        some = select(*key).where(self.column < self.before, self.only).limit(ROWS_PER_BATCH)
        target = tuple_(*key) if len(key) > 1 else key[0]
        result = await connection.execute(delete(self.table).where(target.in_(some)))
        return result.rowcount >= ROWS_PER_BATCH


def kept(retention: timedelta, resolution: schema.Resolution) -> timedelta:
    """How long buckets of this resolution are kept."""
    return min(retention, _KEPT_BY_RESOLUTION[resolution.name])


def expired(retention: timedelta, now_ms: int) -> Iterator[Expired]:
    """What is to be deleted at `now_ms`, table by table."""
    for resolution in schema.RESOLUTIONS:
        # A bucket goes when its end is too old, not its start.
        before_s = (now_ms - _milliseconds(kept(retention, resolution))) // 1000 - resolution.seconds
        for table in (resolution.rollups, resolution.histograms):
            yield Expired(table, table.c.bucket_s, before_s)
    before_ms = now_ms - _milliseconds(retention)
    yield Expired(schema.presence, schema.presence.c.day_s, before_ms // 1000 - schema.RESOLUTIONS[-1].seconds)
    yield Expired(schema.traces, schema.traces.c.last_seen_ms, before_ms)
    yield Expired(schema.slow_events, schema.slow_events.c.started_at_ms, before_ms)
    yield Expired(schema.stalls, schema.stalls.c.last_seen_ms, before_ms)
    # What was told is remembered for a week at least, so that it is not told again.
    outbox_before_ms = now_ms - _milliseconds(max(retention, KEEP_MESSAGES))
    yield Expired(schema.outbox, schema.outbox.c.at_ms, outbox_before_ms)
    agents_before_ms = now_ms - _milliseconds(max(retention, KEEP_AGENTS))
    yield Expired(schema.agents, schema.agents.c.last_seen_ms, agents_before_ms)
    for span_s, resolution in SPANS.items():
        before_s = (now_ms - _milliseconds(kept(retention, resolution))) // 1000 - span_s
        # The list first: a span on it must be whole.
        for table in (schema.spans, schema.span_rollups, schema.span_histograms):
            yield Expired(table, table.c.bucket_s, before_s, table.c.span_s == span_s)


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
