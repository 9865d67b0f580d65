"""What a question reads: the totals of its window, and the sites that its filters leave, by the group they belong to.

Totals of spans are remembered (span_memory.py); what is not in a span yet is read row by row: the last minutes, as a
rule. Both are by site and release, so every filter, grouping and sort is worked out here from the same numbers.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, Select, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.columns import Columns
from aiocop_collector.queries.fact_memory import FactsVersion
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.buckets import read_bins, read_counters
from aiocop_collector.store.horizons import Horizons
from aiocop_collector.store.schema import BIN_COLUMNS, Resolution, hotspots, releases, services, sites
from aiocop_collector.store.spans import Cover, Listed, cover, days_around, load_listed
from aiocop_collector.store.totals import LANE_BITS, blocked_us_of, pack_bins

FEW_SITES: Final = 2_000
"""Up to here sites are looked up one by one in every bucket; above it, reading all sites of a bucket is cheaper."""

Summed = tuple[dict[Key, int], dict[Key, int]]
"""Packed counters and the longest in microseconds, by group."""

SummedSites = tuple[dict[int, int], dict[int, int]]
"""The same by site."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A question's window, filters and grouping, and what the store holds for them. Made by `open_scope`."""

    window: Window
    filters: Filters
    grouping: Grouping
    facts_version: FactsVersion
    group_of: Mapping[int, Key]
    """The group of each matching site; grouping by release, only that it matches. Shared: not to be changed."""
    release_of: Mapping[int, str] | None
    """The names of the releases that count, where the filters or the grouping speak of releases."""
    memory: Memory
    listed: Listed
    """The spans that may be read, of all days of the window."""
    parts: Cover
    """What makes up the window."""
    columns: Sequence[Columns]
    """What adds up to the window: of spans, which is shared and not to be changed, and of buckets, without bins. By
    release only where `release_of` is given."""
    now_s: float
    horizons: Horizons

    def by_group(self) -> Summed:
        """Of each group that was active: its packed counters, and its longest in microseconds."""
        if self.grouping.by_release:
            return self._named(*self.by_release())
        sums: dict[Key, int] = {}
        max_us: dict[Key, int] = {}
        group_of, release_of = self.group_of.get, self.release_of
        for columns in self.columns:
            for site_id, release_id, counters, longest_us in columns.entries():
                key = group_of(site_id)
                if key is None or (release_of is not None and release_id not in release_of):
                    continue
                sums[key] = sums.get(key, 0) + counters
                if longest_us > max_us.get(key, -1):
                    max_us[key] = longest_us
        return sums, max_us

    def by_release(self) -> tuple[dict[int, int], dict[int, int]]:
        """Of each release that counts and was active, by id. Only where `release_of` is given."""
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        group_of, release_of = self.group_of, self.release_of or {}
        for columns in self.columns:
            for site_id, release_id, counters, longest_us in columns.entries():
                if site_id in group_of and release_id in release_of:
                    sums[release_id] = sums.get(release_id, 0) + counters
                    if longest_us > max_us.get(release_id, -1):
                        max_us[release_id] = longest_us
        return sums, max_us

    def active_releases(self) -> set[int]:
        """Those of `by_release`."""
        group_of, release_of = self.group_of, self.release_of or {}
        return {
            release_id
            for columns in self.columns
            for site_id, release_id in zip(columns.site_ids, columns.releases(), strict=True)
            if site_id in group_of and release_id in release_of
        }

    def _named(self, sums_of: Mapping[int, int], longest_of: Mapping[int, int]) -> Summed:
        """Those of releases of one name together: each service has its own."""
        sums: dict[Key, int] = {}
        max_us: dict[Key, int] = {}
        for release_id, counters in sums_of.items():
            key = self.key_of_release(release_id)
            sums[key] = sums.get(key, 0) + counters
            max_us[key] = max(max_us.get(key, 0), longest_of[release_id])
        return sums, max_us

    def key_of_release(self, release_id: int) -> Key:
        """Grouping by release: the group of one that counts."""
        return ((self.release_of or {})[release_id],)

    def blocked_us(self) -> int:
        """Of everything that matches."""
        return sum(map(blocked_us_of, self.by_group()[0].values()))

    def by_site(self, site_ids: Collection[int] | None = None) -> SummedSites:
        """The same of each matching site that was active (of these, where given), in the releases that count."""
        wanted: Collection[int] = self.group_of if site_ids is None else site_ids
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        for columns in self.columns:
            for site_id, release_id, counters, longest_us in columns.entries_of(wanted):
                if self.release_of is None or release_id in self.release_of:
                    sums[site_id] = sums.get(site_id, 0) + counters
                    max_us[site_id] = max(max_us.get(site_id, 0), longest_us)
        return sums, max_us

    def by_site_of_groups(self, keys: Collection[Key]) -> Mapping[Key, SummedSites]:
        """Of each of these groups: `by_site` of those that are in it."""
        found: dict[Key, SummedSites] = {key: ({}, {}) for key in keys}
        wanted = self.sites_of(keys)
        if len(wanted) <= FEW_SITES and not self.grouping.by_release:
            sums, max_us = self.by_site(wanted)
            for site_id, counters in sums.items():
                of_group = found[self.group_of[site_id]]
                of_group[0][site_id], of_group[1][site_id] = counters, max_us[site_id]
            return found
        group_of, release_of, by_release = self.group_of.get, self.release_of, self.grouping.by_release
        of_release = {one: found.get((name,)) for one, name in (release_of or {}).items()}
        for columns in self.columns:
            for site_id, release_id, counters, longest_us in columns.entries():
                key = group_of(site_id)
                if key is None or (release_of is not None and release_id not in release_of):
                    continue
                of_this = of_release[release_id] if by_release else found.get(key)
                if of_this is not None:
                    sums, max_us = of_this
                    sums[site_id] = sums.get(site_id, 0) + counters
                    if longest_us > max_us.get(site_id, -1):
                        max_us[site_id] = longest_us
        return found

    async def bins_of_sites(self, connection: AsyncConnection, site_ids: Collection[int]) -> Mapping[int, int]:
        """The histogram of each of these sites, in the releases that count; for few sites."""
        found: dict[int, int] = defaultdict(int)
        release_of = self.release_of
        for columns in self.columns:
            for site_id in site_ids:
                for position in columns.positions_of(site_id):
                    if release_of is None or columns.release_at(position) in release_of:
                        found[site_id] += columns.bins_at(position)
        in_buckets = await read_bins(connection, self.parts.buckets, list(site_ids))
        for (site_id, release_id), bins in in_buckets.items():
            if release_of is None or release_id in release_of:
                found[site_id] += bins
        return found

    async def bins_of_groups(
        self, connection: AsyncConnection, keys: Collection[Key] | None = None
    ) -> Mapping[Key, int]:
        """The histogram of each group (of these, where given)."""
        found: dict[Key, int] = defaultdict(int)
        wanted = None if keys is None else self.sites_of(keys)
        if wanted is not None and len(wanted) <= FEW_SITES and not self.grouping.by_release:
            for site_id, bins in (await self.bins_of_sites(connection, wanted)).items():
                found[self.group_of[site_id]] += bins
            return found
        # By the bin they begin at: adding is quicker than moving each to where it belongs.
        beginning_at: list[dict[Any, int]] = [{} for _ in BIN_COLUMNS]
        group_of, release_of, by_release = self.group_of.get, self.release_of, self.grouping.by_release
        for columns in self.columns:
            for site_id, release_id, bins, first in columns.histograms():
                key = group_of(site_id)
                if key is None or (release_of is not None and release_id not in release_of):
                    continue
                unit = release_id if by_release else key
                of_unit = beginning_at[first]
                of_unit[unit] = of_unit.get(unit, 0) + bins
        for first, of_unit in enumerate(beginning_at):
            for unit, bins in of_unit.items():
                found[self.key_of_release(unit) if by_release else unit] += bins << LANE_BITS * first
        for key, bins in await self._bins_of_buckets(connection):
            found[key] += bins
        return found

    async def _bins_of_buckets(self, connection: AsyncConnection) -> list[tuple[Key, int]]:
        """Of the groups of what is in no span, some more than once. Where few groups have all sites, they are added up
        in the database: it would take longer to hand out 86 columns of each site."""
        if not self.grouping.has_few_groups:
            in_buckets = await read_bins(connection, self.parts.buckets, _few(self.filters, self.group_of))
            return [
                (self.group_of[site_id], bins)
                for (site_id, release_id), bins in in_buckets.items()
                if site_id in self.group_of and (self.release_of is None or release_id in self.release_of)
            ]
        found: list[tuple[Key, int]] = []
        columns = len(self.grouping.columns)
        for some in self.parts.buckets:
            bucket_s = some.resolution.histograms.c.bucket_s
            statement = _bins_by_group(some.resolution, self.grouping).where(
                bucket_s >= some.start_s, bucket_s < some.end_s, *self.filters.site_conditions()
            )
            condition = self.filters.release_condition(some.resolution.histograms.c.release_id)
            if condition is not None:
                statement = statement.where(condition)
            rows = (await connection.execute(statement)).all()
            found += [(tuple(row[:columns]), pack_bins(row[columns:])) for row in rows]
        return found

    def active_sites(self) -> Set[int]:
        """Those of `by_site`."""
        group_of, release_of = self.group_of, self.release_of
        return {
            site_id
            for columns in self.columns
            for site_id, release_id in zip(columns.site_ids, columns.releases(), strict=True)
            if site_id in group_of and (release_of is None or release_id in release_of)
        }

    def sites_of(self, keys: Collection[Key]) -> Set[int]:
        """All matching sites that may belong to these groups, whether active or not."""
        if self.grouping.by_release:
            return self.group_of.keys()
        wanted = set(keys)
        return {site_id for site_id, key in self.group_of.items() if key in wanted}


