"""What is deleted for its age.

| what                                   | kept                                                              |
| -------------------------------------- | ----------------------------------------------------------------- |
| minute buckets                         | 3 days, or `--retention` where that is shorter                    |
| hour buckets                           | 14 days, likewise                                                 |
| spans                                  | like the buckets they are sums of; those of a minute 2 hours      |
| day buckets, presence, traces, slow events, stalls, captures | `--retention`                               |
| messages of webhooks                   | `--retention`, but at least 7 days                                |
| agents                                 | `--retention`, but at least 7 days after they were last seen      |
| settings of single agents              | as long as their agents                                           |
| services, releases, hotspots, sites    | always: "first seen" is of all time, and they are few             |
| decisions, history, what rules decided | always: as long as their hotspots and sites                       |
| settings of services                   | always: they wait for agents to come                              |

On PostgreSQL minutes and hours go by whole days (see partitions.py). Buckets may go earlier, when the store is larger
than `--max-size` (see pruning.py). Nothing is summed up when a finer bucket goes: counts are written into all three
resolutions as they arrive.

Agents outlive the rest because their row holds the last sequence applied: without it, what an agent sends again after a
long outage would count twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import Column, ColumnElement, Table, and_, delete, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import schema
from aiocop_collector.store.spans import MINUTE_S, SPANS

KEEP_MINUTES: Final = timedelta(days=3)
KEEP_HOURS: Final = timedelta(days=14)
KEEP_MINUTE_SPANS: Final = timedelta(hours=2)
"""Later the spans of ten minutes do: only the ends of a window are minutes."""

KEEP_AGENTS: Final = timedelta(days=7)
KEEP_MESSAGES: Final = timedelta(days=7)

KEPT_FOR_EVER: Final = frozenset(
    (
        schema.services,
        schema.releases,
        schema.hotspots,
        schema.sites,
        schema.decisions,
        schema.history,
        schema.rulings,
        schema.reweighted,
        schema.control_revision,
        schema.facts_changed,
        schema.presence_changed,
        schema.horizons,
        schema.about,
    )
)
"""Tables of which nothing is ever deleted here."""

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

    @property
    def conditions(self) -> "tuple[ColumnElement[bool], ...]":
        """What holds for these rows."""
        return (self.column < self.before, self.only)

    async def delete_batch(self, connection: AsyncConnection) -> int:
        """Delete some; how many. More may be left when it is ROWS_PER_BATCH."""
        key = list(self.table.primary_key.columns)
        some = select(*key).where(*self.conditions).limit(ROWS_PER_BATCH)
        target = tuple_(*key) if len(key) > 1 else key[0]
        # The column again, so that PostgreSQL looks into no partition that has none of them.
        old = delete(self.table).where(self.column < self.before, target.in_(some))
        return (await connection.execute(old)).rowcount


def kept(retention: timedelta, resolution: schema.Resolution) -> timedelta:
    """How long buckets of this resolution are kept."""
    return min(retention, _KEPT_BY_RESOLUTION[resolution.name])


def kept_span(retention: timedelta, span_s: int) -> timedelta:
    """How long spans of this length are kept."""
    likewise = kept(retention, SPANS[span_s])
    return min(likewise, KEEP_MINUTE_SPANS) if span_s == MINUTE_S else likewise


def horizon_s(retention: timedelta, resolution: schema.Resolution, now_ms: int) -> int:
    """Buckets that start before this go for their age: those whose end is too old, not their start."""
    oldest_s = (now_ms - _milliseconds(kept(retention, resolution))) // 1000
    return oldest_s - oldest_s % resolution.seconds


def buckets_before(resolution: schema.Resolution, from_s: int) -> Iterator[Expired]:
    """All that goes with the buckets of this resolution that start before `from_s`."""
    for span_s, base in SPANS.items():
        if base is resolution:
            yield from _spans_before(span_s, from_s)
    for table in resolution.tables:
        yield Expired(table, table.c.bucket_s, from_s)
    if resolution is schema.RESOLUTIONS[-1]:
        yield Expired(schema.presence, schema.presence.c.day_s, from_s)


def _spans_before(span_s: int, from_s: int) -> Iterator[Expired]:
    # The lists first: a span on one must be whole.
    lists = (schema.summed, schema.spans)
    for table in sorted(schema.metadata.tables.values(), key=lambda table: table not in lists):
        if "span_s" in table.primary_key.columns:
            yield Expired(table, table.c.bucket_s, from_s, table.c.span_s == span_s)


def evidence_before(before_ms: int) -> Iterator[Expired]:
    """What was sampled before that moment."""
    yield Expired(schema.traces, schema.traces.c.last_seen_ms, before_ms)
    yield Expired(schema.slow_events, schema.slow_events.c.started_at_ms, before_ms)
    yield Expired(schema.stalls, schema.stalls.c.last_seen_ms, before_ms)
    yield Expired(schema.captures, schema.captures.c.requested_at_ms, before_ms)


def expired(retention: timedelta, now_ms: int) -> Iterator[Expired]:
    """What is to be deleted at `now_ms` beside buckets, table by table."""
    yield from evidence_before(now_ms - _milliseconds(retention))
    yield from _spans_before(MINUTE_S, (now_ms - _milliseconds(KEEP_MINUTE_SPANS)) // 1000 - MINUTE_S)
    # What was told is remembered for a week at least, so that it is not told again.
    outbox_before_ms = now_ms - _milliseconds(max(retention, KEEP_MESSAGES))
    yield Expired(schema.outbox, schema.outbox.c.at_ms, outbox_before_ms)
    agents_before_ms = now_ms - _milliseconds(max(retention, KEEP_AGENTS))
    yield Expired(schema.agents, schema.agents.c.last_seen_ms, agents_before_ms)
    settings, control_history = schema.control_settings.c, schema.control_history.c
    of_gone_agents = and_(settings.scope == "agent", settings.name.not_in(select(schema.agents.c.id)))
    yield Expired(schema.control_settings, settings.changed_at_ms, agents_before_ms, of_gone_agents)
    of_nobody = control_history.settings_id.not_in(select(settings.id))
    yield Expired(schema.control_history, control_history.at_ms, agents_before_ms, of_nobody)


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
