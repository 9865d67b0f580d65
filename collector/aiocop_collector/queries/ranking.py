"""Which groups a page shows, in which order: decided by four counters, before anything wide is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Row, and_, cast, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import Subquery

from aiocop_collector.cursors import Cursor
from aiocop_collector.groupings import Key, Order, Sort
from aiocop_collector.queries.histograms import Bins, bins_by_group, percentiles
from aiocop_collector.queries.scope import Scope, exact_sum

_SORT_COLUMNS: Final[Mapping[str, str]] = {
    "blocked_time": "blocked_us",
    "count": "calls",
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
    """Histograms of all groups, where ranking needed them anyway."""


async def rank(
    connection: AsyncConnection, scope: Scope, sort: Sort, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    """At most `limit` groups after the cursor. Ties are broken by key, ascending."""
    if sort == "p99":
        return await _rank_by_percentile(connection, scope, order, limit, cursor)
    counted = _counted(scope)
    value = counted.c[_SORT_COLUMNS[sort]]
    keys = [counted.c[f"key_{index}"] for index in range(len(scope.grouping.columns))]
    statement = select(counted).order_by(value.desc() if order == "desc" else value.asc(), *keys)
    if cursor is not None:
        statement = statement.where(_after(cursor, value, keys, order))
    rows = (await connection.execute(statement.limit(limit + 1))).all()
    # Without rows, nothing matches, or all that came after the cursor has gone since.
    first = rows[0] if rows else (await connection.execute(select(counted).limit(1))).first()
    total, blocked_us = (first.total, first.total_blocked_us) if first is not None else (0, 0)
    headlines = [_headline(scope, row, getattr(row, _SORT_COLUMNS[sort])) for row in rows[:limit]]
    return Page(headlines, total, blocked_us, has_more=len(rows) > limit)


async def _rank_by_percentile(
    connection: AsyncConnection, scope: Scope, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    # A percentile is no sum: histograms are merged by the database, and ranked here.
    rows = (await connection.execute(select(_counted(scope)))).all()
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


def _counted(scope: Scope) -> Subquery:
    """Every group with its counters, and beside each the number and the blocked time of all."""
    totals = scope.totals()
    grouped = (
        select(
            *scope.grouping.labelled(),
            # A column named count would be hidden by the method of rows of that name.
            exact_sum(totals.c["count"]).label("calls"),
            exact_sum(totals.c.slow_count).label("slow_count"),
            exact_sum(totals.c.blocked_us).label("blocked_us"),
            func.max(totals.c.max_us).label("max_us"),
            func.max(scope.grouping.last_seen_ms).label("last_seen_ms"),
        )
        .select_from(scope.joined(totals))
        .where(*scope.group_conditions())
        .group_by(*scope.grouping.columns)
        .subquery("grouped")
    )
    total_blocked_us = cast(func.sum(grouped.c.blocked_us).over(), BigInteger)
    return select(grouped, func.count().over().label("total"), total_blocked_us.label("total_blocked_us")).subquery(
        "counted"
    )


def _after(
    cursor: Cursor, value: ColumnElement[Any], keys: Sequence[ColumnElement[Any]], order: Order
) -> ColumnElement[bool]:
    beyond = value < cursor.value if order == "desc" else value > cursor.value
    return or_(beyond, and_(value == cursor.value, tuple_(*keys) > cursor.key))


def _headline(scope: Scope, row: Row[Any], sort_value: float) -> Headline:
    return Headline(
        key=tuple(row[: len(scope.grouping.columns)]),
        count=row.calls,
        slow_count=row.slow_count,
        blocked_us=row.blocked_us,
        max_us=row.max_us,
        last_seen_ms=row.last_seen_ms,
        sort_value=sort_value,
    )
