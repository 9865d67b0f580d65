"""Summing spans: in the background, by the writer, a few in each transaction, the most recent first.

Several collectors that share a PostgreSQL agree by an advisory lock: whoever writes counts holds it shared until its
commit, whoever sums holds it alone. So a sum misses nothing that was being written, and what is written afterwards
finds the span in the list and strikes it off.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.locks import COUNTS
from aiocop_collector.store.retention import kept
from aiocop_collector.store.schema import span_histograms, span_rollups, spans
from aiocop_collector.store.spans import SPANS, Facts, containing, cover, load_summed

GRACE_S: Final = 90
"""How long after its end a span is summed: agents report every second, so little comes later."""

_TRANSACTION_S: Final = 0.1
"""A transaction is committed when summing has taken this long, so that reports do not wait behind it."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """One that is to be summed."""

    span_s: int
    start_s: int


async def hold_spans(connection: AsyncConnection) -> None:
    """Call first in a transaction that writes counts: until it ends, nobody sums."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": COUNTS})


async def strike_off(connection: AsyncConnection, minutes_s: Iterable[int]) -> None:
    """Counts were written into these minutes: spans that contain them are no longer true."""
    await connection.execute(delete(spans).where(containing(minutes_s)))


async def missing_spans(connection: AsyncConnection, retention: timedelta, now_s: int) -> list[Span]:
    """Spans that are over, hold something and are not summed: short ones first, as longer ones are made of them, and
    the most recent first."""
    summed = {tuple(row) for row in await connection.execute(select(spans.c.span_s, spans.c.bucket_s))}
    horizons = await load_horizons(connection)
    wanted: list[Span] = []
    for span_s, resolution in SPANS.items():
        oldest_s = (await connection.execute(select(func.min(resolution.rollups.c.bucket_s)))).scalar()
        if oldest_s is None:
            continue
        # What reaches back to where buckets are deleted is left alone: it would be a sum of what is left of them.
        youngest_s = max(now_s - int(kept(retention, resolution).total_seconds()), horizons.get(resolution.seconds, 0))
        first_s = max(oldest_s, youngest_s)
        starts = range(-(-first_s // span_s) * span_s, now_s - GRACE_S - span_s + 1, span_s)
        wanted += [Span(span_s, at_s) for at_s in reversed(starts) if (span_s, at_s) not in summed]
    return wanted


async def sum_some(connection: AsyncConnection, wanted: Iterator[Span], now_ms: int) -> bool:
    """Sum the next few within the caller's transaction. Whether more may be left."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": COUNTS})
    deadline_s = time.monotonic() + _TRANSACTION_S
    for span in wanted:
        await _sum(connection, span, now_ms)
        if time.monotonic() >= deadline_s:
            return True
    return False


async def _sum(connection: AsyncConnection, span: Span, now_ms: int) -> None:
    this = (spans.c.span_s == span.span_s, spans.c.bucket_s == span.start_s)
    if (await connection.execute(select(spans.c.span_s).where(*this))).first() is not None:
        return  # another collector was faster
    await _replace(connection, span, "rollups", span_rollups)
    await _replace(connection, span, "histograms", span_histograms)
    await connection.execute(insert(spans).values(span_s=span.span_s, bucket_s=span.start_s, summed_at_ms=now_ms))


async def _replace(connection: AsyncConnection, span: Span, facts: Facts, target: Table) -> None:
    # As text: SQLAlchemy takes 20 ms to put together what sums 86 bins. All numbers in it are our own.
    until_s = span.start_s + span.span_s
    base = SPANS[span.span_s]
    await connection.exec_driver_sql(
        f"DELETE FROM {target.name} WHERE span_s = {span.span_s} AND bucket_s = {span.start_s}"  # noqa: S608 see above
    )
    summed = await load_summed(connection, span.start_s, until_s, base)
    parts = cover(span.start_s, until_s, base, summed, longest_s=span.span_s)
    quoted = {column.name: f'"{column.name}"' for column in target.columns if not column.primary_key}
    read = " UNION ALL ".join(
        f"SELECT site_id, release_id, {', '.join(quoted.values())} FROM {part.table(facts).name} WHERE {part.where()}"  # noqa: S608 see above
        for part in parts
    )
    sums = ", ".join(
        f"max({column})" if name == "max_us" else f"CAST(sum({column}) AS BIGINT)" for name, column in quoted.items()
    )
    await connection.exec_driver_sql(
        f"INSERT INTO {target.name} (span_s, bucket_s, site_id, release_id, {', '.join(quoted.values())}) "  # noqa: S608 see above
        f"SELECT {span.span_s}, {span.start_s}, site_id, release_id, {sums} FROM ({read}) AS facts "
        "GROUP BY site_id, release_id"
    )
