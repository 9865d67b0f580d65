"""What a question reads: the totals of its window, and the sites that its filters leave, by the group they belong to.

Totals of spans are remembered (span_memory.py); what is not in a span yet is read row by row: the last minutes, as a
rule. Both are by site and release, so every filter, grouping and sort is worked out here from the same numbers.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import ARRAY, BigInteger, ColumnElement, any_, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.span_memory import SpanMemory
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.buckets import read_bins, read_counters, site_list
from aiocop_collector.store.horizons import Horizons
from aiocop_collector.store.schema import hotspots, releases, services, sites
from aiocop_collector.store.spans import Cover, Listed, cover, days_around, load_listed
from aiocop_collector.store.totals import ANY_RELEASE, SiteRelease, Totals, blocked_us_of

if TYPE_CHECKING:
    from sqlalchemy.sql.selectable import FromClause

FEW_SITES: Final = 2_000
"""Up to here sites are looked up one by one in every bucket; above it, reading all sites of a bucket is cheaper."""

Unit = TypeVar("Unit")


@dataclass(frozen=True, slots=True)
class Scope:
    """A question's window, filters and grouping, and what the store holds for them. Made by `open_scope`."""

    window: Window
    filters: Filters
    grouping: Grouping
    group_of: Mapping[int, Key]
    """The group of each matching site; grouping by release, only that it matches."""
    release_of: Mapping[int, str] | None
    """The names of the releases that count, where the filters or the grouping speak of releases."""
    memory: SpanMemory
    listed: Listed
    """The spans that may be read, of all days of the window."""
    parts: Cover
    """What makes up the window."""
    spans: Totals
    """Of the parts that are spans; by release only where `release_of` is given. Shared: not to be changed."""
    live: Totals
    """Of those that are not; bins are missing until `read_bins`."""
    now_s: float
    horizons: Horizons

    def key_of(self, site_release: SiteRelease) -> Key | None:
        """The group that a site's activity in a release belongs to; None where it does not match."""
        site_id, release_id = site_release
        key = self.group_of.get(site_id)
        if key is None or self.release_of is None:
            return key
        release = self.release_of.get(release_id)
        if release is None:
            return None
        return (release,) if self.grouping.by_release else key

    def summed(self, unit_of: Callable[[SiteRelease], Unit | None]) -> tuple[dict[Unit, int], dict[Unit, int]]:
        """Packed sums and the longest in microseconds, by what `unit_of` gives; None leaves out."""
        sums: dict[Unit, int] = {}
        max_us: dict[Unit, int] = {}
        for totals in (self.spans, self.live):
            longest_of = totals.max_us
            for site_release, packed in totals.sums.items():
                unit = unit_of(site_release)
                if unit is not None:
                    sums[unit] = sums.get(unit, 0) + packed
                    longest_us = longest_of[site_release]
                    if longest_us > max_us.get(unit, -1):
                        max_us[unit] = longest_us
        return sums, max_us

    def by_group(self) -> tuple[dict[Key, int], dict[Key, int]]:
        """Of each group that was active: its packed sum, and its longest in microseconds."""
        group_of = self.group_of
        if self.release_of is None:
            return self.summed(lambda site_release: group_of.get(site_release[0]))
        return self.summed(self.key_of)

    def blocked_us(self) -> int:
        """Of everything that matches."""
        return sum(map(blocked_us_of, self.by_group()[0].values()))

    def by_site(
        self, keys: Collection[Key] | None = None
    ) -> tuple[dict[tuple[Key, int], int], dict[tuple[Key, int], int]]:
        """The same of each site of each group (of `keys`, where given)."""
        if keys is not None and self.release_of is None:
            return self._of_sites(self.sites_of(keys))
        wanted = None if keys is None else set(keys)

        def unit_of(site_release: SiteRelease) -> tuple[Key, int] | None:
            key = self.key_of(site_release)
            return None if key is None or (wanted is not None and key not in wanted) else (key, site_release[0])

        return self.summed(unit_of)

    def _of_sites(self, site_ids: Iterable[int]) -> tuple[dict[tuple[Key, int], int], dict[tuple[Key, int], int]]:
        """`by_site` of these, looked up one by one: a page has few."""
        sums: dict[tuple[Key, int], int] = {}
        max_us: dict[tuple[Key, int], int] = {}
        group_of, spans, live = self.group_of, self.spans, self.live
        for site_id in site_ids:
            site = (site_id, ANY_RELEASE)
            in_spans, lately = spans.sums.get(site), live.sums.get(site)
            if in_spans is None and lately is None:
                continue
            unit = (group_of[site_id], site_id)
            sums[unit] = (in_spans or 0) + (lately or 0)
            max_us[unit] = max(spans.max_us.get(site, 0), live.max_us.get(site, 0))
        return sums, max_us

    def active(self) -> Iterator[tuple[Key, SiteRelease]]:
        """The groups that were active, with what was active there; some more than once."""
        for totals in (self.spans, self.live):
            for site_release in totals.sums:
                key = self.key_of(site_release)
                if key is not None:
                    yield key, site_release

    def sites_of(self, keys: Collection[Key]) -> list[int]:
        """All matching sites that may belong to these groups, whether active or not."""
        if self.grouping.by_release:
            return list(self.group_of)
        wanted = set(keys)
        return [site_id for site_id, key in self.group_of.items() if key in wanted]

    async def read_bins(self, connection: AsyncConnection, site_ids: list[int] | None = None) -> None:
        """Add bins to `live`: of these sites at least, or of all. Call once."""
        if site_ids is None or len(site_ids) > FEW_SITES:
            site_ids = _few(self.filters, self.group_of)
        self.live.add_bins(await read_bins(connection, self.parts.buckets, site_ids))


