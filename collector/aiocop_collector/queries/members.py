"""The sites of a group that were active, as columns.

A group may have every site of a fleet. Columns are looked through at the speed of C (`min`, `set`, `count`); a record
per site, and a function per field and record, measured five times as long.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.scope import Scope, is_among
from aiocop_collector.store.schema import hotspots, services, sites
from aiocop_collector.store.totals import counters_of

T = TypeVar("T")


class SiteFacts(NamedTuple):
    """What a site is; in `Members`, a column of each for all sites."""

    group_last_seen_ms: Any
    """The largest of a group's sites is when the group was last seen."""
    site_id: Any
    operation: Any
    reason: Any
    weight: Any
    line: Any
    entry_path: Any
    entry_line: Any
    entry_function: Any
    advice: Any
    first_seen_ms: Any
    last_seen_ms: Any
    first_release_id: Any
    last_release_id: Any
    hotspot_id: Any
    path: Any
    function: Any
    status: Any
    hotspot_first_seen_ms: Any
    hotspot_first_release_id: Any
    hotspot_last_release_id: Any
    service: Any
    environment: Any


SITE_COLUMNS: Final = (
    sites.c.id,
    sites.c.operation,
    sites.c.reason,
    sites.c.weight,
    sites.c.line,
    sites.c.entry_path,
    sites.c.entry_line,
    sites.c.entry_function,
    sites.c.advice,
    sites.c.first_seen_ms,
    sites.c.last_seen_ms,
    sites.c.first_release_id,
    sites.c.last_release_id,
    hotspots.c.id,
    hotspots.c.path,
    hotspots.c.function,
    hotspots.c.status,
    hotspots.c.first_seen_ms,
    hotspots.c.first_release_id,
    hotspots.c.last_release_id,
    services.c.name,
    services.c.environment,
)
"""What `SiteFacts` holds after `group_last_seen_ms`, in its order."""

SITES_IN_FULL: Final = sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id).join(
    services, services.c.id == sites.c.service_id
)
"""Where `SITE_COLUMNS` are read from."""


@dataclass(frozen=True, slots=True)
class Members:
    """At least one site. All columns are in the same order, which means nothing."""

    facts: SiteFacts
    packed: Sequence[int]
    """Of each: counters and histogram, see totals.py."""
    max_us: Sequence[int]

    @classmethod
    def of(cls, sites_of_it: Sequence[tuple[Sequence[Any], int, int]]) -> "Members":
        """Of (facts, packed, max_us) of each site."""
        facts, packed, max_us = zip(*sites_of_it, strict=True)
        return cls(SiteFacts(*zip(*facts, strict=True)), packed, max_us)

    def costliest_first(self) -> list[int]:
        """Positions in the columns: most blocked time first, then most calls, then by id."""

        def rank(position: int) -> tuple[int, int, int]:
            count, _, blocked_us = counters_of(self.packed[position])
            return (-blocked_us, -count, self.facts.site_id[position])

        return sorted(range(len(self.packed)), key=rank)

    def costliest(self, column: Sequence[T]) -> T:
        """The value whose sites have the most blocked time together, then the most calls, then the costliest site."""
        cost: dict[T, tuple[int, int]] = {}
        for position in self.costliest_first():
            count, _, blocked_us = counters_of(self.packed[position])
            known_us, known = cost.get(column[position], (0, 0))
            cost[column[position]] = (known_us + blocked_us, known + count)
        return max(cost, key=lambda value: cost[value])

    def by_operation(self) -> list[tuple[str, int, int]]:
        """(operation, count, blocked_us), costliest first."""
        packed_of: dict[str, int] = defaultdict(int)
        for operation, packed in zip(self.facts.operation, self.packed, strict=True):
            packed_of[operation] += packed
        found = [(operation, *counters_of(packed)) for operation, packed in packed_of.items()]
        found.sort(key=lambda item: (-item[3], -item[1], item[0]))
        return [(operation, count, blocked_us) for operation, count, _, blocked_us in found]


def common(column: Sequence[T]) -> T | None:
    """The value all of them share, or None."""
    return column[0] if column.count(column[0]) == len(column) else None


async def members_of(connection: AsyncConnection, scope: Scope, keys: Sequence[Key]) -> Mapping[Key, Members]:
    """The sites of each of these groups that were active in the window."""
    sums, max_us = scope.by_site(keys)
    facts = await _facts(connection, scope, {site_id for _, site_id in sums})
    found: dict[Key, list[tuple[Sequence[Any], int, int]]] = defaultdict(list)
    for unit, packed in sums.items():
        key, site_id = unit
        found[key].append((facts[site_id], packed, max_us[unit]))
    return {key: Members.of(sites_of_it) for key, sites_of_it in found.items()}


async def _facts(connection: AsyncConnection, scope: Scope, site_ids: Collection[int]) -> Mapping[int, Sequence[Any]]:
    last_seen_ms = sites.c.last_seen_ms if scope.grouping.by_release else scope.grouping.last_seen_ms
    statement = select(last_seen_ms, *SITE_COLUMNS).select_from(SITES_IN_FULL)
    if 2 * len(site_ids) < len(scope.group_of):
        statement = statement.where(is_among(connection, sites.c.id, site_ids))
    else:
        statement = statement.where(*scope.filters.site_conditions())
    return {row[1]: row for row in (await connection.execute(statement)).all()}
