"""`GET /hotspots/{id}`: one hotspot, all that is known of it, and what it cost in the window."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import EntryPointTotals, HotspotDetail, LineTotals, ReleaseTotals, SiteAnswer
from aiocop_collector.answers.words import STATUSES
from aiocop_collector.notation import place, to_rfc3339
from aiocop_collector.queries import evidence
from aiocop_collector.queries.captures import captures_at
from aiocop_collector.queries.errors import UnknownHotspotError
from aiocop_collector.queries.fact_memory import FACT_COLUMNS, SITES_IN_FULL, SiteFacts
from aiocop_collector.queries.filters import IGNORED, Filters, is_among
from aiocop_collector.queries.groupings import GROUPINGS
from aiocop_collector.queries.histograms import percentiles
from aiocop_collector.queries.hotspots import window_answer
from aiocop_collector.queries.members import GroupCost, Members
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.processes import processes_of
from aiocop_collector.queries.rows import RowBuilder, milliseconds
from aiocop_collector.queries.scope import Scope, open_scope
from aiocop_collector.queries.seen import seen_of
from aiocop_collector.queries.triage import find_hotspot, verdict_of
from aiocop_collector.queries.windows import parse_window
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import captures, releases, sites
from aiocop_collector.store.totals import counters_of, unpack_bins

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Site:
    """A site with its counters over the window (zeros where it was idle) and what only the detail shows."""

    facts: SiteFacts
    packed: int
    bins: int
    count: int
    slow_count: int
    blocked_us: int
    max_us: int
    cause: str
    fingerprint: int
    frames: str
    first_seen_ms: int
    last_seen_ms: int
    first_release_id: int
    last_release_id: int

    @property
    def entry_point(self) -> str:
        return place(self.facts.entry_path, self.facts.entry_line, self.facts.entry_function)


async def ask_hotspot(
    connection: AsyncConnection,
    memory: Memory,
    hotspot_id: str,
    since: str | None,
    until: str | None,
    now_s: float,
) -> HotspotDetail:
    """Raises UnknownHotspotError, BadParameterError."""
    horizons = await load_horizons(connection)
    window = parse_window(since, until, now_s, horizons)
    hotspot = await find_hotspot(connection, hotspot_id)
    filters = Filters(hotspot_id=hotspot.id, status=STATUSES)
    grouping = GROUPINGS["call_site"]
    scope = await open_scope(connection, memory, window, filters, grouping, now_s, horizons, by_release=True)
    known = await _sites(connection, scope)
    if not known:
        raise UnknownHotspotError(hotspot_id)
    active = [site for site in known if site.count or site.blocked_us]
    of_row = active or known
    shown = Members([site.facts for site in of_row], [site.packed for site in of_row], [site.max_us for site in of_row])
    key = (hotspot.id,)
    seen = await seen_of(connection, scope, {key: GroupCost.of(shown)})
    releases_seen = {one for site in known for one in (site.first_release_id, site.last_release_id)}
    names = await memory.facts.release_names(connection, releases_seen)
    # What the share is a part of: everything GET /hotspots shows by default, and this one in any case.
    everything = await open_scope(connection, memory, window, Filters(), grouping, now_s, horizons)
    all_blocked_us = everything.blocked_us()
    if hotspot.status == IGNORED:
        all_blocked_us += sum(site.blocked_us for site in active)
    processes = await processes_of(connection, scope, [key])
    row = RowBuilder(grouping, all_blocked_us).row(
        key, GroupCost.of(shown), sum(site.bins for site in of_row), seen[key], processes.get(key, 0)
    )
    slow_events = await evidence.slow_events_of(connection, hotspot.id, window)
    waiting = [event.waiting for event in slow_events if event.waiting is not None]
    return HotspotDetail(
        **(row.model_dump() | {"operations": row.operations if active else []}),
        window=window_answer(window),
        **await verdict_of(connection, hotspot),
        sites=[_site_answer(site, names) for site in known],
        lines=[LineTotals(line=line, **totals) for line, totals in _summed_by(active, lambda site: site.facts.line)],
        entry_points=[
            EntryPointTotals(entry_point=entry_point, **totals)
            for entry_point, totals in _summed_by(active, lambda site: site.entry_point)
        ],
        releases=await _releases(connection, scope),
        traces=await evidence.traces_of(connection, hotspot.id),
        agents=await evidence.agents_of(connection, hotspot.id, window),
        slow_events=slow_events,
        waiting_max=max(waiting, default=None),
        waiting_mean=round(sum(waiting) / len(waiting), 3) if waiting else None,
        captures=await captures_at(connection, captures.c.hotspot_id == hotspot.id, int(now_s * 1000)),
    )


async def _sites(connection: AsyncConnection, scope: Scope) -> list[_Site]:
    """All there are, costliest first; then the last seen first."""
    sums, max_us = scope.by_site()
    bins = await scope.bins_of_sites(connection, scope.matching.cell_of)
    statement = (
        select(
            *FACT_COLUMNS,
            sites.c.cause,
            sites.c.fingerprint,
            sites.c.frames,
            sites.c.first_seen_ms,
            sites.c.last_seen_ms,
            sites.c.first_release_id,
            sites.c.last_release_id,
        )
        .select_from(SITES_IN_FULL)
        .where(*scope.filters.site_conditions())
    )
    known = []
    for row in await connection.execute(statement):
        facts, others = SiteFacts(*row[: len(FACT_COLUMNS)]), row[len(FACT_COLUMNS) :]
        packed = sums.get(facts.site_id, 0)
        known.append(
            _Site(
                facts,
                packed,
                bins.get(facts.site_id, 0),
                *counters_of(packed),
                max_us.get(facts.site_id, 0),
                *others,
            )
        )
    known.sort(key=lambda site: (-site.blocked_us, -site.count, -site.last_seen_ms, site.facts.site_id))
    return known


async def _releases(connection: AsyncConnection, scope: Scope) -> list[ReleaseTotals]:
    """Costliest first."""
    sums, max_us = scope.by_release()
    statement = select(releases.c.id, releases.c.name, releases.c.first_seen_ms, releases.c.last_seen_ms)
    rows = await connection.execute(statement.where(is_among(connection, releases.c.id, sums)))
    found = []
    for release_id, name, first_seen_ms, last_seen_ms in rows:
        count, slow_count, blocked_us = counters_of(sums[release_id])
        found.append(
            ReleaseTotals(
                name=name,
                first_seen=to_rfc3339(first_seen_ms),
                last_seen=to_rfc3339(last_seen_ms),
                count=count,
                slow_count=slow_count,
                blocked_ms=milliseconds(blocked_us),
                max_ms=milliseconds(max_us[release_id]),
            )
        )
    return sorted(found, key=lambda release: (-release.blocked_ms, release.name))


def _site_answer(site: _Site, names: Mapping[int, str]) -> SiteAnswer:
    facts = site.facts
    parts = percentiles(unpack_bins(site.bins), site.max_us)
    return SiteAnswer.model_validate(
        {
            "id": to_hex(facts.site_id),
            "operation": facts.operation,
            "fingerprint": to_hex(site.fingerprint),
            "cause": site.cause,
            "reason": facts.reason,
            "severity_score": facts.weight,
            "line": facts.line,
            "entry_point": site.entry_point,
            "advice": facts.advice,
            "frames": evidence.frames_from_json(site.frames),
            "count": site.count,
            "slow_count": site.slow_count,
            "blocked_ms": milliseconds(site.blocked_us),
            "max_ms": milliseconds(site.max_us),
            "p50_ms": parts.p50_ms,
            "p95_ms": parts.p95_ms,
            "p99_ms": parts.p99_ms,
            "first_seen": to_rfc3339(site.first_seen_ms),
            "last_seen": to_rfc3339(site.last_seen_ms),
            "first_release": names.get(site.first_release_id),
            "last_release": names.get(site.last_release_id),
        }
    )


def _summed_by(members: Sequence[_Site], value: Callable[[_Site], T]) -> list[tuple[T, dict[str, Any]]]:
    """The counters of the sites that share a value, costliest first."""
    by_value: dict[T, list[_Site]] = defaultdict(list)
    for site in members:
        by_value[value(site)].append(site)
    ordered = sorted(by_value.items(), key=lambda item: -sum(site.blocked_us for site in item[1]))
    return [
        (
            shared,
            {
                "count": sum(site.count for site in group),
                "slow_count": sum(site.slow_count for site in group),
                "blocked_ms": milliseconds(sum(site.blocked_us for site in group)),
                "max_ms": milliseconds(max(site.max_us for site in group)),
            },
        )
        for shared, group in ordered
    ]
