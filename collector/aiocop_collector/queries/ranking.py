"""Which groups a page shows, in which order: decided by four counters, before anything wide is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, and_, cast, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import Subquery

from aiocop_collector.queries.cursors import Cursor
from aiocop_collector.queries.groupings import Key, Order, Sort
from aiocop_collector.queries.histograms import Bins, bins_by_group, percentiles
from aiocop_collector.queries.scope import Scope, exact_sum

_SORT_COLUMNS: Final[Mapping[str, str]] = {
    "blocked_time": "blocked_us",
    "count": "count",
    "slow_count": "slow_count",
    "max": "max_us",
    "last_seen": "blocked_us",  # none of the counters: dimensions know
    "p99": "max_us",
}
"""The counter of the roll-ups that a sort needs. Each one more makes ranking a fleet slower by a fifth."""
_NOTHING_RECORDED: Final = -1.0
"""Sorts groups without a percentile below all others."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """A group and what it is ranked by."""

    key: Key
    sort_value: int | float


@dataclass(frozen=True, slots=True)
class Page:
    """The groups of one page in order, and what they are a part of."""

    ranked: Sequence[Ranked]
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
    counted = _counted(scope, sort)
    keys = [counted.c[f"key_{index}"] for index in range(len(scope.grouping.columns))]
    value = counted.c.sort_value
    statement = select(counted).order_by(value.desc() if order == "desc" else value.asc(), *keys)
    if cursor is not None:
        statement = statement.where(_after(cursor, value, keys, order))
    rows = (await connection.execute(statement.limit(limit + 1))).all()
    # Without rows, nothing matches, or all that came after the cursor has gone since.
    first = rows[0] if rows else (await connection.execute(select(counted).limit(1))).first()
    total, blocked_us = (first.total, first.total_blocked_us) if first is not None else (0, 0)
    ranked = [Ranked(tuple(row[: len(keys)]), row.sort_value) for row in rows[:limit]]
    return Page(ranked, total, blocked_us, has_more=len(rows) > limit)


async def _rank_by_percentile(
    connection: AsyncConnection, scope: Scope, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    # A percentile is no sum: histograms are merged by the database, and ranked here.
    rows = (await connection.execute(select(_counted(scope, "p99")))).all()
    bins = await bins_by_group(connection, scope)
    width = len(scope.grouping.columns)
    ranked = []
    for row in rows:
        key = tuple(row[:width])
        p99_ms = percentiles(bins.get(key), row.sort_value).p99_ms
        ranked.append(Ranked(key, _NOTHING_RECORDED if p99_ms is None else p99_ms))
    ranked.sort(key=lambda group: group.key)
    ranked.sort(key=lambda group: group.sort_value, reverse=order == "desc")
    sign = -1 if order == "desc" else 1
    remaining = [
        group
        for group in ranked
        if cursor is None or (sign * group.sort_value, group.key) > (sign * cursor.value, cursor.key)
    ]
    return Page(
        remaining[:limit],
        total=len(ranked),
        blocked_us=rows[0].total_blocked_us if rows else 0,
        has_more=len(remaining) > limit,
        bins=bins,
    )


def _counted(scope: Scope, sort: Sort) -> Subquery:
    """Every group with what it is sorted by, and beside each the number and the blocked time of all."""
    counter = _SORT_COLUMNS[sort]
    totals = scope.totals(columns=tuple(dict.fromkeys((counter, "blocked_us"))))
    if sort == "last_seen":
        value: ColumnElement[int] = func.max(scope.grouping.last_seen_ms)
    else:
        value = func.max(totals.c[counter]) if counter == "max_us" else exact_sum(totals.c[counter])
    grouped = (
        select(
            *scope.grouping.labelled(),
            value.label("sort_value"),
            exact_sum(totals.c.blocked_us).label("blocked_us"),
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
