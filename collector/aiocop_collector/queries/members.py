"""What a row shows of its group: the sites that were active, or, where those are many, what they add up to.

Of a group that is summarised (cells.py) no site is looked at: it may have every site of a fleet.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.fact_memory import SiteFacts
from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.scope import Scope
from aiocop_collector.queries.shared_facts import Shared
from aiocop_collector.store.totals import counters_of

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Members:
    """At least one site. All columns are in the same order, which means nothing."""

    facts: Sequence[SiteFacts]
    packed: Sequence[int]
    """The counters of each, see totals.py."""
    max_us: Sequence[int]

    @cached_property
    def costliest_first(self) -> list[int]:
        """Positions in the columns: most blocked time first, then most calls, then by id."""

        def rank(position: int) -> tuple[int, int, int]:
            count, _, blocked_us = counters_of(self.packed[position])
            return (-blocked_us, -count, self.facts[position].site_id)

        return sorted(range(len(self.packed)), key=rank)

    def costliest(self, value_of: Callable[[SiteFacts], T]) -> T:
        """The value whose sites have the most blocked time together, then the most calls, then the costliest site."""
        cost: dict[T, tuple[int, int]] = {}
        if len(self.facts) == 1:
            return value_of(self.facts[0])
        for position in self.costliest_first:
            count, _, blocked_us = counters_of(self.packed[position])
            value = value_of(self.facts[position])
            known_us, known = cost.get(value, (0, 0))
            cost[value] = (known_us + blocked_us, known + count)
        return max(cost, key=lambda value: cost[value])

    def packed_by_operation(self) -> Mapping[str, int]:
        """What the sites of each operation add up to."""
        found: dict[str, int] = defaultdict(int)
        for facts, packed in zip(self.facts, self.packed, strict=True):
            found[facts.operation] += packed
        return found


@dataclass(frozen=True, slots=True)
class GroupCost:
    """What the active sites of a group add up to, and what they have in common."""

    packed_of: Mapping[str, int]
    """Counters by operation."""
    max_us: int
    shared: Shared
    members: Members | None
    """None only where the group is summarised, and of more than one function."""

    @classmethod
    def of(cls, members: Members) -> "GroupCost":
        return cls(members.packed_by_operation(), max(members.max_us), Shared.of(members.facts), members)


async def costs_of(connection: AsyncConnection, scope: Scope, keys: Sequence[Key]) -> Mapping[Key, GroupCost]:
    """Of these groups, which were active."""
    if scope.cells.operations is None:
        return {key: GroupCost.of(members) for key, members in (await members_of(connection, scope, keys)).items()}
    shared = await scope.shared_by_groups(connection)
    packed_of = scope.packed_by_operation(keys)
    of_one_function = [key for key in keys if shared[key].path is not None and shared[key].function is not None]
    members = await members_of(connection, scope, of_one_function) if of_one_function else {}
    number_of, max_us = scope.cells.number_of, scope.totals.max_us
    return {key: GroupCost(packed_of[key], max_us[number_of[key]], shared[key], members.get(key)) for key in keys}


async def members_of(connection: AsyncConnection, scope: Scope, keys: Sequence[Key]) -> Mapping[Key, Members]:
    """The sites of each of these groups that were active in the window."""
    by_site = scope.by_site_of_groups(keys)
    wanted = {site_id for sums, _ in by_site.values() for site_id in sums}
    facts = await scope.memory.facts.facts(connection, scope.facts_version, wanted)
    return {
        key: Members([facts[site_id] for site_id in sums], list(sums.values()), [max_us[site_id] for site_id in sums])
        for key, (sums, max_us) in by_site.items()
        if sums
    }
