"""From the sites of a group to the row a person reads: the costliest speaks for it, what varies is null."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import Hotspot, HotspotGroup, OperationTotals, SeverityLevel
from aiocop_collector.notation import place, to_rfc3339
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.histograms import Bins, bins_by_group, percentiles
from aiocop_collector.queries.ranking import Page
from aiocop_collector.queries.scope import Scope, Sites
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import hotspots, releases, services, sites

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SiteTotals:
    """A site's counters over the window, and what it is."""

    count: int
    slow_count: int
    blocked_us: int
    max_us: int
    release: str | None
    """Set when grouping by release: the counters are of this release only."""
    release_first_seen_ms: int | None
    group_last_seen_ms: int | None
    """The largest of a group's sites is when the group was last seen; None outside of groups."""
    site_id: int
    operation: str
    reason: str
    weight: int
    line: int
    entry_path: str
    entry_line: int
    entry_function: str
    advice: str
    first_seen_ms: int
    last_seen_ms: int
    first_release_id: int
    last_release_id: int
    hotspot_id: int
    path: str
    function: str
    status: str
    hotspot_first_seen_ms: int
    hotspot_first_release_id: int
    hotspot_last_release_id: int
    service: str
    environment: str

    @property
    def entry_point(self) -> str:
        return place(self.entry_path, self.entry_line, self.entry_function)


@dataclass(frozen=True, slots=True)
class Headline:
    """A group's counters over the window."""

    key: Key
    count: int
    slow_count: int
    blocked_us: int
    max_us: int
    last_seen_ms: int


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
"""What `SiteTotals` holds after its counters, in its order."""


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
    few = await scope.few_of(connection, keys)
    members = await site_totals(connection, scope, keys, few)
    bins = page.bins if page.bins is not None else await bins_by_group(connection, scope, keys, few)
    width = len(scope.grouping.columns)
    processes = {tuple(row[:width]): row.processes for row in await connection.execute(scope.processes(keys, few))}
    builder = RowBuilder(scope.grouping, page.blocked_us, await release_names(connection, members.values()))
    return [
        builder.row(_headline(key, members[key]), members[key], bins.get(key), processes.get(key, 0)) for key in keys
    ]


def _headline(key: Key, members: Sequence[SiteTotals]) -> Headline:
    return Headline(
        key=key,
        count=sum(site.count for site in members),
        slow_count=sum(site.slow_count for site in members),
        blocked_us=sum(site.blocked_us for site in members),
        max_us=max(site.max_us for site in members),
        last_seen_ms=max(site.group_last_seen_ms or 0 for site in members),
    )


async def site_totals(
    connection: AsyncConnection, scope: Scope, keys: Sequence[Key] | None = None, few: Sites | None = None
) -> Mapping[Key, list[SiteTotals]]:
    """The sites of each group that were active in the window, costliest first."""
    totals = scope.totals(keys, few=few)
    by_release = scope.grouping.by_release
    source = scope.joined(totals)
    if not scope.grouping.by_service:
        source = source.join(services, services.c.id == sites.c.service_id)
    statement = (
        select(
            *scope.grouping.columns,
            totals.c["count"],
            totals.c.slow_count,
            totals.c.blocked_us,
            totals.c.max_us,
            releases.c.name if by_release else null(),
            releases.c.first_seen_ms if by_release else null(),
            scope.grouping.last_seen_ms,
            *SITE_COLUMNS,
        )
        .select_from(source)
        .where(*scope.group_conditions(keys))
        .order_by(totals.c.blocked_us.desc(), totals.c["count"].desc(), sites.c.id)
    )
    width = len(scope.grouping.columns)
    members: dict[Key, list[SiteTotals]] = defaultdict(list)
    for row in await connection.execute(statement):
        members[tuple(row[:width])].append(SiteTotals(*row[width:]))
    return members


async def release_names(connection: AsyncConnection, members: Iterable[Iterable[SiteTotals]]) -> Mapping[int, str]:
    """Names by id of the releases that sites or their hotspots were first and last seen in."""
    wanted = {
        release_id
        for group in members
        for site in group
        for release_id in (
            site.first_release_id,
            site.last_release_id,
            site.hotspot_first_release_id,
            site.hotspot_last_release_id,
        )
    }
    statement = select(releases.c.id, releases.c.name).where(releases.c.id.in_(sorted(wanted)))
    return {row.id: row.name for row in await connection.execute(statement)}


