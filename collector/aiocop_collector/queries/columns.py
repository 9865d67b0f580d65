"""Totals as they are remembered and looked through: in columns, by site, with the bins apart.

Half the room of dicts (totals.py), as keys are eight bytes, and a histogram starts at its first bin that is not empty.
A ranking looks through counters alone, which fit in few cache lines; bins are added up for what a page shows.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Final

from aiocop_collector.store.totals import ANY_RELEASE, LANE_BITS, Totals, join_packed, pack_counters, split_packed

_LOOK_UP_COSTS: Final = 25
"""As much as passing by so many."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Of each (site, release), in their order."""

    site_ids: "array[int]"
    release_ids: "array[int] | None"
    """None where releases are added up."""
    counters: Sequence[int]
    """Packed, see totals.py; without bins."""
    max_us: "array[int]"
    bins: Sequence[int]
    """A lane each, from the first that is not empty."""
    first_bins: bytes
    """The number of that one."""
    mark: object = field(default_factory=object, compare=False)
    """Stands for this object: what is remembered of it goes by that."""

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[Any]], *, by_release: bool) -> "Columns":
        """Of rows (site_id, release_id, count, slow_count, blocked_us, max_us) in the order of the first two, without
        bins. Where releases are not told apart, a site may have several entries."""
        site_ids, release_ids, counts, slow_counts, blocked_us, max_us = zip(*rows, strict=True) if rows else ((),) * 6
        return cls(
            array("q", site_ids),
            array("q", release_ids) if by_release else None,
            list(map(pack_counters, counts, slow_counts, blocked_us)),
            array("q", max_us),
            (0,) * len(rows),
            bytes(len(rows)),
        )

    @classmethod
    def of(cls, totals: Totals, *, by_release: bool) -> "Columns":
        """`totals` are by release, or for any, as `by_release` says."""
        keys = sorted(totals.sums)
        counters: list[int] = []
        bins: list[int] = []
        first_bins = bytearray()
        for key in keys:
            of_counters, of_bins = split_packed(totals.sums[key])
            first = ((of_bins & -of_bins).bit_length() - 1) // LANE_BITS if of_bins else 0
            counters.append(of_counters)
            bins.append(of_bins >> LANE_BITS * first)
            first_bins.append(first)
        return cls(
            array("q", [site_id for site_id, _ in keys]),
            array("q", [release_id for _, release_id in keys]) if by_release else None,
            counters,
            array("q", [totals.max_us[key] for key in keys]),
            bins,
            bytes(first_bins),
        )

    def __len__(self) -> int:
        return len(self.counters)

    def releases(self) -> Iterable[int]:
        """The release of each."""
        return repeat(ANY_RELEASE, len(self)) if self.release_ids is None else self.release_ids

    def entries(self) -> Iterator[tuple[int, int, int, int]]:
        """(site_id, release_id, counters, max_us) of each."""
        return zip(self.site_ids, self.releases(), self.counters, self.max_us, strict=True)

    def histograms(self) -> Iterator[tuple[int, int, int, int]]:
        """(site_id, release_id, bins, the number of the first) of each."""
        return zip(self.site_ids, self.releases(), self.bins, self.first_bins, strict=True)

    def entries_of(self, site_ids: Collection[int]) -> Iterator[tuple[int, int, int, int]]:
        """Those of these sites, which are a set or a mapping where they are many."""
        ids, counters, max_us = self.site_ids, self.counters, self.max_us
        return ((ids[at], self.release_at(at), counters[at], max_us[at]) for at in self.positions_of(site_ids))

    def positions_of(self, site_ids: Collection[int]) -> Iterable[int]:
        """Where these sites are; a set or a mapping where they are many."""
        if len(site_ids) * _LOOK_UP_COSTS >= len(self):
            return [at for at, site_id in enumerate(self.site_ids) if site_id in site_ids]
        return chain.from_iterable(map(self._positions_of, site_ids))

    def _positions_of(self, site_id: int) -> range:
        first = bisect_left(self.site_ids, site_id)
        return range(first, bisect_right(self.site_ids, site_id, first))

    def release_at(self, position: int) -> int:
        return ANY_RELEASE if self.release_ids is None else self.release_ids[position]

    def bins_at(self, position: int) -> int:
        """A lane each, from the very first."""
        return self.bins[position] << LANE_BITS * self.first_bins[position]

    def add_to(self, totals: Totals) -> None:
        sums, max_us = totals.sums, totals.max_us
        bins_at = self.bins_at
        for position, (site_id, release_id, counters, longest_us) in enumerate(self.entries()):
            key = (site_id, release_id)
            sums[key] = sums.get(key, 0) + join_packed(counters, bins_at(position))
            if longest_us > max_us.get(key, -1):
                max_us[key] = longest_us
