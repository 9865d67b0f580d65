"""How many distinct processes saw a group, on the days of a window.

An agent has one service and one release for life, so what services saw is added up, and a release is a mask.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.scope import FEW_SITES, Scope
from aiocop_collector.store.buckets import among, read_presence, site_list
from aiocop_collector.store.driver import fetch
from aiocop_collector.store.schema import RESOLUTIONS
from aiocop_collector.store.spans import DAY_S, days_around
from aiocop_collector.store.totals import AgentBits, Presence

_FEW_SITES: Final = 150
"""Up to here the days that are in no span are read for those sites alone, else for all, to be remembered …"""

_FEW_DAYS: Final = 2
"""… if they are so few, as they are but for the time in which an older database is summed."""


async def processes_of(connection: AsyncConnection, scope: Scope, keys: Collection[Key]) -> Mapping[Key, int]:
    """By group; one that nobody saw may be missing."""
    wanted = scope.sites_of(keys)
    since_s, until_s = days_around(scope.window.since_s, scope.window.until_s)
    parts = scope.memory.spans.cover(
        since_s, until_s, RESOLUTIONS[-1], scope.listed, scope.now_s, scope.horizons, shortest_s=DAY_S
    )
    days_s = [start_s for buckets in parts.buckets for start_s in range(buckets.start_s, buckets.end_s, DAY_S)]
    seen: dict[tuple[Key, int], int] = defaultdict(int)
    cells, memory = scope.matching, scope.memory.spans
    by_site = len(wanted) <= (_FEW_SITES if len(days_s) <= _FEW_DAYS else FEW_SITES)
    if by_site:
        past = await memory.past_presence(connection, parts.spans, scope.listed)
        lately = Presence(past.bits)
        lately.add(await read_presence(connection, days_s, sorted(wanted)))
        found = [past, lately]
    else:
        past = await memory.presence(connection, parts.spans, days_s, scope.listed, scope.horizons)
        found = [past]
    if by_site or cells.groups is None:
        for presence in found:
            for site_id in wanted:
                bits = presence.seen_by.get(site_id)
                if bits is not None:
                    seen[cells.key_of(site_id), presence.service_of[site_id]] |= bits
    elif scope.release_of is None:
        counted, number_of = scope.memory.sums.processes(cells, past), cells.number_of
        return {key: counted.get(number_of[key], 0) for key in keys}
    else:
        for (group, service_id), bits in scope.memory.sums.seen_by(cells, past).items():
            seen[cells.keys[group], service_id] = bits
    if scope.release_of is None:
        return _counted(seen)
    return await _of_releases(connection, scope, seen, past.bits)


def _counted(seen: Mapping[tuple[Key, int], int]) -> Mapping[Key, int]:
    found: dict[Key, int] = defaultdict(int)
    for (key, _), bits in seen.items():
        found[key] += bits.bit_count()
    return found


async def _of_releases(
    connection: AsyncConnection, scope: Scope, seen: Mapping[tuple[Key, int], int], bits: AgentBits
) -> Mapping[Key, int]:
    """Of the agents in `seen`, those of releases that count; grouping by release, by release."""
    release_of, condition, parameters = scope.release_of or {}, "", []
    if scope.filters.release:
        condition, parameters = f"WHERE {among(connection, 'release_id')}", [site_list(connection, release_of)]
    masks: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for agent_id, service_id, release_id in await fetch(
        connection,
        f"SELECT id, service_id, release_id FROM agents {condition}",  # noqa: S608 see buckets.py
        parameters,
    ):
        number, name = bits.of(service_id).get(agent_id), release_of.get(release_id)
        if number is not None and name is not None:
            masks[service_id][name if scope.grouping.by_release else ""] |= 1 << number
    found: dict[Key, int] = defaultdict(int)
    for (key, service_id), seen_by in seen.items():
        for name, mask in masks[service_id].items():
            found[(name,) if scope.grouping.by_release else key] += (seen_by & mask).bit_count()
    return found
