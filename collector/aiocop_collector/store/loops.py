"""How loops fare: rows per (bucket, service) at each resolution, and the last minute or two of each agent's loops.

Both are sums of what reports say (aiocop_wire.LoopDelta), of new reports only, in the transaction that counts them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Table

from aiocop_collector.store.counts import MAX_TOTAL, Span, filled_span
from aiocop_collector.store.driver import Statement
from aiocop_collector.store.schema import BIN_COLUMNS, LOOP_COUNTERS, LOOPS, Resolution
from aiocop_collector.store.statements import ADD, LARGEST, Statements
from aiocop_wire import LoopDelta

_LARGEST: Final = ("waiting_max", "lag_max_us")
_PEAKS: Final = tuple([LOOP_COUNTERS.index(name) for name in _LARGEST])
_SUMS: Final = tuple([index for index in range(len(LOOP_COUNTERS)) if index not in _PEAKS])
_counters: Final = attrgetter(*LOOP_COUNTERS)  # of a LoopDelta
_MINUTE_MS: Final = 60_000
_MAX_RECENT: Final = 64
_KEY: Final = ("bucket_s", "service_id")


@dataclass(slots=True)
class LoopTotals:
    """Counters in the order of LOOP_COUNTERS, which are fields of LoopDelta, and the histogram of lag."""

    counters: list[int] = field(default_factory=lambda: [0] * len(LOOP_COUNTERS))
    bins: dict[int, int] = field(default_factory=dict)

    def add(self, counters: Sequence[int], sparse_bins: Sequence[int]) -> None:
        own, bins = self.counters, self.bins
        for index in _SUMS:
            own[index] += counters[index]
        for index in _PEAKS:
            if counters[index] > own[index]:
                own[index] = counters[index]
        if max(own) > MAX_TOTAL:
            own[:] = [min(total, MAX_TOTAL) for total in own]
        for index, count in zip(sparse_bins[::2], sparse_bins[1::2], strict=True):
            bins[index] = min(bins.get(index, 0) + count, MAX_TOTAL)

    def merge(self, other: "LoopTotals") -> None:
        self.add(other.counters, other.sparse_bins())

    def sparse_bins(self) -> list[int]:
        return [part for item in sorted(self.bins.items()) for part in item]

    def named(self) -> dict[str, int]:
        """Counters by name."""
        return dict(zip(LOOP_COUNTERS, self.counters, strict=True))


class LoopFold:
    """One transaction's worth of rows."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, int], LoopTotals] = {}

    def add(self, service_id: int, loops: Iterable[LoopDelta], started_at_ms: int) -> None:
        """What a new report says, counted in the minute it started in."""
        minute_s = started_at_ms // _MINUTE_MS * 60
        for delta in loops:
            self._minutes.setdefault((minute_s, service_id), LoopTotals()).add(_counters(delta), delta.lag_bins)

    def by_service(self) -> dict[int, LoopTotals]:
        found: dict[int, LoopTotals] = {}
        for (_, service_id), totals in self._minutes.items():
            found.setdefault(service_id, LoopTotals()).merge(totals)
        return found

    def statements(
        self, statements: Statements, resolution: Resolution
    ) -> Iterator[tuple[Statement, list[tuple[int, ...]]]]:
        """What to execute for one resolution: statements and their rows, sorted by key."""
        table = LOOPS[resolution.name]
        merged: dict[tuple[int, int], LoopTotals] = {}
        for (minute_s, service_id), totals in self._minutes.items():
            key = (minute_s - minute_s % resolution.seconds, service_id)
            merged.setdefault(key, LoopTotals()).merge(totals)
        by_span: dict[Span, list[tuple[int, ...]]] = {}
        for key in sorted(merged):
            totals = merged[key]
            span = filled_span(totals.bins) if totals.bins else (0, 0)
            row = (*key, *totals.counters, *[totals.bins.get(index, 0) for index in range(*span)])
            by_span.setdefault(span, []).append(row)
        for span in sorted(by_span):
            yield _upsert(statements, table, span), by_span[span]


def _upsert(statements: Statements, table: Table, span: Span) -> Statement:
    merge = {name: LARGEST if name in _LARGEST else ADD for name in LOOP_COUNTERS}
    bins = BIN_COLUMNS[span[0] : span[1]]
    return statements.upsert(table, merge, columns=(*_KEY, *LOOP_COUNTERS), bins=bins)


# --- the last minute or two of one agent ------------------------------------------------------------------------------


@dataclass(slots=True)
class RecentLoop:
    """What one loop thread of an agent did lately: since the start of the minute before the last."""

    number: int
    thread_name: str
    loop: str
    parts: list[tuple[int, LoopTotals]]
    """One or two, each from a moment on (Unix milliseconds)."""
    until_ms: int

    def totals(self) -> LoopTotals:
        summed = LoopTotals()
        for _, part in self.parts:
            summed.merge(part)
        return summed


def read_recent(text: str | None) -> list[RecentLoop]:
    """What `agents.loops` holds; nothing for an agent that never told."""
    return [
        RecentLoop(
            number,
            thread_name,
            loop,
            [(since_ms, _totals(counters, bins)) for since_ms, counters, bins in parts],
            until_ms,
        )
        for number, thread_name, loop, until_ms, parts in json.loads(text or "[]")
    ]


def add_recent(recent: list[RecentLoop], loops: Iterable[LoopDelta], started_at_ms: int, ended_at_ms: int) -> None:
    """Take in one more report, and leave out loops that nothing was heard of for two minutes."""
    known = {loop.number: loop for loop in recent}
    for delta in loops:
        loop = known.get(delta.number)
        if loop is None:
            loop = known[delta.number] = RecentLoop(delta.number, "", "", [], 0)
        loop.thread_name, loop.loop = delta.thread_name, delta.loop
        loop.until_ms = max(loop.until_ms, ended_at_ms)
        if not loop.parts or started_at_ms - loop.parts[-1][0] >= _MINUTE_MS:
            loop.parts = [*loop.parts[-1:], (started_at_ms, LoopTotals())]
        loop.parts[-1][1].add(_counters(delta), delta.lag_bins)
    alive = [loop for loop in known.values() if loop.until_ms > ended_at_ms - 2 * _MINUTE_MS]
    recent[:] = sorted(alive, key=attrgetter("number"))[:_MAX_RECENT]


def _totals(counters: list[int], bins: list[int]) -> LoopTotals:
    """As `recent_text` wrote them."""
    return LoopTotals(counters, dict(zip(bins[::2], bins[1::2], strict=True)))


def recent_text(loops: Iterable[RecentLoop]) -> str:
    """What `read_recent` reads."""
    items: list[Any] = [
        [
            loop.number,
            loop.thread_name,
            loop.loop,
            loop.until_ms,
            [[since_ms, part.counters, part.sparse_bins()] for since_ms, part in loop.parts],
        ]
        for loop in loops
    ]
    return json.dumps(items, separators=(",", ":"))
