"""What a question reads: the totals of its window, and the sites that its filters leave, by the group they belong to.

Totals of spans are remembered (span_memory.py), and what they add up to for a question too (sum_memory.py); what is not
in a span yet is read row by row: the last minutes, as a rule. All are by site and release, so every filter, grouping
and sort is worked out here from the same numbers.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.cells import Cells, Sums
from aiocop_collector.queries.columns import Columns
from aiocop_collector.queries.fact_memory import FactsVersion
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.shared_facts import Shared
from aiocop_collector.queries.sum_memory import active_of, releases_of, shared_of
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.buckets import (
    read_bins,
    read_bins_by_number,
    read_bins_by_release,
    read_counter_rows,
    worth_reading,
)
from aiocop_collector.store.driver import fetch
from aiocop_collector.store.horizons import Horizons
from aiocop_collector.store.schema import releases
from aiocop_collector.store.spans import Buckets, Cover, Listed, days_around
from aiocop_collector.store.totals import blocked_us_of

FEW_SITES: Final = 2_000
"""Up to here sites are looked up one by one in every bucket; above it, reading all sites of a bucket is cheaper."""

_FEW_BINS: Final = 150
"""Up to here histograms are read site by site; above it, groups are added up in the database."""

SummedSites = tuple[dict[int, int], dict[int, int]]
"""Packed counters and the longest in microseconds, by site."""


@dataclass(frozen=True)
class Scope:
    """A question's window, filters and grouping, and what the store holds for them. Made by `open_scope`."""

    window: Window
    filters: Filters
    grouping: Grouping
    facts_version: FactsVersion
    matching: Cells
    """The matching sites; grouping by release, without releases."""
    cells: Cells
    """What is added up: the same, in the releases that count."""
    release_of: Mapping[int, str] | None
    """The names of the releases that count, where the filters or the grouping speak of releases."""
    memory: Memory
    listed: Listed
    """The spans that may be read, of all days of the window."""
    parts: Cover
    """What makes up the window."""
    live_buckets: Sequence[Buckets]
    """Those of its buckets that hold something of what matches."""
    spans: Sequence[Columns]
    """What adds up to the spans of the window: shared, not to be changed. By release only where asked for."""
    live: Sequence[Columns]
    """What adds up to these buckets, without bins."""
    now_s: float
    horizons: Horizons
    _found: dict[object, tuple[Collection[int], Collection[int]]] = field(default_factory=dict)
    """By columns: sites that were looked for, and where they are."""
    seen_by_group: dict[Key, tuple[int, int]] = field(default_factory=dict)
    """When each group was seen first and last, once somebody asked (seen.py)."""

    @property
    def columns(self) -> Sequence[Columns]:
        """What adds up to the window."""
        return [*self.spans, *self.live]

    @cached_property
    def sums(self) -> Sums:
        """Of each cell."""
        sums = self.memory.sums.sums(self.cells, self.spans).copy()
        for columns in self.live:
            sums.add(columns, self.cells)
        return sums

    @cached_property
    def totals(self) -> Sums:
        """Of each group."""
        return self.sums.by_group(self.cells)

    def by_release(self) -> tuple[dict[int, int], dict[int, int]]:
        """Of each release that counts and was active, by id. Only where `release_of` is given."""
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        matching, release_of = self.matching.cell_of, self.release_of or {}
        for columns in self.columns:
            for _, release_id, counters, longest_us in columns.entries_of(matching):
                if release_id in release_of:
                    sums[release_id] = sums.get(release_id, 0) + counters
                    if longest_us > max_us.get(release_id, -1):
                        max_us[release_id] = longest_us
        return sums, max_us

    def blocked_us(self) -> int:
        """Of everything that matches."""
        return blocked_us_of(sum(self.totals.packed))

    def by_site(self, site_ids: Collection[int] | None = None) -> SummedSites:
        """Of each matching site that was active (of these, where given), in the releases that count."""
        wanted: Collection[int] = self.matching.cell_of.keys() if site_ids is None else site_ids
        release_of = self.release_of
        sums: dict[int, int] = {}
        max_us: dict[int, int] = {}
        for columns in self.columns:
            ids, counters, longest = columns.site_ids, columns.counters, columns.max_us
            for at in self._positions_of(columns, wanted):
                if release_of is None or columns.release_at(at) in release_of:
                    site_id = ids[at]
                    sums[site_id] = sums.get(site_id, 0) + counters[at]
                    if longest[at] > max_us.get(site_id, -1):
                        max_us[site_id] = longest[at]
        return sums, max_us

    def by_site_of_groups(self, keys: Collection[Key]) -> Mapping[Key, SummedSites]:
        """Of each of these groups: `by_site` of those that are in it."""
        found: dict[Key, SummedSites] = {key: ({}, {}) for key in keys}
        if self.grouping.by_release:
            self._sum_sites_by_release(found)
            return found
        key_of = self.matching.key_of
        sums, max_us = self.by_site(self.sites_of(keys))
        for site_id, counters in sums.items():
            of_sums, of_max_us = found[key_of(site_id)]
            of_sums[site_id], of_max_us[site_id] = counters, max_us[site_id]
        return found

    def _sum_sites_by_release(self, found: Mapping[Key, SummedSites]) -> None:
        matching = self.matching.cell_of
        of_release = {one: found.get((name,)) for one, name in (self.release_of or {}).items()}
        for columns in self.columns:
            for site_id, release_id, counters, longest_us in columns.entries():
                of_this = of_release.get(release_id)
                if of_this is not None and site_id in matching:
                    sums, max_us = of_this
                    sums[site_id] = sums.get(site_id, 0) + counters
                    if longest_us > max_us.get(site_id, -1):
                        max_us[site_id] = longest_us

    def packed_by_operation(self, keys: Collection[Key]) -> Mapping[Key, Mapping[str, int]]:
        """What the operations of each of these groups add up to, where groups are summarised."""
        found: dict[Key, dict[str, int]] = {key: {} for key in keys}
        cells, sums = self.cells, self.sums
        of_group = {cells.number_of[key]: of_key for key, of_key in found.items()}
        for group, operation, packed, longest_us in zip(
            cells.groups or (), cells.operations or (), sums.packed, sums.max_us, strict=True
        ):
            if longest_us >= 0 and group in of_group:
                of_group[group][operation] = packed
        return found

    async def shared_by_groups(self, connection: AsyncConnection) -> Mapping[Key, Shared]:
        """What the active sites of each group have in common."""
        facts = await self.memory.facts.facts(connection, self.facts_version, self.matching.cell_of.keys())
        shared = self.memory.sums.shared(self.cells, self.spans, facts)
        # A site that was active before adds nothing, but to a release.
        added = None if self.grouping.by_release else self._idle_in_spans & self._lately
        if added is None or added:
            for columns in self.live:
                shared = shared_of(self.cells, columns, facts, only=added, others=shared)
        return {self.cells.keys[group]: one for group, one in shared.items()}

    async def bins_of_sites(self, connection: AsyncConnection, site_ids: Collection[int]) -> Mapping[int, int]:
        """The histogram of each of these sites, in the releases that count; for few sites."""
        found = self._bins_in_spans(site_ids)
        in_buckets = await read_bins(connection, self.live_buckets, list(site_ids))
        for (site_id, release_id), bins in in_buckets.items():
            if self.release_of is None or release_id in self.release_of:
                found[site_id] += bins
        return found

    def _bins_in_spans(self, site_ids: Collection[int]) -> dict[int, int]:
        found: dict[int, int] = defaultdict(int)
        release_of = self.release_of
        for columns in self.spans:
            ids = columns.site_ids
            for position in self._positions_of(columns, site_ids):
                if release_of is None or columns.release_at(position) in release_of:
                    found[ids[position]] += columns.bins_at(position)
        return found

    def _positions_of(self, columns: Columns, site_ids: Collection[int]) -> Collection[int]:
        """Where these sites are; found once, as a page's sites are looked for again."""
        known = self._found.get(columns.mark)
        if known is None or known[0] != site_ids:
            known = self._found[columns.mark] = (site_ids, list(columns.positions_of(site_ids)))
        return known[1]

    async def bins_of_groups(
        self, connection: AsyncConnection, keys: Collection[Key] | None = None
    ) -> Mapping[Key, int]:
        """The histogram of each group (of these, where given)."""
        found: dict[Key, int] = defaultdict(int)
        key_of = self.matching.key_of
        if keys is not None and self.cells.groups is None and len(wanted := self.sites_of(keys)) <= FEW_SITES:
            for site_id, bins in self._bins_in_spans(wanted).items():
                found[key_of(site_id)] += bins
        else:
            found.update(zip(self.cells.keys, self.memory.sums.bins(self.cells, self.spans), strict=True))
        lately = self._lately if keys is None else self._lately_in(keys)
        if not lately:
            return found
        if self.cells.groups is None and (keys is None or len(lately) <= _FEW_BINS):
            of_sites = None if keys is None and not self.filters.narrows_sites else sorted(lately)
            in_buckets = await read_bins(connection, self.live_buckets, of_sites)
            for (site_id, release_id), bins in in_buckets.items():
                if site_id in lately and (self.release_of is None or release_id in self.release_of):
                    found[key_of(site_id)] += bins
        else:
            for key, bins in await self._bins_by_group(connection, lately):
                found[key] += bins
        return found

    async def _bins_by_group(self, connection: AsyncConnection, site_ids: Set[int]) -> list[tuple[Key, int]]:
        """The histogram of each group's part of these sites in what is in no span; some groups more than once."""
        if self.grouping.by_release:
            # Where filters narrow it down, only those sites were read: what others did is not known to be nothing.
            only_some = self.filters.narrows_sites or any(
                site_id not in site_ids for columns in self.live for site_id in columns.site_ids
            )
            by_release = await read_bins_by_release(connection, self.live_buckets, site_ids if only_some else None)
            names = self.release_of or {}
            return [((names[release_id],), bins) for release_id, bins in by_release if release_id in names]
        cells, releases_meant = self.matching, self.release_of if self.filters.release else None
        number_of = {site_id: cells.group_at(cells.cell_of[site_id]) for site_id in site_ids}
        by_number = await read_bins_by_number(connection, self.live_buckets, number_of, releases_meant)
        return [(cells.keys[number], bins) for number, bins in by_number]

    def _lately_in(self, keys: Collection[Key]) -> Set[int]:
        """Those of these groups that were active in what is in no span."""
        cells = self.matching
        if self.grouping.by_release or len(keys) == len(cells.keys):
            return self._lately
        groups = {cells.number_of[key] for key in keys}
        return {site_id for site_id in self._lately if cells.group_at(cells.cell_of[site_id]) in groups}

    @cached_property
    def idle_sites(self) -> Set[int]:
        """Matching sites that were not active."""
        idle = self._idle_in_spans
        return idle - self._lately if idle else idle

    def active_sites(self) -> Set[int]:
        """Those that were: those of `by_site`."""
        return self.matching.cell_of.keys() - self.idle_sites

    @property
    def _idle_in_spans(self) -> Set[int]:
        return self.memory.sums.idle(self.cells, self.spans)

    @cached_property
    def _lately(self) -> Set[int]:
        """Those active in what is in no span."""
        return frozenset().union(*[active_of(self.cells, columns) for columns in self.live])

    def active_sites_of_groups(self, keys: Collection[Key]) -> Mapping[Key, Collection[int]]:
        """Those of `by_site` in these groups; not where releases are told apart."""
        idle, cells = self.idle_sites, self.matching
        return {
            key: [site_id for site_id in cells.sites_at(cells.number_of[key]) if site_id not in idle] for key in keys
        }

    def key_of_release(self, release_id: int) -> Key:
        """Grouping by release: the group of one that counts."""
        return ((self.release_of or {})[release_id],)

    @cached_property
    def active_releases(self) -> Set[int]:
        """Those of `by_release`."""
        cells, memory = self.matching, self.memory.sums
        active = set().union(*[releases_of(cells, columns) for columns in self.live])
        return (active | memory.active_releases(cells, self.spans)) & (self.release_of or {}).keys()

    def sites_of(self, keys: Collection[Key]) -> Set[int]:
        """All matching sites that may belong to these groups, whether active or not."""
        if self.grouping.by_release:
            return self.matching.cell_of.keys()
        number_of = self.matching.number_of
        return self.matching.sites_of([number_of[key] for key in keys])


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
    matching = cells = await memory.facts.cells(connection, facts_version, filters, grouping)
    release_of = None
    if by_release or grouping.by_release or filters.release:
        release_of = await _releases(connection, filters)
        if grouping.by_release or filters.release:
            cells = memory.sums.in_releases(matching, release_of, by_release=grouping.by_release)
    listed = await memory.spans.listed(connection, *days_around(window.since_s, window.until_s))
    parts = memory.spans.cover(window.since_s, window.until_s, window.resolution, listed, now_s, horizons)
    buckets = await worth_reading(connection, parts.buckets, now_s)
    live = await read_counter_rows(connection, buckets, _few(filters, matching))
    spans = await memory.spans.totals(connection, parts.spans, listed, by_release=release_of is not None)
    return Scope(
        window,
        filters,
        grouping,
        facts_version,
        matching,
        cells,
        release_of,
        memory,
        listed,
        parts,
        [buckets for buckets, _ in live],
        spans,
        [Columns.of_rows(rows, by_release=release_of is not None) for _, rows in live],
        now_s,
        horizons,
    )


def _few(filters: Filters, matching: Cells) -> list[int] | None:
    return sorted(matching.cell_of) if filters.narrows_sites and len(matching.cell_of) <= FEW_SITES else None


async def _releases(connection: AsyncConnection, filters: Filters) -> Mapping[int, str]:
    condition = filters.release_condition(releases.c.id)
    if condition is None:
        return dict(await fetch(connection, "SELECT id, name FROM releases"))
    statement = select(releases.c.id, releases.c.name).where(condition)
    return dict(tuple(row) for row in await connection.execute(statement))
