"""When groups were seen first and last, of all time, and in which releases: nothing of it is remembered."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.members import GroupCost
from aiocop_collector.queries.scope import Scope
from aiocop_collector.store.buckets import among, not_among, site_list
from aiocop_collector.store.driver import fetch

_FEW_OTHERS: Final = 1000
"""Up to here the sites that are left out are named, and not those that count: a quarter of the time, with few."""

_NEVER_MS: Final = -1
_SEEN_SITES: Final = "SELECT id, last_seen_ms FROM sites"


class Seen(NamedTuple):
    """Of one group."""

    first_seen_ms: int
    last_seen_ms: int
    first_release: str | None = None
    last_release: str | None = None


async def seen_of(connection: AsyncConnection, scope: Scope, costs: Mapping[Key, GroupCost]) -> Mapping[Key, Seen]:
    """A hotspot has that of its own; other groups were seen when those of their sites were that were active."""
    if scope.grouping.by_release:
        return await _of_releases(connection, scope, costs)
    if scope.grouping.name == "call_site":
        return await _of_hotspots(connection, scope, costs)
    return await _of_sites(connection, scope, costs)


async def last_seen_ms_of(connection: AsyncConnection, scope: Scope, *, latest: int | None = None) -> Sequence[int]:
    """When each group was last seen; meaningless where it was not active. With `latest`, that may be less than it was
    for all but so many of the latest."""
    found: dict[Key, int] = {}
    if scope.grouping.by_release:
        seen_ms = dict(await fetch(connection, "SELECT id, last_seen_ms FROM releases"))
        for release_id in scope.active_releases:
            key = scope.key_of_release(release_id)
            found[key] = max(seen_ms[release_id], found.get(key, 0))
    elif scope.grouping.name == "call_site":
        rows = await fetch(connection, "SELECT id, last_seen_ms FROM hotspots")
        found = {(hotspot_id,): at_ms for hotspot_id, at_ms in rows}
    elif scope.cells.groups is not None and not scope.grouping.by_service:  # rows of several services show that, too
        found = {key: last_ms for key, (_, last_ms) in (await _by_group(connection, scope)).items()}
    else:
        return await _last_seen_ms_by_site(connection, scope, latest)
    return [found.get(key, _NEVER_MS) for key in scope.cells.keys]


async def _last_seen_ms_by_site(connection: AsyncConnection, scope: Scope, latest: int | None) -> Sequence[int]:
    if latest is not None and scope.live_buckets:
        # Mostly those of the last minutes are enough: a quarter of a fleet's sites to hand out and to pass by.
        since_ms = min(some.start_s for some in scope.live_buckets) * 1000
        found = _latest_ms(scope, await fetch(connection, f"{_SEEN_SITES} WHERE last_seen_ms >= {since_ms:d}"))
        if len(found) - found.count(_NEVER_MS) >= latest:
            return found
    return _latest_ms(scope, await fetch(connection, _SEEN_SITES))


def _latest_ms(scope: Scope, seen: Sequence[Any]) -> list[int]:
    # Numbers of groups, not their keys, which take three times as long.
    cell_of, groups, idle = scope.cells.cell_of, scope.cells.groups, scope.idle_sites
    latest_ms = [_NEVER_MS] * len(scope.cells.keys)
    for site_id, at_ms in seen:
        if site_id in cell_of and site_id not in idle:
            group = cell_of[site_id] if groups is None else groups[cell_of[site_id]]
            if at_ms > latest_ms[group]:
                latest_ms[group] = at_ms
    return latest_ms


async def _of_releases(connection: AsyncConnection, scope: Scope, keys: Collection[Key]) -> Mapping[Key, Seen]:
    active: dict[Key, list[int]] = defaultdict(list)
    for release_id in scope.active_releases:
        active[scope.key_of_release(release_id)].append(release_id)
    rows = await fetch(connection, "SELECT id, first_seen_ms, last_seen_ms FROM releases")
    seen_ms = {release_id: (first_ms, last_ms) for release_id, first_ms, last_ms in rows}
    return {
        key: Seen(
            min(seen_ms[one][0] for one in active[key]), max(seen_ms[one][1] for one in active[key]), key[0], key[0]
        )
        for key in keys
    }


async def _of_hotspots(connection: AsyncConnection, scope: Scope, keys: Collection[Key]) -> Mapping[Key, Seen]:
    rows = await _rows(connection, "hotspots", [hotspot_id for (hotspot_id,) in keys])
    names = await scope.memory.facts.release_names(connection, {release_id for row in rows for release_id in row[3:]})
    return {
        (hotspot_id,): Seen(first_ms, last_ms, names.get(first_id), names.get(last_id))
        for hotspot_id, first_ms, last_ms, first_id, last_id in rows
    }


async def _of_sites(connection: AsyncConnection, scope: Scope, costs: Mapping[Key, GroupCost]) -> Mapping[Key, Seen]:
    # Releases of different services are not of one history: where there are several, there is nothing to tell of them.
    of_service = [key for key, cost in costs.items() if cost.shared.service is not None]
    found: dict[Key, Seen] = {}
    by_site = of_service
    if scope.cells.groups is None:
        by_site = list(costs)
    elif len(of_service) < len(costs):
        found = {key: Seen(*seen) for key, seen in (await _by_group(connection, scope)).items() if key in costs}
    active: dict[Key, Collection[int]] = {
        key: [facts.site_id for facts in cost.members.facts] for key, cost in costs.items() if cost.members is not None
    }
    rest = [key for key in by_site if key not in active]
    if rest:
        active.update(scope.active_sites_of_groups(rest))
    wanted = [site_id for key in by_site for site_id in active[key]]
    rows = {row[0]: row for row in await _rows(connection, "sites", wanted)} if wanted else {}
    releases_of: dict[Key, tuple[int, int]] = {}
    for key in by_site:
        seen = [rows[site_id] for site_id in active[key]]
        found[key] = Seen(min([row[1] for row in seen]), max([row[2] for row in seen]))
        if costs[key].shared.service is not None:
            releases_of[key] = (min(seen, key=itemgetter(1, 0))[3], max(seen, key=itemgetter(2, 0))[4])
    names = await scope.memory.facts.release_names(connection, {one for both in releases_of.values() for one in both})
    for key, (first_id, last_id) in releases_of.items():
        found[key] = found[key]._replace(first_release=names.get(first_id), last_release=names.get(last_id))
    return found


async def _rows(connection: AsyncConnection, table: str, ids: Collection[int]) -> Sequence[Any]:
    """(id, first_seen_ms, last_seen_ms, first_release_id, last_release_id) of these sites or hotspots."""
    return await fetch(
        connection,
        f"SELECT id, first_seen_ms, last_seen_ms, first_release_id, last_release_id FROM {table} "  # noqa: S608 see buckets.py
        f"WHERE {among(connection, 'id')}",
        (site_list(connection, ids),),
    )


async def _by_group(connection: AsyncConnection, scope: Scope) -> Mapping[Key, tuple[int, int]]:
    """First and last of each active group, by its sites that were active: added up in the database, and once."""
    if scope.seen_by_group:
        return scope.seen_by_group
    grouping = scope.grouping
    condition, parameters = "", []
    every = await scope.memory.facts.every_site(connection, scope.facts_version)
    matching, idle = scope.matching.cell_of, scope.idle_sites
    if len(every) - len(matching) + len(idle) > _FEW_OTHERS:
        condition = f"WHERE {among(connection, 'sites.id')}"
        parameters = [site_list(connection, scope.active_sites())]
    elif len(every) > len(matching) or idle:
        condition = f"WHERE {not_among(connection, 'sites.id')}"
        parameters = [site_list(connection, (every - matching.keys()) | idle)]
    rows = await fetch(
        connection,
        f"SELECT {grouping.key_text}, min(sites.first_seen_ms), max(sites.last_seen_ms) "  # noqa: S608 no value
        f"FROM sites {grouping.joins} {condition} GROUP BY {grouping.key_text}",
        parameters,
    )
    scope.seen_by_group.update({tuple(row[:-2]): (row[-2], row[-1]) for row in rows})
    return scope.seen_by_group