async def open_scope(
    connection: AsyncConnection,
    memory: Memory,
    window: Window,
    filters: Filters,
    grouping: Grouping,
    now_s: float,
    horizons: Horizons,
    *,
    by_release: bool = False,
) -> Scope:
    """The scope as this transaction sees the store; with `by_release`, releases can be told apart in it."""
    facts_version = await memory.facts.version(connection)
    group_of = await memory.facts.groups(connection, facts_version, filters, grouping)
    release_of = None
    if by_release or grouping.by_release or filters.release:
        release_of = await _releases(connection, filters)
    listed = await load_listed(connection, *days_around(window.since_s, window.until_s))
    parts = cover(window.since_s, window.until_s, window.resolution, listed, now_s, horizons)
    live = await read_counters(connection, parts.buckets, _few(filters, group_of))
    if release_of is None:
        live = live.of_any_release()
    spans = await memory.spans.totals(connection, parts.spans, listed, by_release=release_of is not None)
    return Scope(
        window,
        filters,
        grouping,
        facts_version,
        group_of,
        release_of,
        memory,
        listed,
        parts,
        [*spans, Columns.of(live, by_release=release_of is not None)],
        now_s,
        horizons,
    )


def _few(filters: Filters, group_of: Mapping[int, Key]) -> list[int] | None:
    return sorted(group_of) if filters.narrows_sites and len(group_of) <= FEW_SITES else None


async def _releases(connection: AsyncConnection, filters: Filters) -> Mapping[int, str]:
    statement = select(releases.c.id, releases.c.name)
    condition = filters.release_condition(releases.c.id)
    if condition is not None:
        statement = statement.where(condition)
    return dict(tuple(row) for row in await connection.execute(statement))


@lru_cache
def _bins_by_group(resolution: Resolution, grouping: Grouping) -> Select[Any]:
    """The key and the bins of each group; putting 86 columns together takes as long as adding them up."""
    histograms = resolution.histograms
    source = histograms.join(sites, sites.c.id == histograms.c.site_id).join(
        hotspots, hotspots.c.id == sites.c.hotspot_id
    )
    if grouping.by_service:
        source = source.join(services, services.c.id == sites.c.service_id)
    if grouping.by_release:
        source = source.join(releases, releases.c.id == histograms.c.release_id)
    sums = [cast(func.sum(histograms.c[name]), BigInteger) for name in BIN_COLUMNS]
    return select(*grouping.columns, *sums).select_from(source).group_by(*grouping.columns)
