"""Which rows a question reads, in SQL: the window and the filters, joined with what the rows are grouped by.

Facts (roll-ups, histograms) are narrowed by their own key first: by buckets and spans, and, where few sites can match,
by these sites, which both databases answer from the primary key. Conditions on sites, hotspots and services are
repeated on the joined dimensions, so that the narrowing is only ever about speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Select, Table, any_, cast, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause, Subquery

from aiocop_collector.queries.filters import Filters, release_named
from aiocop_collector.queries.groupings import Grouping, Key
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.schema import agents, hotspots, presence, releases, services, sites
from aiocop_collector.store.spans import Facts, Part, cover, load_summed

FEW_SITES: Final = 2_000
"""Up to here sites are looked up one by one in every bucket; above it, reading all sites of a bucket is cheaper."""

COUNTERS: Final = ("count", "slow_count", "blocked_us", "max_us")


def exact_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    """SUM as an integer: PostgreSQL makes a decimal of it."""
    return cast(func.sum(column), BigInteger)


@dataclass(frozen=True, slots=True)
class Sites:
    """A few sites, as a condition: one parameter however many there are."""

    ids: tuple[int, ...]
    postgresql: bool

    @property
    def parameter(self) -> list[int] | str:
        """The ids as the driver takes them: an array, or JSON for SQLite's json_each()."""
        return list(self.ids) if self.postgresql else "[" + ",".join(map(str, self.ids)) + "]"

    def condition(self, column: ColumnElement[int]) -> ColumnElement[bool]:
        """That the column holds one of them."""
        if self.postgresql:
            return column == any_(literal(self.parameter, ARRAY(BigInteger)))
        items = func.json_each(literal(self.parameter)).table_valued("value", name="items")
        return column.in_(select(items.c.value))