def operation_totals(members: Iterable[SiteTotals]) -> list[OperationTotals]:
    """Costliest first."""
    calls: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for site in members:
        calls[site.operation][0] += site.blocked_us
        calls[site.operation][1] += site.count
    ordered = sorted(calls.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
    return [
        OperationTotals(name=name, count=count, blocked_ms=milliseconds(blocked_us))
        for name, (blocked_us, count) in ordered
    ]


@dataclass(frozen=True, slots=True)
class RowBuilder:
    """Makes rows of one answer."""

    grouping: Grouping
    total_blocked_us: int
    release_names: Mapping[int, str]

    def row(self, headline: Headline, members: Sequence[SiteTotals], bins: Bins | None, processes: int) -> Hotspot:
        """`members` are the group's active sites, costliest first; there is at least one."""
        score = max(site.weight for site in members)
        parts = percentiles(bins, headline.max_us)
        fields: dict[str, Any] = {
            "service": _common(members, lambda site: site.service),
            "environment": _common(members, lambda site: site.environment),
            "severity_level": severity_level(score),
            "severity_score": score,
            "operations": operation_totals(members),
            "count": headline.count,
            "slow_count": headline.slow_count,
            "blocked_ms": milliseconds(headline.blocked_us),
            "share": round(headline.blocked_us / self.total_blocked_us, 4) if self.total_blocked_us else 0.0,
            "max_ms": milliseconds(headline.max_us),
            "p50_ms": parts.p50_ms,
            "p95_ms": parts.p95_ms,
            "p99_ms": parts.p99_ms,
            "processes": processes,
            "last_seen": to_rfc3339(headline.last_seen_ms),
        }
        if self.grouping.name == "call_site":
            return Hotspot.model_construct(**fields, **self._of_call_site(members))
        return HotspotGroup.model_construct(**fields, **self._of_group(members), key=self.grouping.text(headline.key))

    def _of_call_site(self, members: Sequence[SiteTotals]) -> dict[str, Any]:
        costliest = members[0]
        return {
            "id": to_hex(costliest.hotspot_id),
            "call_site": place(costliest.path, costliest_line(members), costliest.function),
            "entry_point": costliest.entry_point,
            "reason": _costliest(members, lambda site: site.reason),
            "status": costliest.status,
            "first_seen": to_rfc3339(costliest.hotspot_first_seen_ms),
            "first_release": self.release_names.get(costliest.hotspot_first_release_id),
            "last_release": self.release_names.get(costliest.hotspot_last_release_id),
            "advice": costliest.advice,
        }

    def _of_group(self, members: Sequence[SiteTotals]) -> dict[str, Any]:
        costliest = members[0]
        if self.grouping.by_release:
            first_seen_ms = min(site.release_first_seen_ms or 0 for site in members)
            first_release = last_release = costliest.release
        else:
            first = min(members, key=lambda site: (site.first_seen_ms, site.site_id))
            last = max(members, key=lambda site: (site.last_seen_ms, site.site_id))
            first_seen_ms = first.first_seen_ms
            # Releases of different services are not of one history.
            of_one_service = _common(members, lambda site: site.service) is not None
            first_release = self.release_names.get(first.first_release_id) if of_one_service else None
            last_release = self.release_names.get(last.last_release_id) if of_one_service else None
        one_function = _common(members, lambda site: (site.path, site.function)) is not None
        return {
            "id": None,
            "call_site": place(costliest.path, costliest_line(members), costliest.function) if one_function else None,
            "entry_point": _common(members, lambda site: site.entry_point),
            "reason": _common(members, lambda site: site.reason),
            "status": _common(members, lambda site: site.status),
            "first_seen": to_rfc3339(first_seen_ms),
            "first_release": first_release,
            "last_release": last_release,
            "advice": _common(members, lambda site: site.advice),
        }


def costliest_line(members: Sequence[SiteTotals]) -> int:
    """The line of the call site that cost most loop time, all its sites together."""
    return _costliest(members, lambda site: site.line)


def _costliest(members: Iterable[SiteTotals], value: Callable[[SiteTotals], T]) -> T:
    """The value whose sites have the most blocked time together, then the most calls, then the first."""
    cost: dict[T, tuple[int, int]] = {}
    for site in members:
        blocked_us, count = cost.get(value(site), (0, 0))
        cost[value(site)] = (blocked_us + site.blocked_us, count + site.count)
    return max(cost, key=lambda candidate: cost[candidate])


def _common(members: Iterable[SiteTotals], value: Callable[[SiteTotals], T]) -> T | None:
    """The value all of them share, or None."""
    values = {value(site) for site in members}
    return values.pop() if len(values) == 1 else None
