"""What is added up for a question, numbered: sums are lists by number, which are copied and added without a loop.

A cell is a group of sites, or, where a group has many sites, those of one operation: so a row with its operations is
made of few numbers, and not of thousands of sites.
"""

from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from operator import add
from typing import Final

from aiocop_collector.queries.columns import Columns
from aiocop_collector.queries.groupings import Key

_NOT_ACTIVE: Final = -1
"""The longest freeze in microseconds of what had none."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The matching sites of a question by cell. Shared: not to be changed."""

    keys: Sequence[Key]
    """Of each group."""
    cell_of: Mapping[int, int]
    """Of each matching site; grouping by release, counted from the first of the release."""
    groups: Sequence[int] | None = None
    """The group of each cell. None where they are the same."""
    operations: Sequence[str] | None = None
    """Of each cell, where a group may have several: it is summarised then, and its sites are not looked at."""
    first_of: Mapping[int, int] | None = None
    """By release that counts: what is added to the cell of a site. None where all count and nothing is added."""
    mark: object = field(default_factory=object)
    """Stands for this object: what is remembered goes by it."""

    def __len__(self) -> int:
        return len(self.keys if self.groups is None else self.groups)

    def group_at(self, cell: int) -> int:
        """The number of a cell's group."""
        return cell if self.groups is None else self.groups[cell]

    def key_of(self, site_id: int) -> Key:
        """The group of a matching site; not where releases are told apart."""
        cell = self.cell_of[site_id]
        return self.keys[cell if self.groups is None else self.groups[cell]]

    @cached_property
    def number_of(self) -> Mapping[Key, int]:
        """Of each group."""
        return {key: number for number, key in enumerate(self.keys)}

    @cached_property
    def _by_group(self) -> tuple["array[int]", "array[int]"]:
        """The matching sites, group by group, and where each group begins among them; at last, where all end."""
        group_of = {site_id: self.group_at(cell) for site_id, cell in self.cell_of.items()}
        begins = array("q", bytes(8))
        counted = Counter(group_of.values())
        begins.extend(accumulate(counted[group] for group in range(len(self.keys))))
        return array("q", sorted(group_of, key=group_of.__getitem__)), begins

    def sites_at(self, group: int) -> Sequence[int]:
        """The matching sites of a group, whether active or not; not where releases are told apart."""
        sites, begins = self._by_group
        return sites[begins[group] : begins[group + 1]]

    def sites_of(self, groups: Collection[int]) -> Set[int]:
        """Those of these groups, by number."""
        if len(groups) == len(self.keys):
            return self.cell_of.keys()
        return set().union(*map(self.sites_at, groups))

    def entries(self, columns: Columns) -> Iterator[tuple[int, int]]:
        """The position of each entry of the columns that counts, and its cell."""
        return ((at, cell) for at, cell in enumerate(self.cells_of(columns)) if cell is not None)

    def cells_of(self, columns: Columns) -> Iterator[int | None]:
        """The cell of each entry of the columns; None where it does not count."""
        cells = map(self.cell_of.get, columns.site_ids)
        if self.first_of is None:
            return cells
        return (
            None if cell is None or first is None else cell + first
            for cell, first in zip(cells, map(self.first_of.get, columns.releases()), strict=True)
        )


@dataclass(slots=True)
class Sums:
    """What cells, or groups, add up to, by number."""

    packed: list[int]
    """Counters, see totals.py."""
    max_us: list[int]
    """The longest freeze; less than zero where there was nothing at all."""

    @classmethod
    def nothing(cls, numbers: int) -> "Sums":
        return cls([0] * numbers, [_NOT_ACTIVE] * numbers)

    def add(self, columns: Columns, cells: Cells) -> None:
        """Add what counts of the columns, by cell."""
        packed, max_us = self.packed, self.max_us
        for cell, counters, longest_us in zip(cells.cells_of(columns), columns.counters, columns.max_us, strict=True):
            if cell is not None:
                packed[cell] += counters
                if longest_us > max_us[cell]:
                    max_us[cell] = longest_us

    def plus(self, other: "Sums") -> "Sums":
        return Sums(list(map(add, self.packed, other.packed)), list(map(max, self.max_us, other.max_us)))

    def copy(self) -> "Sums":
        return Sums(self.packed.copy(), self.max_us.copy())

    def by_group(self, cells: Cells) -> "Sums":
        """Those of cells by group."""
        if cells.groups is None:
            return self
        found = Sums.nothing(len(cells.keys))
        packed, max_us = found.packed, found.max_us
        for group, of_cell, longest_us in zip(cells.groups, self.packed, self.max_us, strict=True):
            if longest_us >= 0:
                packed[group] += of_cell
                if longest_us > max_us[group]:
                    max_us[group] = longest_us
        return found