@dataclass(frozen=True, slots=True)
class Scope:
    """A question's window, filters and grouping. `open_scope` makes one that reads as little as possible."""

    window: Window
    filters: Filters
    grouping: Grouping
    parts: tuple[Part, ...] = ()
    """What makes up the window; nothing stands for its buckets."""
    few: Sites | None = None
    """The sites that the filters leave, where they are few."""

    @property
    def read_parts(self) -> tuple[Part, ...]:
        """The tables and buckets to read."""
        resolution = self.window.resolution
        return self.parts or (Part(resolution, resolution.seconds, tuple(self.window.bucket_starts_s)),)

    async def few_of(self, connection: AsyncConnection, keys: Sequence[Key]) -> Sites | None:
        """The sites of these groups, where they are few."""
        if self.grouping.by_release:
            return self.few
        return await _few(connection, self._matching_sites(keys))

    def facts(self, kind: Facts, columns: Sequence[str], few: Sites | None = None) -> Subquery:
        """(site_id, release_id, columns …) of every bucket and span of the window; a site has many rows.

        `few`, where given, are the only sites that matter.
        """
        few = few or self.few
        selects = []
        for part in self.read_parts:
            table = part.table(kind)
            conditions = part.conditions(table)
            if few is not None:
                conditions.append(few.condition(table.c.site_id))
            released = self.filters.release_condition(table.c.release_id)
            if released is not None:
                conditions.append(released)
            read = [table.c.site_id, table.c.release_id, *(table.c[name] for name in columns)]
            selects.append(select(*read).where(*conditions))
        return union_all(*selects).subquery("facts")

    def totals(
        self, keys: Sequence[Key] | None = None, *, few: Sites | None = None, columns: Sequence[str] = COUNTERS
    ) -> Subquery:
        """The counters of each matching site (and release, when grouping by release) over the window.

        `keys` and `few`, where given, are the only groups and sites that matter: reading others may be left out.
        """
        facts = self.facts("rollups", columns, few)
        dimensions = self.fact_dimensions(facts)
        sums = [
            (func.max(facts.c[name]) if name == "max_us" else exact_sum(facts.c[name])).label(name) for name in columns
        ]
        statement = select(*dimensions, *sums).group_by(*dimensions)
        if keys is not None and self.grouping.by_release:
            statement = statement.where(release_named(facts.c.release_id, (key[0] for key in keys)))
        return statement.subquery("totals")

    def fact_dimensions(self, facts: FromClause) -> list[ColumnElement[int]]:
        """The columns by which facts are summed before anything is joined with them."""
        return [facts.c.site_id, *([facts.c.release_id] if self.grouping.by_release else [])]

    def fact_conditions(self, facts: Table) -> list[ColumnElement[bool]]:
        """What must hold for a row of the window's own resolution, rollups_* or histograms_*, by its own columns."""
        bucket_s = facts.c.bucket_s
        conditions: list[ColumnElement[bool]] = [bucket_s >= self.window.since_s, bucket_s < self.window.until_s]
        if self.filters.narrows_sites:
            # Both parts of the primary key by equality: SQLite then looks up (bucket, site) pairs instead of reading
            # every site of every bucket.
            conditions.append(bucket_s.in_(_each_bucket(self.window)))
            conditions.append(facts.c.site_id.in_(self._matching_sites(None)))
        condition = self.filters.release_condition(facts.c.release_id)
        if condition is not None:
            conditions.append(condition)
        return conditions

    def joined(self, facts: FromClause) -> FromClause:
        """Facts with the dimensions that filters and this grouping speak of."""
        joined = facts.join(sites, sites.c.id == facts.c.site_id).join(hotspots, hotspots.c.id == sites.c.hotspot_id)
        if self.grouping.by_service:
            joined = joined.join(services, services.c.id == sites.c.service_id)
        if self.grouping.by_release:
            joined = joined.join(releases, releases.c.id == facts.c.release_id)
        return joined

    def group_conditions(self, keys: Sequence[Key] | None = None) -> list[ColumnElement[bool]]:
        """What must hold for a row of `joined`."""
        conditions = self.filters.site_conditions()
        if keys is not None:
            conditions.append(self.grouping.has_key(keys))
        return conditions

    def processes(self, keys: Sequence[Key], few: Sites | None = None) -> Select[Any]:
        """(key …, distinct agents that saw the group on the days of the window)."""
        seen_by = select(presence.c.site_id, presence.c.agent_id).where(presence.c.day_s.in_(_each_day(self.window)))
        few = few or self.few
        if few is not None:
            seen_by = seen_by.where(few.condition(presence.c.site_id))
        pairs = seen_by.distinct().subquery("pairs")
        conditions = [self.grouping.has_key(keys), *self.filters.site_conditions()]
        seen: FromClause = pairs
        if self.grouping.by_release or self.filters.release:
            # Presence knows sites and agents; an agent has one release for life.
            seen = seen.join(agents, agents.c.id == pairs.c.agent_id)
            condition = self.filters.release_condition(agents.c.release_id)
            if condition is not None:
                conditions.append(condition)
        seen = seen.join(sites, sites.c.id == pairs.c.site_id).join(hotspots, hotspots.c.id == sites.c.hotspot_id)
        if self.grouping.by_service:
            seen = seen.join(services, services.c.id == sites.c.service_id)
        if self.grouping.by_release:
            seen = seen.join(releases, releases.c.id == agents.c.release_id)
        return (
            select(*self.grouping.labelled(), func.count(pairs.c.agent_id.distinct()).label("processes"))
            .select_from(seen)
            .where(*conditions)
            .group_by(*self.grouping.columns)
        )

    def _matching_sites(self, keys: Sequence[Key] | None) -> Select[Any]:
        joined: FromClause = sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id)
        if self.grouping.by_service:
            joined = joined.join(services, services.c.id == sites.c.service_id)
        conditions = self.filters.site_conditions()
        if keys is not None and not self.grouping.by_release:
            conditions.append(self.grouping.has_key(keys))
        return select(sites.c.id).select_from(joined).where(*conditions)


async def open_scope(connection: AsyncConnection, window: Window, filters: Filters, grouping: Grouping) -> Scope:
    """The scope with the spans that are summed and the sites that are left, as this transaction sees them."""
    summed = await load_summed(connection, window.since_s, window.until_s, window.resolution)
    parts = tuple(cover(window.since_s, window.until_s, window.resolution, summed))
    scope = Scope(window, filters, grouping, parts)
    if not filters.narrows_sites:
        return scope
    return Scope(window, filters, grouping, parts, await _few(connection, scope._matching_sites(None)))  # noqa: SLF001 its own class


async def _few(connection: AsyncConnection, matching: Select[Any]) -> Sites | None:
    found = (await connection.execute(matching.limit(FEW_SITES + 1))).scalars().all()
    if len(found) > FEW_SITES:
        return None
    return Sites(tuple(sorted(found)), connection.dialect.name == "postgresql")


def _each_bucket(window: Window) -> Select[Any]:
    return _each(window.bucket_starts_s)


def _each_day(window: Window) -> Select[Any]:
    return _each(window.day_starts_s)


def _each(starts_s: range) -> Select[Any]:
    """Every number of the range, counted up by the database: a day of minutes would be 1440 parameters."""
    first = select(literal(starts_s.start, BigInteger).label("start_s")).cte("starts", recursive=True)
    following = first.c.start_s + starts_s.step
    starts = first.union_all(select(following).where(following < starts_s.stop))
    return select(starts.c.start_s)
