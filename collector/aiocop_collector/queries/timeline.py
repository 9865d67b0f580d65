"""`GET /hotspots/{id}/timeline`: what one hotspot cost in each bucket of a window."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import Timeline, TimelineBucket
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.hotspots import window_answer
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.triage import find_hotspot
from aiocop_collector.queries.windows import parse_window
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import sites


async def ask_timeline(
    connection: AsyncConnection, hotspot_id: str, since: str | None, until: str | None, now_s: float
) -> Timeline:
    """Every bucket of the window, in order; the empty ones too. Raises UnknownHotspotError, BadParameterError."""
    window = parse_window(since, until, now_s, await load_horizons(connection))
    hotspot = await find_hotspot(connection, hotspot_id)
    rollups = window.resolution.rollups
    statement = (
        select(
            rollups.c.bucket_s,
            _exact_sum(rollups.c["count"]),
            _exact_sum(rollups.c.slow_count),
            _exact_sum(rollups.c.blocked_us),
            func.max(rollups.c.max_us),
        )
        # Both parts of the primary key by equality: SQLite then looks up (bucket, site) pairs instead of reading every
        # site of every bucket.
        .where(
            rollups.c.bucket_s.in_(_each(window.bucket_starts_s)),
            rollups.c.site_id.in_(select(sites.c.id).where(sites.c.hotspot_id == hotspot.id)),
        )
        .group_by(rollups.c.bucket_s)
    )
    counters = {row[0]: row[1:] for row in await connection.execute(statement)}
    buckets = []
    for start_s in window.bucket_starts_s:
        count, slow_count, blocked_us, max_us = counters.get(start_s, (0, 0, 0, 0))
        buckets.append(
            TimelineBucket(
                at=to_rfc3339(start_s * 1000),
                count=count,
                slow_count=slow_count,
                blocked_ms=milliseconds(blocked_us),
                max_ms=milliseconds(max_us),
            )
        )
    return Timeline(id=to_hex(hotspot.id), window=window_answer(window), buckets=buckets)


def _exact_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    """SUM as an integer: PostgreSQL makes a decimal of it."""
    return cast(func.sum(column), BigInteger)


def _each(starts_s: range) -> Select[Any]:
    """Every number of the range, counted up by the database: a day of minutes would be 1440 parameters."""
    first = select(literal(starts_s.start, BigInteger).label("start_s")).cte("starts", recursive=True)
    following = first.c.start_s + starts_s.step
    starts = first.union_all(select(following).where(following < starts_s.stop))
    return select(starts.c.start_s)
