"""Which groups a page shows, in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.cursors import Cursor
from aiocop_collector.queries.groupings import Key, Order, Sort
from aiocop_collector.queries.histograms import p99_ms_of
from aiocop_collector.queries.scope import Scope
from aiocop_collector.queries.seen import last_seen_ms_of
from aiocop_collector.store.totals import bins_of, blocked_us_of, counters_of

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
    has_bins: bool
    """Whether ranking needed the bins of the live part, so that they are read."""


async def rank(
    connection: AsyncConnection, scope: Scope, sort: Sort, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    """At most `limit` groups after the cursor. Ties are broken by key, ascending."""
    if sort == "p99":
        await scope.read_bins(connection)
    sums, max_us = scope.by_group()
    values: Mapping[Key, int | float]
    if sort == "last_seen":
        values = await last_seen_ms_of(connection, scope)
    elif sort == "max":
        values = max_us
    elif sort == "p99":
        values = {key: _p99_ms(packed, max_us[key]) for key, packed in sums.items()}
    elif sort == "blocked_time":
        values = {key: blocked_us_of(packed) for key, packed in sums.items()}
    else:
        counter = ("count", "slow_count").index(sort)
        values = {key: counters_of(packed)[counter] for key, packed in sums.items()}
    sign = -1 if order == "desc" else 1
    ranked = sorted((sign * values[key], key) for key in sums)
    if cursor is not None:
        after = (sign * cursor.value, cursor.key)
        ranked = [group for group in ranked if group > after]
    return Page(
        [Ranked(key, sign * value) for value, key in ranked[:limit]],
        total=len(sums),
        blocked_us=sum(map(blocked_us_of, sums.values())),
        has_more=len(ranked) > limit,
        has_bins=sort == "p99",
    )


def _p99_ms(packed: int, max_us: int) -> float:
    p99_ms = p99_ms_of(bins_of(packed), max_us)
    return _NOTHING_RECORDED if p99_ms is None else p99_ms