async def open_scope(
    connection: AsyncConnection,
    memory: SpanMemory,
    window: Window,
    filters: Filters,
    grouping: Grouping,
    now_s: float,
    horizons: Horizons,
    *,
    by_release: bool = False,
) -> Scope:
    """The scope as this transaction sees the store; with `by_release`, releases can be told apart in it."""
    group_of = await _groups(connection, filters, grouping)
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
        group_of,
        release_of,
        memory,
        listed,
        parts,
        await memory.totals(connection, parts.spans, listed, by_release=release_of is not None),
        live if release_of is not None else live.of_any_release(),
        now_s,
        horizons,
    )


def _few(filters: Filters, group_of: Mapping[int, Key]) -> list[int] | None:
    return sorted(group_of) if filters.narrows_sites and len(group_of) <= FEW_SITES else None


async def _groups(connection: AsyncConnection, filters: Filters, grouping: Grouping) -> Mapping[int, Key]:
    source: FromClause = sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id)
    if grouping.by_service:
        source = source.join(services, services.c.id == sites.c.service_id)
    columns = () if grouping.by_release else grouping.columns
    statement = select(sites.c.id, *columns).select_from(source).where(*filters.site_conditions())
    return {row[0]: tuple(row[1:]) for row in (await connection.execute(statement)).all()}


async def _releases(connection: AsyncConnection, filters: Filters) -> Mapping[int, str]:
    statement = select(releases.c.id, releases.c.name)
    condition = filters.release_condition(releases.c.id)
    if condition is not None:
        statement = statement.where(condition)
    return dict(tuple(row) for row in await connection.execute(statement))


def is_among(connection: AsyncConnection, column: ColumnElement[int], numbers: Collection[int]) -> ColumnElement[bool]:
    """That the column holds one of them: one parameter however many there are."""
    listed = site_list(connection, numbers)
    if connection.dialect.name == "postgresql":
        return column == any_(literal(listed, ARRAY(BigInteger)))
    items = func.json_each(literal(listed)).table_valued("value", name="items")
    return column.in_(select(items.c.value))
