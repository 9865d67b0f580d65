"""`PATCH /hotspots/{id}`: what a person decided about a hotspot, and what was decided so far."""

from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Row, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.changes import history_of
from aiocop_collector.queries.errors import BadParameterError, UnknownHotspotError
from aiocop_collector.queries.windows import parse_deadline
from aiocop_collector.store import ids
from aiocop_collector.store.decisions import Decided, load_decided, remember, store_decided
from aiocop_collector.store.ruling import owner_by_rule
from aiocop_collector.store.schema import RESOLUTIONS, history, hotspots, releases, sites

_MAX_NAMES: Final = 5
_DAYS_OF_RELEASES: Final = 31
_DAY: Final = RESOLUTIONS[-1]


@dataclass(frozen=True, slots=True)
class Decision:
    """The fields to change; None leaves one as it is."""

    status: str | None = None
    release: str | None = None
    """With `resolved`: the last release that may still have it. None: the newest one the hotspot was seen in."""
    until: str | None = None
    """With `ignored`: a time, or an age from now."""
    below_ms_per_hour: int | None = None
    """With `ignored`: what it may cost in 60 minutes and stay ignored."""
    note: str | None = None
    owner: str | None = None


async def find_hotspot(connection: AsyncConnection, hotspot_id: str, *, lock: bool = False) -> Row[Any]:
    """The row of `hotspots`. Raises UnknownHotspotError, for a text that is no id too."""
    try:
        wanted = ids.from_hex(hotspot_id)
    except ValueError as error:
        raise UnknownHotspotError(hotspot_id) from error
    query = select(hotspots).where(hotspots.c.id == wanted)
    found = (await connection.execute(query.with_for_update() if lock else query)).first()
    if found is None:
        raise UnknownHotspotError(hotspot_id)
    return found


async def decide(connection: AsyncConnection, hotspot_id: str, decision: Decision, who: str, now_s: float) -> None:
    """Within the caller's transaction. Raises UnknownHotspotError, BadParameterError."""
    hotspot = await find_hotspot(connection, hotspot_id, lock=True)
    before = (await load_decided(connection, [hotspot.id])).get(hotspot.id, Decided())
    after = before
    _check_company(decision)
    if decision.status is not None:
        after = await _verdict(connection, hotspot, before, decision, now_s)
    if decision.owner is not None:
        after = replace(after, owner=decision.owner)
    status = decision.status or hotspot.status
    note = hotspot.note if decision.note is None else decision.note
    names = await _release_names(connection, {before.resolved_release_id, after.resolved_release_id})
    old = _shown(hotspot.status, hotspot.note, before, names)
    new = _shown(status, note, after, names)
    changes = {field: (old[field], new[field]) for field in new if old[field] != new[field]}
    if not changes:
        return
    await connection.execute(update(hotspots).where(hotspots.c.id == hotspot.id).values(status=status, note=note))
    await store_decided(connection, hotspot.id, after)
    await remember(connection, hotspot.id, int(now_s * 1000), who, changes)


def _check_company(decision: Decision) -> None:
    for parameter, value, status in (
        ("release", decision.release, "resolved"),
        ("until", decision.until, "ignored"),
        ("below_ms_per_hour", decision.below_ms_per_hour, "ignored"),
    ):
        if value is not None and decision.status != status:
            raise BadParameterError(parameter, f'it goes with "status": "{status}" only')


async def _verdict(
    connection: AsyncConnection, hotspot: Row[Any], before: Decided, decision: Decision, now_s: float
) -> Decided:
    now_ms = int(now_s * 1000)
    after = before.without_verdict()
    if decision.status == "resolved":
        if decision.release is not None:
            release_id = await _known_release(connection, hotspot.service_id, decision.release)
        elif hotspot.status == "resolved" and before.resolved_release_id is not None:
            return before  # said twice: the first time stands
        else:
            release_id = await _newest_release(connection, hotspot)
        return replace(after, resolved_release_id=release_id, resolved_at_ms=now_ms)
    if decision.status == "ignored":
        until_ms = None if decision.until is None else parse_deadline("until", decision.until, now_s)
        return replace(
            after,
            ignored_at_ms=now_ms,
            ignored_until_ms=until_ms,
            ignored_below_ms_per_hour=decision.below_ms_per_hour,
        )
    return after


async def _newest_release(connection: AsyncConnection, hotspot: Row[Any]) -> int:
    """Of those the hotspot was seen in, lately: the one first seen last. While a release is rolled out, the last one to
    report is often the older one."""
    days = _DAY.rollups.c
    last_day_s = hotspot.last_seen_ms // 1000 // _DAY.seconds * _DAY.seconds
    seen_in = select(days.release_id).where(
        days.bucket_s.in_([last_day_s - age * _DAY.seconds for age in range(_DAYS_OF_RELEASES)]),
        days.site_id.in_(select(sites.c.id).where(sites.c.hotspot_id == hotspot.id)),
    )
    newest = (
        select(releases.c.id)
        .where(or_(releases.c.id.in_(seen_in), releases.c.id == hotspot.last_release_id))
        .order_by(releases.c.first_seen_ms.desc())
        .limit(1)
    )
    return (await connection.execute(newest)).scalar() or int(hotspot.last_release_id)


async def _known_release(connection: AsyncConnection, service_id: int, name: str) -> int:
    """Its id. Raises BadParameterError for one that was never seen in the service: nothing would ever be later."""
    query = select(releases.c.id, releases.c.name).where(releases.c.service_id == service_id)
    rows = (await connection.execute(query.order_by(releases.c.first_seen_ms.desc()))).all()
    for row in rows:
        if row.name == name:
            return int(row.id)
    latest = ", ".join(row.name or '""' for row in rows[:_MAX_NAMES])
    raise BadParameterError("release", f"{name!r:.60} was never seen in this service; the latest are {latest}")


async def _release_names(connection: AsyncConnection, release_ids: set[int | None]) -> dict[int | None, str]:
    query = select(releases.c.id, releases.c.name).where(releases.c.id.in_([one for one in release_ids if one]))
    return {row.id: row.name for row in await connection.execute(query)}


def _shown(status: str, note: str, decided: Decided, names: dict[int | None, str]) -> dict[str, Any]:
    """The fields of a decision as the history keeps them."""
    return {
        "status": status,
        "resolved_in_release": names.get(decided.resolved_release_id),
        "ignored_until": None if decided.ignored_until_ms is None else to_rfc3339(decided.ignored_until_ms),
        "ignored_below_ms_per_hour": decided.ignored_below_ms_per_hour,
        "note": note,
        "owner": decided.owner,
    }


async def verdict_of(connection: AsyncConnection, hotspot: Row[Any]) -> dict[str, Any]:
    """What was decided about a hotspot, as fields of its detail."""
    decided = (await load_decided(connection, [hotspot.id])).get(hotspot.id, Decided())
    names = await _release_names(connection, {decided.resolved_release_id})
    shown = _shown(hotspot.status, hotspot.note, decided, names)
    del shown["status"]  # the row has it
    if not decided.owner:
        shown["owner"] = (await owner_by_rule(connection, [hotspot.id])).get(hotspot.id, "")
    return {**shown, "history": await history_of(connection, history, hotspot.id)}
