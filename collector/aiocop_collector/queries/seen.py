"""When groups were seen first and last, of all time, and in which releases: nothing of it is remembered."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.filters import is_among, is_no_one_of
from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.members import Members
from aiocop_collector.queries.scope import FEW_SITES, Scope
from aiocop_collector.store.schema import hotspots, releases, services, sites

if TYPE_CHECKING:
    from sqlalchemy.sql.selectable import FromClause

_FEW_OTHERS: Final = 1000
"""Up to here the sites that are left out are named, and not those that count: a quarter of the time, with few."""


class Seen(NamedTuple):
    """Of one group."""

    first_seen_ms: int
    last_seen_ms: int
    first_release: str | None = None
    last_release: str | None = None


async def seen_of(connection: AsyncConnection, scope: Scope, members: Mapping[Key, Members]) -> Mapping[Key, Seen]:
    """A hotspot has that of its own; other groups were seen when those of their sites were that were active."""
    if scope.grouping.by_release:
        return await _of_releases(connection, scope, members)
    if scope.grouping.name == "call_site":
        return await _of_hotspots(connection, members)
    return await _of_sites(connection, scope, members)


async def last_seen_ms_of(connection: AsyncConnection, scope: Scope) -> Mapping[Key, int]:
    """When each active group was last seen."""
    if scope.grouping.by_release:
        statement = select(releases.c.id, releases.c.last_seen_ms)
        seen_ms = dict(tuple(row) for row in (await connection.execute(statement)).all())
        last_seen_ms: dict[Key, int] = {}
        for release_id in scope.active_releases():
            key = scope.key_of_release(release_id)
            last_seen_ms[key] = max(seen_ms[release_id], last_seen_ms.get(key, 0))
        return last_seen_ms
    if scope.grouping.name == "call_site":
        statement = select(hotspots.c.id, hotspots.c.last_seen_ms)
        return {(hotspot_id,): at_ms for hotspot_id, at_ms in (await connection.execute(statement)).all()}
    if scope.grouping.has_few_groups:
        return {key: last_ms for key, (_, last_ms) in (await _by_group(connection, scope)).items()}
    seen_ms = dict(tuple(row) for row in (await connection.execute(select(sites.c.id, sites.c.last_seen_ms))).all())
    found: dict[Key, int] = {}
    for site_id in scope.active_sites():
        key, at_ms = scope.group_of[site_id], seen_ms[site_id]
        if at_ms > found.get(key, -1):
            found[key] = at_ms
    return found


async def release_names(connection: AsyncConnection, release_ids: Collection[int]) -> Mapping[int, str]:
    """By id."""
    statement = select(releases.c.id, releases.c.name).where(is_among(connection, releases.c.id, release_ids))
    return dict(tuple(row) for row in (await connection.execute(statement)).all())


async def _of_releases(connection: AsyncConnection, scope: Scope, keys: Collection[Key]) -> Mapping[Key, Seen]:
    active: dict[Key, list[int]] = defaultdict(list)
    for release_id in scope.active_releases():
        active[scope.key_of_release(release_id)].append(release_id)
    statement = select(releases.c.id, releases.c.first_seen_ms, releases.c.last_seen_ms)
    seen_ms = {release_id: (first_ms, last_ms) for release_id, first_ms, last_ms in await connection.execute(statement)}
    return {
        key: Seen(
            min(seen_ms[one][0] for one in active[key]), max(seen_ms[one][1] for one in active[key]), key[0], key[0]
        )
        for key in keys
    }


async def _of_hotspots(connection: AsyncConnection, members: Mapping[Key, Members]) -> Mapping[Key, Seen]:
    statement = select(
        hotspots.c.id,
        hotspots.c.first_seen_ms,
        hotspots.c.last_seen_ms,
        hotspots.c.first_release_id,
        hotspots.c.last_release_id,
    ).where(is_among(connection, hotspots.c.id, [hotspot_id for (hotspot_id,) in members]))
    rows = (await connection.execute(statement)).all()
    names = await release_names(connection, {release_id for row in rows for release_id in row[3:]})
    return {
        (row.id,): Seen(
            row.first_seen_ms, row.last_seen_ms, names.get(row.first_release_id), names.get(row.last_release_id)
        )
        for row in rows
    }


async def _of_sites(connection: AsyncConnection, scope: Scope, members: Mapping[Key, Members]) -> Mapping[Key, Seen]:
    # Releases of different services are not of one history: where there are several, there is nothing to tell of them.
    of_service = {key: one for key, one in members.items() if one.common(lambda facts: facts.service) is not None}
    rest = {key: one for key, one in members.items() if key not in of_service}
    found: dict[Key, Seen] = {}
    if sum(len(one.facts) for one in rest.values()) > FEW_SITES and scope.grouping.has_few_groups:
        seen_ms = await _by_group(connection, scope)
        found = {key: Seen(*seen_ms[key]) for key in rest}
        rest = {}
    rows = await _rows_of_sites(
        connection, [facts.site_id for one in (of_service | rest).values() for facts in one.facts]
    )
    releases_of: dict[Key, tuple[int, int]] = {}
    for key, one in (of_service | rest).items():
        seen = [rows[facts.site_id] for facts in one.facts]
        found[key] = Seen(min([row[1] for row in seen]), max([row[2] for row in seen]))
        if key in of_service:
            releases_of[key] = (min(seen, key=itemgetter(1, 0))[3], max(seen, key=itemgetter(2, 0))[4])
    names = await release_names(connection, {one for both in releases_of.values() for one in both})
    for key, (first_id, last_id) in releases_of.items():
        found[key] = found[key]._replace(first_release=names.get(first_id), last_release=names.get(last_id))
    return found


async def _rows_of_sites(connection: AsyncConnection, site_ids: Collection[int]) -> Mapping[int, Sequence[Any]]:
    """(id, first_seen_ms, last_seen_ms, first_release_id, last_release_id) of each."""
    if not site_ids:
        return {}
    statement = select(
        sites.c.id, sites.c.first_seen_ms, sites.c.last_seen_ms, sites.c.first_release_id, sites.c.last_release_id
    ).where(is_among(connection, sites.c.id, site_ids))
    return {row[0]: row for row in (await connection.execute(statement)).all()}


async def _by_group(connection: AsyncConnection, scope: Scope) -> Mapping[Key, tuple[int, int]]:
    """First and last of each active group, by its sites that were active: added up in the database."""
    columns = scope.grouping.columns
    source: FromClause = sites
    if scope.grouping.by_service:
        source = sites.join(services, services.c.id == sites.c.service_id)
    statement = (
        select(*columns, func.min(sites.c.first_seen_ms), func.max(sites.c.last_seen_ms))
        .select_from(source)
        .group_by(*columns)
    )
    active = scope.active_sites()
    others = await scope.memory.facts.sites_without(connection, scope.facts_version, active)
    if len(others) > _FEW_OTHERS:
        statement = statement.where(is_among(connection, sites.c.id, active))
    elif others:
        statement = statement.where(is_no_one_of(connection, sites.c.id, others))
    rows = (await connection.execute(statement)).all()
    return {tuple(row[: len(columns)]): (row[-2], row[-1]) for row in rows}
