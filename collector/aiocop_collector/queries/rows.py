"""From the sites of a group to the row a person reads: the costliest speaks for it, what varies is null."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import Hotspot, HotspotGroup, OperationTotals
from aiocop_collector.answers.words import SeverityLevel
from aiocop_collector.notation import place, to_rfc3339
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.histograms import percentiles
from aiocop_collector.queries.members import Members, common, members_of
from aiocop_collector.queries.processes import processes_of
from aiocop_collector.queries.ranking import Page
from aiocop_collector.queries.scope import Scope, is_among
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import releases
from aiocop_collector.store.totals import bins_of, counters_of


class ReleaseSeen(NamedTuple):
    """When releases of one name were seen, of all time, in whatever service."""

    first_seen_ms: int
    last_seen_ms: int


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
    if not page.has_bins:
        await scope.read_bins(connection, scope.sites_of(keys))
    members = await members_of(connection, scope, keys)
    seen = await _releases_seen(connection, scope) if scope.grouping.by_release else {}
    processes = await processes_of(connection, scope, keys)
    builder = RowBuilder(scope.grouping, page.blocked_us, await release_names(connection, members.values()))
    return [builder.row(key, members[key], processes.get(key, 0), seen.get(key)) for key in keys]


async def _releases_seen(connection: AsyncConnection, scope: Scope) -> Mapping[Key, ReleaseSeen]:
    """Grouping by release: of those that were active."""
    active: dict[Key, set[int]] = defaultdict(set)
    for key, (_, release_id) in scope.active():
        active[key].add(release_id)
    statement = select(releases.c.id, releases.c.first_seen_ms, releases.c.last_seen_ms)
    seen_ms = {release_id: (first_ms, last_ms) for release_id, first_ms, last_ms in await connection.execute(statement)}
    return {
        key: ReleaseSeen(min(seen_ms[one][0] for one in found), max(seen_ms[one][1] for one in found))
        for key, found in active.items()
    }


async def release_names(connection: AsyncConnection, groups: Iterable[Members]) -> Mapping[int, str]:
    """Names by id of the releases that sites or their hotspots were first and last seen in."""
    wanted: set[int] = set()
    for members in groups:
        facts = members.facts
        wanted.update(facts.first_release_id, facts.last_release_id)
        wanted.update(facts.hotspot_first_release_id, facts.hotspot_last_release_id)
    statement = select(releases.c.id, releases.c.name).where(is_among(connection, releases.c.id, wanted))
    return dict(tuple(row) for row in (await connection.execute(statement)).all())


@dataclass(frozen=True, slots=True)
class RowBuilder:
    """Makes rows of one answer."""

    grouping: Grouping
    total_blocked_us: int
    release_names: Mapping[int, str]

    def row(self, key: Key, members: Members, processes: int, seen: ReleaseSeen | None = None) -> Hotspot:
        """`members` are the group's active sites; grouping by release, `seen` is when the releases were."""
        facts = members.facts
        packed, max_us, score = sum(members.packed), max(members.max_us), max(facts.weight)
        count, slow_count, blocked_us = counters_of(packed)
        parts = percentiles(bins_of(packed), max_us)
        fields: dict[str, Any] = {
            "service": common(facts.service),
            "environment": common(facts.environment),
            "severity_level": severity_level(score),
            "severity_score": score,
            "operations": [
                OperationTotals(name=name, count=calls, blocked_ms=milliseconds(cost_us))
                for name, calls, cost_us in members.by_operation()
            ],
            "count": count,
            "slow_count": slow_count,
            "blocked_ms": milliseconds(blocked_us),
            "share": round(blocked_us / self.total_blocked_us, 4) if self.total_blocked_us else 0.0,
            "max_ms": milliseconds(max_us),
            "p50_ms": parts.p50_ms,
            "p95_ms": parts.p95_ms,
            "p99_ms": parts.p99_ms,
            "processes": processes,
            "last_seen": to_rfc3339(max(facts.group_last_seen_ms) if seen is None else seen.last_seen_ms),
        }
        if self.grouping.name == "call_site":
            return Hotspot.model_construct(**fields, **self._of_call_site(members))
        return HotspotGroup.model_construct(**fields, **self._of_group(key, members, seen), key=self.grouping.text(key))

    def _of_call_site(self, members: Members) -> dict[str, Any]:
        facts, costliest = members.facts, members.costliest_first()[0]
        return {
            "id": to_hex(facts.hotspot_id[0]),
            "call_site": place(facts.path[0], members.costliest(facts.line), facts.function[0]),
            "entry_point": place(
                facts.entry_path[costliest], facts.entry_line[costliest], facts.entry_function[costliest]
            ),
            "reason": members.costliest(facts.reason),
            "status": facts.status[0],
            "first_seen": to_rfc3339(facts.hotspot_first_seen_ms[0]),
            "first_release": self.release_names.get(facts.hotspot_first_release_id[0]),
            "last_release": self.release_names.get(facts.hotspot_last_release_id[0]),
            "advice": facts.advice[costliest],
        }

    def _of_group(self, key: Key, members: Members, seen: ReleaseSeen | None) -> dict[str, Any]:
        facts = members.facts
        first_release: str | None = None
        last_release: str | None = None
        if seen is not None:
            first_seen_ms = seen.first_seen_ms
            first_release = last_release = self.grouping.text(key)
        else:
            first_seen_ms = min(facts.first_seen_ms)
            if common(facts.service) is not None:  # releases of different services are not of one history
                _, _, first = min(zip(facts.first_seen_ms, facts.site_id, facts.first_release_id, strict=True))
                _, _, last = max(zip(facts.last_seen_ms, facts.site_id, facts.last_release_id, strict=True))
                first_release, last_release = self.release_names.get(first), self.release_names.get(last)
        path, function = common(facts.path), common(facts.function)
        entry_point = None
        if common(facts.entry_path) is not None:
            entry_point = common(list(map(place, facts.entry_path, facts.entry_line, facts.entry_function)))
        return {
            "id": None,
            "call_site": None
            if path is None or function is None
            else place(path, members.costliest(facts.line), function),
            "entry_point": entry_point,
            "reason": common(facts.reason),
            "status": common(facts.status),
            "first_seen": to_rfc3339(first_seen_ms),
            "first_release": first_release,
            "last_release": last_release,
            "advice": common(facts.advice),
        }
