"""Adding deltas up to rows: one per (bucket, site, release) at each resolution, sorted by key.

The sum of deltas is a delta: `add_up` makes minutes of what reports say, and hours and days of minutes. A commit mostly
holds one minute, or two; then an hour's rows are the minute's with another start, and nothing is added up again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from aiocop_collector.store.schema import Resolution
from aiocop_wire import BIN_COUNT, SiteDelta

MAX_TOTAL: Final = 1 << 42
"""Most that one commit adds to one number (50 days, in microseconds): a hostile agent cannot make a day's column
overflow, which would make the database refuse everybody else's reports for it."""

_SPAN_STEP: Final = 8  # spans start and end at multiples of it, so that there are at most 66 statements

Key = tuple[int, int, int]
"""(bucket_s, site_id, release_id): the primary key of roll-ups and histograms."""

Span = tuple[int, int]
"""First bin, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What one resolution's tables get."""

    rollups: list[tuple[int, ...]] = field(default_factory=list)
    """In the order of the table's columns."""
    histograms: dict[Span, list[tuple[int, ...]]] = field(default_factory=dict)
    """By the span of bins they fill: the key, then a count for each bin of the span.

    A row fills few of the 86 columns, and binding and merging all of them measured five times slower. A site that sent
    no bins has no row.
    """

    def moved(self, starts: Mapping[int, int]) -> "Rows":
        """The same in other buckets: `starts` has the new start for each, in the same order."""
        return Rows(
            [(starts[row[0]], *row[1:]) for row in self.rollups],
            {span: [(starts[row[0]], *row[1:]) for row in rows] for span, rows in self.histograms.items()},
        )


def rows_of(minutes: Mapping[Key, SiteDelta], resolutions: Iterable[Resolution]) -> Iterator[tuple[Resolution, Rows]]:
    """The rows for each resolution, finest first, of what was counted by minute."""
    counted, rows = minutes, _rows(minutes)
    for resolution in resolutions:
        starts = {at_s: at_s - at_s % resolution.seconds for at_s in {bucket_s for bucket_s, _, _ in counted}}
        if len(set(starts.values())) < len(starts):
            counted = _regrouped(counted, starts)
            rows = _rows(counted)
            yield resolution, rows
        else:
            yield resolution, rows.moved(starts)


def add_up(deltas: Sequence[SiteDelta]) -> SiteDelta:
    """All of one site's deltas as one."""
    if len(deltas) == 1:
        return deltas[0]
    sites, counts, slow_counts, blocked_us, max_us, sparse = zip(*deltas, strict=True)
    pairs = tuple(chain.from_iterable(sparse))
    bins = dict.fromkeys(pairs[::2], 0)
    for index, count in zip(pairs[::2], pairs[1::2], strict=True):
        bins[index] += count
    return SiteDelta(
        sites[0],
        sum(counts),
        sum(slow_counts),
        sum(blocked_us),
        max(max_us),
        tuple(chain.from_iterable(bins.items())),
    )


def filled_span(bins: Collection[int]) -> Span:
    """The span of columns that holds these bins."""
    return min(bins) // _SPAN_STEP * _SPAN_STEP, min((max(bins) // _SPAN_STEP + 1) * _SPAN_STEP, BIN_COUNT)


def _regrouped(counted: Mapping[Key, SiteDelta], starts: Mapping[int, int]) -> dict[Key, SiteDelta]:
    """Buckets added up to those that contain them."""
    grouped: dict[Key, list[SiteDelta]] = {}
    for (bucket_s, site_id, release_id), delta in counted.items():
        grouped.setdefault((starts[bucket_s], site_id, release_id), []).append(delta)
    return {key: add_up(deltas) for key, deltas in grouped.items()}


def _rows(counted: Mapping[Key, SiteDelta]) -> Rows:
    rows = Rows()
    rollups, histograms = rows.rollups, rows.histograms
    for key in sorted(counted):
        _, *totals, bins = counted[key]
        rollups.append((*key, *_bounded(totals)))
        if bins:
            indexes = bins[::2]
            first, end = span = filled_span(indexes)
            values = [0] * (end - first)
            for index, count in zip(indexes, bins[1::2], strict=True):
                values[index - first] += count
            histograms.setdefault(span, []).append((*key, *_bounded(values)))
    return rows


def _bounded(totals: list[int]) -> list[int]:
    return totals if max(totals) <= MAX_TOTAL else [min(total, MAX_TOTAL) for total in totals]
