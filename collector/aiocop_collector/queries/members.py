"""The sites of a group that were active.

A group may have every site of a fleet, so nothing is made for each of them: facts are those that are remembered, and a
value is looked for only where a row needs it.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.fact_memory import SiteFacts
from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.scope import Scope
from aiocop_collector.store.totals import counters_of

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Members:
    """At least one site. All columns are in the same order, which means nothing."""

    facts: Sequence[SiteFacts]
    packed: Sequence[int]
    """The counters of each, see totals.py."""
    max_us: Sequence[int]

    def costliest_first(self) -> list[int]:
        """Positions in the columns: most blocked time first, then most calls, then by id."""

        def rank(position: int) -> tuple[int, int, int]:
            count, _, blocked_us = counters_of(self.packed[position])
            return (-blocked_us, -count, self.facts[position].site_id)

        return sorted(range(len(self.packed)), key=rank)

    def costliest(self, value_of: Callable[[SiteFacts], T]) -> T:
        """The value whose sites have the most blocked time together, then the most calls, then the costliest site."""
        cost: dict[T, tuple[int, int]] = {}
        for position in self.costliest_first():
            count, _, blocked_us = counters_of(self.packed[position])
            value = value_of(self.facts[position])
            known_us, known = cost.get(value, (0, 0))
            cost[value] = (known_us + blocked_us, known + count)
        return max(cost, key=lambda value: cost[value])

    def common(self, value_of: Callable[[SiteFacts], T]) -> T | None:
        """The value all of them share, or None."""
        first = value_of(self.facts[0])
        return None if any(value_of(facts) != first for facts in self.facts) else first

    def packed_by_operation(self) -> Mapping[str, int]:
        """What the sites of each operation add up to."""
        found: dict[str, int] = defaultdict(int)
        for facts, packed in zip(self.facts, self.packed, strict=True):
            found[facts.operation] += packed
        return found


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
