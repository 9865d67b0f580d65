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
from aiocop_collector.store.totals import blocked_us_of, counters_of, unpack_bins

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
    bins: Mapping[Key, int] | None
    """The histogram of each group, where ranking needed them."""


async def rank(
    connection: AsyncConnection, scope: Scope, sort: Sort, order: Order, limit: int, cursor: Cursor | None
) -> Page:
    """At most `limit` groups after the cursor. Ties are broken by key, ascending."""
    sums, max_us = scope.by_group()
    bins = await scope.bins_of_groups(connection) if sort == "p99" else None
    values: Mapping[Key, int | float]
    if sort == "last_seen":
        values = await last_seen_ms_of(connection, scope)
    elif sort == "max":
        values = max_us
    elif bins is not None:
        values = {key: _p99_ms(bins.get(key, 0), max_us[key]) for key in sums}
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
        bins=bins,
    )


def _p99_ms(bins: int, max_us: int) -> float:
    p99_ms = p99_ms_of(unpack_bins(bins), max_us)
    return _NOTHING_RECORDED if p99_ms is None else p99_ms
