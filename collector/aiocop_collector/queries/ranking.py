"""Which groups a page shows, in which order: decided by four counters, before anything wide is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import Subquery

from aiocop_collector.cursors import Cursor
from aiocop_collector.groupings import Key, Order, Sort
from aiocop_collector.queries.histograms import Bins, bins_by_group, percentiles
from aiocop_collector.queries.scope import Scope, exact_sum

_SORT_COLUMNS: Final[Mapping[str, str]] = {
    "blocked_time": "blocked_us",
    "count": "count",
    "slow_count": "slow_count",
    "max": "max_us",
    "last_seen": "last_seen_ms",
}
_NOTHING_RECORDED: Final = -1.0
"""Sorts groups without a percentile below all others."""


@dataclass(frozen=True, slots=True)
class Headline:
    """A group's counters over the window."""

    key: Key
    count: int
    slow_count: int
    blocked_us: int
    max_us: int
    last_seen_ms: int
    sort_value: int | float


@dataclass(frozen=True, slots=True)
class Page:
    """The groups of one page in order, and what they are a part of."""

    headlines: Sequence[Headline]
    total: int
    """Groups on all pages."""
    blocked_us: int
    """Of all groups on all pages."""
    has_more: bool
    bins: Mapping[Key, Bins] | None = field(default=None)
    """Histograms of (at least) the page's groups, where ranking needed them anyway."""


async def rank(
    connection: AsyncConnection, scope: Scope, sort: Sort, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    """At most `limit` groups after the cursor. Ties are broken by key, ascending."""
    if sort == "p99":
        return await _rank_by_percentile(connection, scope, order, limit, cursor)
    counted = _counted(scope)
    value = counted.c[_SORT_COLUMNS[sort]]
    keys = _key_columns(scope, counted)
    statement = _headlines(scope, counted).order_by(value.desc() if order == "desc" else value.asc(), *keys)
    if cursor is not None:
        statement = statement.where(_after(cursor, value, keys, order))
    rows = (await connection.execute(statement.limit(limit + 1))).all()
    if rows:
        total, blocked_us = rows[0].total, rows[0].total_blocked_us
    else:
        # Nothing matches, or all that came after the cursor has gone since.
        whole = (await connection.execute(select(counted.c.total, counted.c.total_blocked_us).limit(1))).first()
        total, blocked_us = (whole.total, whole.total_blocked_us) if whole is not None else (0, 0)
    column = _SORT_COLUMNS[sort]
    headlines = [_headline(scope, row, getattr(row, column)) for row in _as_mappings(rows[:limit], column)]
    return Page(headlines, total, blocked_us, has_more=len(rows) > limit)


async def _rank_by_percentile(
    connection: AsyncConnection, scope: Scope, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    # A percentile is no sum: histograms are merged by the database, and ranked here.
    rows = (await connection.execute(_headlines(scope, _counted(scope)))).all()
    bins = await bins_by_group(connection, scope)
    width = len(scope.grouping.columns)
    headlines = []
    for row in rows:
        p99_ms = percentiles(bins.get(tuple(row[:width])), row.max_us).p99_ms
        headlines.append(_headline(scope, row, _NOTHING_RECORDED if p99_ms is None else p99_ms))
    headlines.sort(key=lambda headline: headline.key)
    headlines.sort(key=lambda headline: headline.sort_value, reverse=order == "desc")
    sign = -1 if order == "desc" else 1
    remaining = [
        headline
        for headline in headlines
        if cursor is None or (sign * headline.sort_value, headline.key) > (sign * cursor.value, cursor.key)
    ]
    return Page(
        remaining[:limit],
        total=len(headlines),
        blocked_us=sum(headline.blocked_us for headline in headlines),
        has_more=len(remaining) > limit,
        bins=bins,
    )
