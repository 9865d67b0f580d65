"""What a question reads: the totals of its window, and the sites that its filters leave, by the group they belong to.

Totals of spans are remembered (span_memory.py); what is not in a span yet is read row by row: the last minutes, as a
rule. Both are by site and release, so every filter, grouping and sort is worked out here from the same numbers.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.fact_memory import FactsVersion
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.buckets import read_bins, read_counters
from aiocop_collector.store.horizons import Horizons
from aiocop_collector.store.schema import releases
from aiocop_collector.store.spans import Cover, Listed, cover, days_around, load_listed
from aiocop_collector.store.totals import ANY_RELEASE, Totals, blocked_us_of

FEW_SITES: Final = 2_000
"""Up to here sites are looked up one by one in every bucket; above it, reading all sites of a bucket is cheaper."""

Summed = tuple[dict[Key, int], dict[Key, int]]
"""Packed sums and the longest in microseconds, by group."""

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
    spans: Sequence[Totals]
    """Of the parts that are spans, to be added up; by release only where `release_of` is given. Shared: not to be
    changed."""
    live: Totals
    """Of those that are not; bins are missing until `read_bins`."""
    now_s: float
    horizons: Horizons

    @property
    def totals(self) -> Sequence[Totals]:
        """What adds up to the window."""
        return (*self.spans, self.live)

    def by_group(self) -> Summed:
        """Of each group that was active: its packed sum, and its longest in microseconds."""
        if self.grouping.by_release:
            return self._named(*self.by_release())
        sums: dict[Key, int] = {}
        max_us: dict[Key, int] = {}
        group_of, release_of = self.group_of.get, self.release_of
        for totals in self.totals:
            for (site_id, release_id), packed, longest_us in totals.entries():
                key = group_of(site_id)
                if key is None or (release_of is not None and release_id not in release_of):
                    continue
                sums[key] = sums.get(key, 0) + packed
                if longest_us > max_us.get(key, -1):
                    max_us[key] = longest_us
        return sums, max_us

    def by_release(self) -> tuple[dict[int, int], dict[int, int]]:
        """Of each release that counts and was active, by id. Only where `release_of` is given."""
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        group_of, release_of = self.group_of, self.release_of or {}
        for totals in self.totals:
            for (site_id, release_id), packed, longest_us in totals.entries():
                if site_id in group_of and release_id in release_of:
                    sums[release_id] = sums.get(release_id, 0) + packed
                    if longest_us > max_us.get(release_id, -1):
                        max_us[release_id] = longest_us
        return sums, max_us

    def _named(self, sums_of: Mapping[int, int], longest_of: Mapping[int, int]) -> Summed:
        """Those of releases of one name together: each service has its own."""
        sums: dict[Key, int] = {}
        max_us: dict[Key, int] = {}
        for release_id, packed in sums_of.items():
            key = self.key_of_release(release_id)
            sums[key] = sums.get(key, 0) + packed
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
        if self.release_of is None and len(wanted) <= FEW_SITES:
            return self._looked_up(wanted)
        wanted = wanted if isinstance(wanted, Mapping) else set(wanted)
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        release_of = self.release_of
        for totals in self.totals:
            for (site_id, release_id), packed, longest_us in totals.entries():
                if site_id in wanted and (release_of is None or release_id in release_of):
                    sums[site_id] = sums.get(site_id, 0) + packed
                    if longest_us > max_us.get(site_id, -1):
                        max_us[site_id] = longest_us
        return sums, max_us

    def _looked_up(self, site_ids: Iterable[int]) -> SummedSites:
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        for totals in self.totals:
            sums_of, longest_of = totals.sums, totals.max_us
            for site_id in site_ids:
                site = (site_id, ANY_RELEASE)
                packed = sums_of.get(site)
                if packed is not None:
                    sums[site_id] = sums.get(site_id, 0) + packed
                    max_us[site_id] = max(max_us.get(site_id, 0), longest_of[site])
        return sums, max_us

    def by_site_of_groups(self, keys: Collection[Key]) -> Mapping[Key, SummedSites]:
        """Of each of these groups: `by_site` of those that are in it."""
        found: dict[Key, SummedSites] = {key: ({}, {}) for key in keys}
        if not self.grouping.by_release:
            sums, max_us = self.by_site(self.sites_of(keys))
            for site_id, packed in sums.items():
                of_group = found[self.group_of[site_id]]
                of_group[0][site_id], of_group[1][site_id] = packed, max_us[site_id]
            return found
        group_of = self.group_of
        group_of_release = {one: found[(name,)] for one, name in (self.release_of or {}).items() if (name,) in found}
        for totals in self.totals:
            for (site_id, release_id), packed, longest_us in totals.entries():
                of_release = group_of_release.get(release_id)
                if of_release is not None and site_id in group_of:
                    sums, max_us = of_release
                    sums[site_id] = sums.get(site_id, 0) + packed
                    if longest_us > max_us.get(site_id, -1):
                        max_us[site_id] = longest_us
        return found

    def active_sites(self) -> Iterator[tuple[Key, int]]:
        """The groups that were active, each with each of its sites that was; some more than once. Not by release."""
        group_of, release_of = self.group_of.get, self.release_of
        for totals in self.totals:
            for site_id, release_id in totals.sums:
                key = group_of(site_id)
                if key is not None and (release_of is None or release_id in release_of):
                    yield key, site_id

    def sites_of(self, keys: Collection[Key]) -> Collection[int]:
        """All matching sites that may belong to these groups, whether active or not."""
        if self.grouping.by_release:
            return self.group_of
        wanted = set(keys)
        return [site_id for site_id, key in self.group_of.items() if key in wanted]

    async def read_bins(self, connection: AsyncConnection, site_ids: Collection[int] | None = None) -> None:
        """Add bins to `live`: of these sites at least, or of all. Call once."""
        few = _few(self.filters, self.group_of)
        if site_ids is not None and len(site_ids) <= FEW_SITES:
            few = list(site_ids)
        self.live.add_bins(await read_bins(connection, self.parts.buckets, few))


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
        await memory.spans.totals(connection, parts.spans, listed, by_release=release_of is not None),
        live if release_of is not None else live.of_any_release(),
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
