"""From the sites of a group to the row a person reads: the costliest speaks for it, what varies is null."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import Hotspot, HotspotGroup, OperationTotals
from aiocop_collector.answers.words import SeverityLevel
from aiocop_collector.notation import place, to_rfc3339
from aiocop_collector.queries.fact_memory import SiteFacts
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.histograms import percentiles
from aiocop_collector.queries.members import GroupCost, Members, costs_of
from aiocop_collector.queries.processes import processes_of
from aiocop_collector.queries.ranking import Page
from aiocop_collector.queries.scope import Scope
from aiocop_collector.queries.seen import Seen, seen_of
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.totals import counters_of, unpack_bins


def milliseconds(us: int) -> float:
    return round(us / 1000, 3)


def severity_level(score: int) -> SeverityLevel:
    """The levels of the agent's `IoSeverityLevel`."""
    return "high" if score >= 50 else "medium" if score >= 10 else "low"


async def rows_of(connection: AsyncConnection, scope: Scope, page: Page) -> list[Hotspot]:
    """The page's groups as the API shows them, in the page's order."""
    if not page.ranked:
        return []
    keys = [group.key for group in page.ranked]
    bins = await scope.bins_of_groups(connection, keys) if page.bins is None else page.bins
    costs = await costs_of(connection, scope, keys)
    seen = await seen_of(connection, scope, costs)
    processes = await processes_of(connection, scope, keys)
    builder = RowBuilder(scope.grouping, page.blocked_us)
    return [builder.row(key, costs[key], bins.get(key, 0), seen[key], processes.get(key, 0)) for key in keys]


@dataclass(frozen=True, slots=True)
class RowBuilder:
    """Makes rows of one answer."""

    grouping: Grouping
    total_blocked_us: int

    def row(self, key: Key, cost: GroupCost, bins: int, seen: Seen, processes: int) -> Hotspot:
        """`bins` is the group's histogram."""
        max_us, shared = cost.max_us, cost.shared
        count, slow_count, blocked_us = counters_of(sum(cost.packed_of.values()))
        parts = percentiles(unpack_bins(bins), max_us)
        fields: dict[str, Any] = {
            "service": shared.service,
            "environment": shared.environment,
            "severity_level": severity_level(shared.weight),
            "severity_score": shared.weight,
            "operations": _operations(cost.packed_of),
            "count": count,
            "slow_count": slow_count,
            "blocked_ms": milliseconds(blocked_us),
            "share": round(blocked_us / self.total_blocked_us, 4) if self.total_blocked_us else 0.0,
            "max_ms": milliseconds(max_us),
            "p50_ms": parts.p50_ms,
            "p95_ms": parts.p95_ms,
            "p99_ms": parts.p99_ms,
            "processes": processes,
            "first_seen": to_rfc3339(seen.first_seen_ms),
            "last_seen": to_rfc3339(seen.last_seen_ms),
            "first_release": seen.first_release,
            "last_release": seen.last_release,
        }
        if self.grouping.name == "call_site" and cost.members is not None:
            return Hotspot.model_construct(**fields, **_of_call_site(cost.members))
        return HotspotGroup.model_construct(**fields, **_of_group(cost), key=self.grouping.text(key))


def _operations(packed_of: Mapping[str, int]) -> list[OperationTotals]:
    """Costliest first."""
    found = [(operation, *counters_of(packed)) for operation, packed in packed_of.items()]
    found.sort(key=lambda item: (-item[3], -item[1], item[0]))
    return [
        OperationTotals(name=operation, count=count, blocked_ms=milliseconds(blocked_us))
        for operation, count, _, blocked_us in found
    ]


def _of_call_site(members: Members) -> dict[str, Any]:
    costliest = members.facts[members.costliest_first[0]]
    return {
        "id": to_hex(costliest.hotspot_id),
        "call_site": place(costliest.path, members.costliest(lambda facts: facts.line), costliest.function),
        "entry_point": _entry_point(costliest),
        "reason": members.costliest(lambda facts: facts.reason),
        "status": costliest.status,
        "advice": costliest.advice,
    }


def _of_group(cost: GroupCost) -> dict[str, Any]:
    shared, members = cost.shared, cost.members
    call_site = None
    if shared.path is not None and shared.function is not None and members is not None:
        call_site = place(shared.path, members.costliest(lambda facts: facts.line), shared.function)
    return {
        "id": None,
        "call_site": call_site,
        "entry_point": shared.entry_point,
        "reason": shared.reason,
        "status": shared.status,
        "advice": shared.advice,
    }


def _entry_point(facts: SiteFacts) -> str:
    return place(facts.entry_path, facts.entry_line, facts.entry_function)
