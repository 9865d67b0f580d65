"""`GET /hotspots/{id}`: one hotspot, all that is known of it, and what it cost in the window."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Row, func, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import EntryPointTotals, HotspotDetail, LineTotals, ReleaseTotals, SiteAnswer
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries import evidence
from aiocop_collector.queries.captures import captures_at
from aiocop_collector.queries.errors import UnknownHotspotError
from aiocop_collector.queries.filters import IGNORED, STATUSES, Filters
from aiocop_collector.queries.groupings import GROUPINGS
from aiocop_collector.queries.histograms import Bins, bins_by_site, percentiles
from aiocop_collector.queries.hotspots import window_answer
from aiocop_collector.queries.ranking import rank
from aiocop_collector.queries.rows import SITE_COLUMNS, Headline, RowBuilder, SiteTotals, milliseconds, release_names
from aiocop_collector.queries.scope import COUNTERS, Scope, exact_sum, open_scope
from aiocop_collector.queries.triage import find_hotspot, verdict_of
from aiocop_collector.queries.windows import Window, parse_window
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import captures, hotspots, releases, services, sites

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Site:
    """A site with its counters over the window (zeros where it was idle) and what only the detail shows."""

    totals: SiteTotals
    cause: str
    fingerprint: int
    frames: str


def scope_of(hotspot: int, window: Window) -> Scope:
    """Everything of one hotspot, whatever its status."""
    return Scope(window, Filters(hotspot_id=hotspot, status=STATUSES), GROUPINGS["call_site"])


async def ask_hotspot(
    connection: AsyncConnection, hotspot_id: str, since: str | None, until: str | None, now_s: float
) -> HotspotDetail:
    """Raises UnknownHotspotError, BadParameterError."""
    window = parse_window(since, until, now_s, await load_horizons(connection))
    hotspot = await find_hotspot(connection, hotspot_id)
    filters = Filters(hotspot_id=hotspot.id, status=STATUSES)
    scope = await open_scope(connection, window, filters, GROUPINGS["call_site"])
    known = await _sites(connection, scope)
    if not known:
        raise UnknownHotspotError(hotspot_id)
    bins = await bins_by_site(connection, scope)
    names = await release_names(connection, [[site.totals for site in known]])
    active = [site.totals for site in known if site.totals.count or site.totals.blocked_us]
    headline = Headline(
        key=(hotspot.id,),
        count=sum(site.count for site in active),
        slow_count=sum(site.slow_count for site in active),
        blocked_us=sum(site.blocked_us for site in active),
        max_us=max((site.max_us for site in active), default=0),
        last_seen_ms=hotspot.last_seen_ms,
    )
    slow_events = await evidence.slow_events_of(connection, hotspot.id, window)
    waiting = [event.waiting for event in slow_events if event.waiting is not None]
    processes = (await connection.execute(scope.processes([headline.key]))).first()
    builder = RowBuilder(scope.grouping, await _all_blocked_us(connection, window, hotspot, headline), names)
    row = builder.row(
        headline,
        active or [site.totals for site in known],
        _merged(bins.values()),
        processes.processes if processes is not None else 0,
    )
    return HotspotDetail(
        **(row.model_dump() | {"operations": row.operations if active else []}),
        window=window_answer(window),
        **await verdict_of(connection, hotspot),
        sites=[_site_answer(site, bins.get(site.totals.site_id), names) for site in known],
        lines=[LineTotals(line=line, **totals) for line, totals in _summed_by(active, lambda site: site.line)],
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
    totals = scope.totals()
    source = (
        sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id)
        .join(services, services.c.id == sites.c.service_id)
        .outerjoin(totals, totals.c.site_id == sites.c.id)
    )
    counters = [func.coalesce(totals.c[name], 0) for name in ("count", "slow_count", "blocked_us", "max_us")]
    statement = (
        select(*counters, null(), null(), null(), *SITE_COLUMNS, sites.c.cause, sites.c.fingerprint, sites.c.frames)
        .select_from(source)
        .where(*scope.filters.site_conditions())
        .order_by(counters[2].desc(), counters[0].desc(), sites.c.last_seen_ms.desc(), sites.c.id)
    )
    return [_Site(SiteTotals(*row[:-3]), *row[-3:]) for row in await connection.execute(statement)]


async def _all_blocked_us(connection: AsyncConnection, window: Window, hotspot: Row[Any], headline: Headline) -> int:
    """What the share is a part of: everything GET /hotspots shows by default, and this one in any case."""
    everything = await open_scope(connection, window, Filters(), GROUPINGS["call_site"])
    page = await rank(connection, everything, "blocked_time", "desc", 1, None)
    return page.blocked_us + (headline.blocked_us if hotspot.status == IGNORED else 0)


async def _releases(connection: AsyncConnection, scope: Scope) -> list[ReleaseTotals]:
    rollups = scope.facts("rollups", COUNTERS)
    blocked_us = exact_sum(rollups.c.blocked_us)
    statement = (
        select(
            releases.c.name,
            releases.c.first_seen_ms,
            releases.c.last_seen_ms,
            exact_sum(rollups.c["count"]),
            exact_sum(rollups.c.slow_count),
            blocked_us,
            func.max(rollups.c.max_us),
        )
        .select_from(rollups.join(releases, releases.c.id == rollups.c.release_id))
        .group_by(releases.c.id, releases.c.name, releases.c.first_seen_ms, releases.c.last_seen_ms)
        .order_by(blocked_us.desc(), releases.c.name)
    )
    return [
        ReleaseTotals(
            name=name,
            first_seen=to_rfc3339(first_seen_ms),
            last_seen=to_rfc3339(last_seen_ms),
            count=count,
            slow_count=slow_count,
            blocked_ms=milliseconds(blocked),
            max_ms=milliseconds(max_us),
        )
        for name, first_seen_ms, last_seen_ms, count, slow_count, blocked, max_us in await connection.execute(statement)
    ]


def _site_answer(site: _Site, bins: Bins | None, names: Mapping[int, str]) -> SiteAnswer:
    totals = site.totals
    parts = percentiles(bins, totals.max_us)
    return SiteAnswer.model_validate(
        {
            "id": to_hex(totals.site_id),
            "operation": totals.operation,
            "fingerprint": to_hex(site.fingerprint),
            "cause": site.cause,
            "reason": totals.reason,
            "severity_score": totals.weight,
            "line": totals.line,
            "entry_point": totals.entry_point,
            "advice": totals.advice,
            "frames": evidence.frames_from_json(site.frames),
            "count": totals.count,
            "slow_count": totals.slow_count,
            "blocked_ms": milliseconds(totals.blocked_us),
            "max_ms": milliseconds(totals.max_us),
            "p50_ms": parts.p50_ms,
            "p95_ms": parts.p95_ms,
            "p99_ms": parts.p99_ms,
            "first_seen": to_rfc3339(totals.first_seen_ms),
            "last_seen": to_rfc3339(totals.last_seen_ms),
            "first_release": names.get(totals.first_release_id),
            "last_release": names.get(totals.last_release_id),
        }
    )


def _summed_by(members: Sequence[SiteTotals], value: Callable[[SiteTotals], T]) -> list[tuple[T, dict[str, Any]]]:
    """The counters of the sites that share a value, costliest first."""
    by_value: dict[T, list[SiteTotals]] = defaultdict(list)
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


def _merged(histograms: Iterable[Bins]) -> Bins | None:
    return tuple(sum(counts) for counts in zip(*histograms, strict=True)) or None
