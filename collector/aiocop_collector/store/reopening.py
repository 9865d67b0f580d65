"""When activity contradicts a decision: the writer reopens the hotspot in the transaction that counts the activity.

resolved    in release X, and a release first seen after X has it: regressed. Releases are ordered by first sight in
            their service and environment; where either side has no name, a process started after the decision counts as
            later. Processes of X itself and of older releases change nothing.
ignored     until a time, and that time is over; or while below N ms per hour, and the 60 minutes up to the activity
            (since the decision) sum up to more: open.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.changes import Changes
from aiocop_collector.store.decisions import COLLECTOR, Decided, load_decided, remember, store_decided
from aiocop_collector.store.fold import Fold
from aiocop_collector.store.schema import RESOLUTIONS, hotspots, releases, sites

_HOUR_S: Final = 3600
_MINUTE: Final = RESOLUTIONS[0]


@dataclass(frozen=True, slots=True)
class Process:
    """One agent of the transaction, as far as it matters here."""

    release_id: int
    started_at_ms: int


@dataclass(frozen=True, slots=True)
class Reopened:
    """A hotspot whose status the writer changed."""

    hotspot_id: int
    status: Literal["open", "regressed"]
    release: str | None
    """In which it came back; None where that is not why."""
    number: int
    """Of its entry in the history: tells one return from the next."""


@dataclass(frozen=True, slots=True)
class _Release:
    name: str
    first_seen_ms: int


async def reopen(
    connection: AsyncConnection,
    fold: Fold,
    processes: Mapping[str, Process],
    hotspot_of: Mapping[int, int],
    now_ms: int,
) -> list[Reopened]:
    """Call after the counters are written. The hotspots' rows are locked by the transaction's own writes.

    `processes` by agent id, `hotspot_of` by site.
    """
    decided = await load_decided(connection, {hotspot_of[site_id] for site_id in fold.sightings})
    if not decided:
        return []
    active: dict[int, set[Process]] = defaultdict(set)
    for agent_id, site_ids in fold.seen_by():
        for hotspot_id in {hotspot_of[site_id] for site_id in site_ids} & decided.keys():
            active[hotspot_id].add(processes[agent_id])
    found = []
    for hotspot_id in sorted(active):
        decision = decided[hotspot_id]
        if decision.resolved_at_ms is not None:
            release = await _later_release(connection, decision, active[hotspot_id])
            if release is not None:
                changes = {"status": ("resolved", "regressed"), "release": (None, release.name)}
                number = await _change(connection, hotspot_id, decision, "regressed", changes, now_ms)
                found.append(Reopened(hotspot_id, "regressed", release.name, number))
        elif decision.ignored_at_ms is not None:
            minutes = fold.minutes_of({site_id for site_id, owner in hotspot_of.items() if owner == hotspot_id})
            why = await _why_no_longer_ignored(connection, hotspot_id, decision, max(minutes), now_ms)
            if why:
                changes = {"status": ("ignored", "open"), **why}
                number = await _change(connection, hotspot_id, decision, "open", changes, now_ms)
                found.append(Reopened(hotspot_id, "open", None, number))
    return found


async def _later_release(
    connection: AsyncConnection, decision: Decided, processes: Iterable[Process]
) -> _Release | None:
    """The first release in which the hotspot came back, if one of the processes is of a later one."""
    wanted = {process.release_id for process in processes} | {decision.resolved_release_id}
    known = {
        row.id: _Release(row.name, row.first_seen_ms)
        for row in await connection.execute(select(releases).where(releases.c.id.in_(wanted)))
    }
    resolved_in = known.get(decision.resolved_release_id or 0)
    resolved_at_ms = decision.resolved_at_ms or 0
    later = []
    for process in processes:
        release = known[process.release_id]
        if resolved_in is not None and resolved_in.name and release.name:
            is_later = release.first_seen_ms > resolved_in.first_seen_ms
        else:
            is_later = process.started_at_ms > resolved_at_ms
        if is_later:
            later.append(release)
    return min(later, key=lambda release: release.first_seen_ms, default=None)


async def _why_no_longer_ignored(
    connection: AsyncConnection, hotspot_id: int, decision: Decided, latest_minute_s: int, now_ms: int
) -> dict[str, tuple[Any, Any]]:
    """The condition that is over, as a change; empty while the hotspot stays ignored."""
    until_ms, below = decision.ignored_until_ms, decision.ignored_below_ms_per_hour
    if until_ms is not None and now_ms >= until_ms:
        return {"until_ms": (until_ms, None)}
    if below is None:
        return {}
    decided_s = (decision.ignored_at_ms or 0) // 1000
    since_s = max(latest_minute_s - _HOUR_S + _MINUTE.seconds, decided_s - decided_s % _MINUTE.seconds)
    rollups = _MINUTE.rollups.c
    summed = select(func.coalesce(func.sum(rollups.blocked_us), 0)).where(
        rollups.bucket_s.in_(list(range(since_s, latest_minute_s + 1, _MINUTE.seconds))),
        rollups.site_id.in_(select(sites.c.id).where(sites.c.hotspot_id == hotspot_id)),
    )
    blocked_us = int((await connection.execute(summed)).scalar_one())
    return {"below_ms_per_hour": (below, None)} if blocked_us > below * 1000 else {}


async def _change(
    connection: AsyncConnection, hotspot_id: int, decision: Decided, status: str, changes: Changes, now_ms: int
) -> int:
    await connection.execute(update(hotspots).where(hotspots.c.id == hotspot_id).values(status=status))
    await store_decided(connection, hotspot_id, decision.without_verdict())
    return await remember(connection, hotspot_id, now_ms, COLLECTOR, changes)
