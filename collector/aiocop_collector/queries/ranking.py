"""Which groups a page shows, in which order."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.cursors import Cursor
from aiocop_collector.queries.groupings import Key, Order, Sort
from aiocop_collector.queries.histograms import p99_ms_of
from aiocop_collector.queries.scope import Scope
from aiocop_collector.queries.seen import last_seen_ms_of
from aiocop_collector.store.totals import BLOCKED_US, COUNT, SLOW_COUNT, lane_of, unpack_bins

_NOTHING_RECORDED: Final = -1.0
"""Sorts groups without a percentile below all others."""

_LANES: Final[Mapping[Sort, int]] = {"blocked_time": BLOCKED_US, "count": COUNT, "slow_count": SLOW_COUNT}
"""What groups are sorted by that is one of their counters."""


class Ranked(NamedTuple):
    """A group, and what it is ranked by."""

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
    totals = scope.totals
    keys, packed, max_us = scope.cells.keys, totals.packed, totals.max_us
    bins = await scope.bins_of_groups(connection) if sort == "p99" else None
    values: Sequence[int | float]
    if sort == "last_seen":
        latest = limit + 1 if order == "desc" and cursor is None else None
        values = await last_seen_ms_of(connection, scope, latest=latest)
    elif sort == "max":
        values = max_us
    elif bins is not None:
        values = _p99_of_groups(scope, bins)
    else:
        values = lane_of(packed, _LANES[sort])
    if min(max_us, default=0) < 0:
        active = [longest_us >= 0 for longest_us in max_us]
        keys, values = list(compress(keys, active)), list(compress(values, active))
    ranked = _first(values, keys, order, limit + 1, cursor)
    return Page(
        ranked[:limit],
        total=len(keys),
        blocked_us=int(sum(values)) if sort == "blocked_time" else scope.blocked_us(),
        has_more=len(ranked) > limit,
        bins=bins,
    )


def _first(
    values: Sequence[int | float], keys: Sequence[Key], order: Order, most: int, cursor: Cursor | None
) -> list[Ranked]:
    """The first groups in order, after the cursor. Values alone are looked through first: few reach the page."""
    sign = -1 if order == "desc" else 1
    pairs = zip(values, keys, strict=True)
    if cursor is not None:
        after = (sign * cursor.value, cursor.key)
        ranked = heapq.nsmallest(most, [pair for value, key in pairs if (pair := (sign * value, key)) > after])
    elif most >= len(keys):
        ranked = sorted([(sign * value, key) for value, key in pairs])
    elif order == "desc":
        last = heapq.nlargest(most, values)[-1]
        ranked = heapq.nsmallest(most, [(-value, key) for value, key in pairs if value >= last])
    else:
        last = heapq.nsmallest(most, values)[-1]
        ranked = heapq.nsmallest(most, [(value, key) for value, key in pairs if value <= last])
    return [Ranked(key, sign * value) for value, key in ranked[:most]]


def _p99_of_groups(scope: Scope, bins: Mapping[Key, int]) -> list[float]:
    """Of those active in buckets it is worked out, of the others it is that of their spans."""
    in_spans = scope.memory.sums.of_histograms("p99", _p99_ms, scope.cells, scope.spans)
    return [
        known
        if (of_group := bins.get(key, 0)) == of_spans and longest_us == spans_us
        else _p99_ms(of_group, longest_us)
        for key, longest_us, of_spans, spans_us, known in zip(
            scope.cells.keys, scope.totals.max_us, *in_spans, strict=True
        )
    ]


def _p99_ms(bins: int, max_us: int) -> float:
    p99_ms = p99_ms_of(unpack_bins(bins), max_us)
    return _NOTHING_RECORDED if p99_ms is None else p99_ms
