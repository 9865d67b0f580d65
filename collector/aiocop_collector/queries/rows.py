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
from aiocop_collector.queries.members import Members, members_of
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
    members = await members_of(connection, scope, keys)
    seen = await seen_of(connection, scope, members)
    processes = await processes_of(connection, scope, keys)
    builder = RowBuilder(scope.grouping, page.blocked_us)
    return [builder.row(key, members[key], bins.get(key, 0), seen[key], processes.get(key, 0)) for key in keys]


@dataclass(frozen=True, slots=True)
class RowBuilder:
    """Makes rows of one answer."""

    grouping: Grouping
    total_blocked_us: int

    def row(self, key: Key, members: Members, bins: int, seen: Seen, processes: int) -> Hotspot:
        """`members` are the group's active sites, `bins` is their histogram."""
        packed_of = members.packed_by_operation()
        packed, max_us = sum(packed_of.values()), max(members.max_us)
        score = max([facts.weight for facts in members.facts])
        count, slow_count, blocked_us = counters_of(packed)
        parts = percentiles(unpack_bins(bins), max_us)
        fields: dict[str, Any] = {
            "service": members.common(lambda facts: facts.service),
            "environment": members.common(lambda facts: facts.environment),
            "severity_level": severity_level(score),
            "severity_score": score,
            "operations": _operations(packed_of),
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
        if self.grouping.name == "call_site":
            return Hotspot.model_construct(**fields, **_of_call_site(members))
        return HotspotGroup.model_construct(**fields, **_of_group(members), key=self.grouping.text(key))


def _operations(packed_of: Mapping[str, int]) -> list[OperationTotals]:
    """Costliest first."""
    found = [(operation, *counters_of(packed)) for operation, packed in packed_of.items()]
    found.sort(key=lambda item: (-item[3], -item[1], item[0]))
    return [
        OperationTotals(name=operation, count=count, blocked_ms=milliseconds(blocked_us))
        for operation, count, _, blocked_us in found
    ]


def _of_call_site(members: Members) -> dict[str, Any]:
    costliest = members.facts[members.costliest_first()[0]]
    return {
        "id": to_hex(costliest.hotspot_id),
        "call_site": place(costliest.path, members.costliest(lambda facts: facts.line), costliest.function),
        "entry_point": _entry_point(costliest),
        "reason": members.costliest(lambda facts: facts.reason),
        "status": costliest.status,
        "advice": costliest.advice,
    }


def _of_group(members: Members) -> dict[str, Any]:
    path, function = members.common(lambda facts: facts.path), members.common(lambda facts: facts.function)
    entry_point = None
    if members.common(lambda facts: facts.entry_path) is not None:
        entry_point = members.common(_entry_point)
    return {
        "id": None,
        "call_site": None
        if path is None or function is None
        else place(path, members.costliest(lambda facts: facts.line), function),
        "entry_point": entry_point,
        "reason": members.common(lambda facts: facts.reason),
        "status": members.common(lambda facts: facts.status),
        "advice": members.common(lambda facts: facts.advice),
    }


def _entry_point(facts: SiteFacts) -> str:
    return place(facts.entry_path, facts.entry_line, facts.entry_function)
