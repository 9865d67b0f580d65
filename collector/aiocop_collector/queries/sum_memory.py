"""What spans add up to for a question, kept between questions: a question then adds what came since, and ranks.

What is remembered goes by the cells, which stand for filters, a grouping and one state of all facts, and by the columns
of spans, which stand for one version of each span (fact_memory.py, span_memory.py). Neither is ever changed, so
nothing here can be out of date. The sum of long spans is the same for an hour, that of all spans for a minute.

Written and read on the event loop's thread only. What it gives out is shared: nobody may change it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import replace
from functools import reduce
from operator import add, attrgetter, or_
from types import MappingProxyType
from typing import Any, Final, TypeVar

from aiocop_collector.queries.cells import Cells, Sums
from aiocop_collector.queries.columns import Columns
from aiocop_collector.queries.fact_memory import SiteFacts
from aiocop_collector.queries.shared_facts import Shared
from aiocop_collector.store.totals import LANE_BITS, Presence

_MOST_NUMBERS: Final = 100_000
"""Remembered, of all questions together: a sum has two for each cell, of some 50 bytes each."""

_NUMBERS_OF_BINS: Final = 6
"""What a histogram counts for: as many bytes, as a rule."""

_NUMBERS_OF_SHARED: Final = 6
"""What the common facts of a group count for."""

SharedOf = Mapping[int, Shared]
"""By number of the group; those that were active."""

SeenBy = Mapping[tuple[int, int], int]
"""Bits of agents by number of the group and service."""

T = TypeVar("T")


class SumMemory:
    """One per collector."""

    def __init__(self, *, most_numbers: int = _MOST_NUMBERS) -> None:
        self._most_numbers = most_numbers
        self._known: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._numbers = 0

    def in_releases(self, matching: Cells, release_of: Mapping[int, str], *, by_release: bool) -> Cells:
        """The same sites in these releases alone; with `by_release`, grouped by the names of the releases."""
        key = ("in releases", matching.mark, by_release, frozenset(release_of.items()))
        known: Cells | None = self._recall(key)
        if known is None:
            known = _in_releases(matching, release_of, by_release=by_release)
            self._remember(key, known, len(release_of) + len(known))
        return known

    def sums(self, cells: Cells, parts: Sequence[Columns]) -> Sums:
        """By cell."""

        def make(columns: Columns) -> Sums:
            made = Sums.nothing(len(cells))
            made.add(columns, cells)
            return made

        if not parts:
            return Sums.nothing(len(cells))
        return self._sum("sums", cells, parts, make, Sums.plus, lambda made: 2 * len(made.packed))

    def bins(self, cells: Cells, parts: Sequence[Columns]) -> Sequence[int]:
        """The histogram of each group."""
        if not parts:
            return [0] * len(cells.keys)
        return self._sum(
            "bins",
            cells,
            parts,
            lambda columns: _bins(cells, columns),
            lambda one, other: list(map(add, one, other)),
            lambda made: _NUMBERS_OF_BINS * len(made),
        )

    def of_histograms(
        self, name: str, value_of: Callable[[int, int], float], cells: Cells, parts: Sequence[Columns]
    ) -> tuple[Sequence[int], Sequence[int], Sequence[float]]:
        """Of each group its histogram, its longest freeze and `value_of` both, which `name` stands for."""
        bins, max_us = self.bins(cells, parts), self.sums(cells, parts).by_group(cells).max_us
        key = (name, cells.mark, *[columns.mark for columns in parts])
        known: list[float] | None = self._recall(key)
        if known is None:
            known = list(map(value_of, bins, max_us))
            self._remember(key, known, len(known))
        return bins, max_us, known

    def shared(self, cells: Cells, parts: Sequence[Columns], facts: Mapping[int, SiteFacts]) -> SharedOf:
        """What the active sites of each group have in common. `facts` are those that the cells were made of."""
        if not parts:
            return {}
        return self._sum(
            "shared",
            cells,
            parts,
            lambda columns: shared_of(cells, columns, facts),
            merge_shared,
            lambda made: _NUMBERS_OF_SHARED * len(made),
        )

    def idle(self, cells: Cells, parts: Sequence[Columns]) -> Set[int]:
        """The matching sites that were not active."""
        key = ("idle", cells.mark, *[columns.mark for columns in parts])
        known: set[int] | None = self._recall(key)
        if known is None:
            known = set(cells.cell_of)
            for columns in parts:
                known -= active_of(cells, columns)
            self._remember(key, known, len(known) + 1)
        return known

    def active_releases(self, cells: Cells, parts: Sequence[Columns]) -> Set[int]:
        """The releases in which matching sites were active."""
        if not parts:
            return frozenset()
        return self._sum("active releases", cells, parts, lambda columns: releases_of(cells, columns), or_, len)

    def seen_by(self, cells: Cells, presence: Presence) -> SeenBy:
        """Who saw each group; of cells that tell no releases apart."""
        key = ("seen by", cells.mark, presence.mark)
        known: SeenBy | None = self._recall(key)
        if known is None:
            known = _seen_by(cells, presence)
            self._remember(key, known, 2 * len(known))
        return known

    def processes(self, cells: Cells, presence: Presence) -> Mapping[int, int]:
        """How many saw each group: an agent has one service for life."""
        key = ("processes", cells.mark, presence.mark)
        known: dict[int, int] | None = self._recall(key)
        if known is None:
            known = defaultdict(int)
            for (group, _), bits in self.seen_by(cells, presence).items():
                known[group] += bits.bit_count()
            self._remember(key, known, 2 * len(known))
        return known

    def _sum(
        self,
        kind: str,
        cells: Cells,
        parts: Sequence[Columns],
        make: Callable[[Columns], T],
        plus: Callable[[T, T], T],
        numbers_of: Callable[[T], int],
    ) -> T:
        key = (kind, cells.mark, *[columns.mark for columns in parts])
        known: T | None = self._recall(key)
        if known is None:
            if len(parts) == 1:
                known = make(parts[0])
            else:
                known = reduce(plus, [self._sum(kind, cells, [one], make, plus, numbers_of) for one in parts])
            self._remember(key, known, numbers_of(known))
        return known

    def _recall(self, key: Hashable) -> Any:
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        return found[0]

    def _remember(self, key: Hashable, found: object, numbers: int) -> None:
        self._known[key] = (found, numbers)
        self._numbers += numbers
        while self._numbers > self._most_numbers and len(self._known) > 1:
            _, (_, freed) = self._known.popitem(last=False)
            self._numbers -= freed


def _in_releases(matching: Cells, release_of: Mapping[int, str], *, by_release: bool) -> Cells:
    if not by_release:
        return replace(matching, first_of=dict.fromkeys(release_of, 0), mark=object())
    names = dict.fromkeys(release_of.values())
    operations = matching.operations or ()
    first_of_name = {name: number * len(operations) for number, name in enumerate(names)}
    return Cells(
        [(name,) for name in names],
        matching.cell_of,
        [number for number in range(len(names)) for _ in operations],
        [*operations] * len(names),
        {release_id: first_of_name[name] for release_id, name in release_of.items()},
    )


def _bins(cells: Cells, columns: Columns) -> list[int]:
    # By the bin they begin at: adding is quicker than moving each to where it belongs.
    beginning_at: dict[int, dict[int, int]] = defaultdict(dict)
    bins, first_bins = columns.bins, columns.first_bins
    for at, cell in cells.entries(columns):
        of_cell = beginning_at[first_bins[at]]
        of_cell[cell] = of_cell.get(cell, 0) + bins[at]
    found = [0] * len(cells.keys)
    for first, of_cell in beginning_at.items():
        for cell, packed in of_cell.items():
            found[cells.group_at(cell)] += packed << LANE_BITS * first
    return found


def shared_of(
    cells: Cells,
    columns: Columns,
    facts: Mapping[int, SiteFacts],
    *,
    only: Set[int] | None = None,
    others: SharedOf = MappingProxyType({}),
) -> SharedOf:
    """What those of the columns (`only` these sites, where given) have in common, by group: with each other, and with
    `others`."""
    members: dict[int, list[SiteFacts]] = defaultdict(list)
    site_ids = columns.site_ids
    for at, cell in cells.entries(columns):
        if only is None or site_ids[at] in only:
            members[cells.group_at(cell)].append(facts[site_ids[at]])
    found = dict(others)
    for group, of_group in members.items():
        other = found.get(group)
        if other is None:
            found[group] = Shared.of(of_group)
        elif other.varies:  # of a large group that is so as a rule, and comparing takes time
            found[group] = other._replace(weight=max(other.weight, max(of_group, key=_weight_of).weight))
        else:
            found[group] = other.plus(Shared.of(of_group))
    return found


def active_of(cells: Cells, columns: Columns) -> Set[int]:
    """The sites of the columns that count."""
    if cells.first_of is None:
        return cells.cell_of.keys() & columns.site_ids
    site_ids = columns.site_ids
    return {site_ids[at] for at, _ in cells.entries(columns)}


def releases_of(cells: Cells, columns: Columns) -> Set[int]:
    """The releases of what counts of the columns."""
    of_entries = zip(columns.releases(), cells.cells_of(columns), strict=True)
    return frozenset([release_id for release_id, cell in of_entries if cell is not None])


_weight_of: Final = attrgetter("weight")


def merge_shared(one: SharedOf, other: SharedOf) -> SharedOf:
    found = {**one, **other}
    for group in one.keys() & other.keys():
        found[group] = one[group].plus(other[group])
    return found


def _seen_by(cells: Cells, presence: Presence) -> SeenBy:
    found: dict[tuple[int, int], int] = defaultdict(int)
    cell_of, group_at, service_of = cells.cell_of.get, cells.group_at, presence.service_of
    for site_id, bits in presence.seen_by.items():
        cell = cell_of(site_id)
        if cell is not None:
            found[group_at(cell), service_of[site_id]] |= bits
    return found
