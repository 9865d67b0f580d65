"""Which rows a question reads, in SQL: the window and the filters, joined with what the rows are grouped by.

Facts (roll-ups, histograms) are narrowed by their own key first: by a range of buckets, or, where few sites can match,
by bucket and site, which both databases answer from the primary key. Conditions on sites, hotspots and services are
repeated on the joined dimensions, so that the narrowing is only ever about speed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Table, cast, func, literal, select
from sqlalchemy.sql.selectable import FromClause, Subquery

from aiocop_collector.filters import Filters, release_named
from aiocop_collector.groupings import Grouping, Key
from aiocop_collector.schema import agents, hotspots, presence, releases, services, sites
from aiocop_collector.windows import Window


def exact_sum(column: ColumnElement[int]) -> ColumnElement[int]:
    """SUM as an integer: PostgreSQL makes a decimal of it."""
    return cast(func.sum(column), BigInteger)


@dataclass(frozen=True, slots=True)
class Scope:
    """A question's window, filters and grouping."""

    window: Window
    filters: Filters
    grouping: Grouping

    def totals(self, keys: Sequence[Key] | None = None) -> Subquery:
        """The counters of each matching site (and release, when grouping by release) over the window.

        `keys`, where given, are the only groups that matter: reading others may be left out.
        """
        rollups = self.window.resolution.rollups
        dimensions = self.fact_dimensions(rollups)
        return (
            select(
                *dimensions,
                exact_sum(rollups.c["count"]).label("count"),
                exact_sum(rollups.c.slow_count).label("slow_count"),
                exact_sum(rollups.c.blocked_us).label("blocked_us"),
                func.max(rollups.c.max_us).label("max_us"),
            )
            .where(*self.fact_conditions(rollups, keys))
            .group_by(*dimensions)
            .subquery("totals")
        )

    def fact_dimensions(self, facts: Table) -> list[ColumnElement[int]]:
        """The columns by which facts are summed before anything is joined with them."""
        return [facts.c.site_id, *([facts.c.release_id] if self.grouping.by_release else [])]

    def fact_conditions(self, facts: Table, keys: Sequence[Key] | None = None) -> list[ColumnElement[bool]]:
        """What must hold for a row of rollups_* or histograms_* by its own columns."""
        by_release = self.grouping.by_release
        bucket_s = facts.c.bucket_s
        narrow = self.filters.narrows_sites or (keys is not None and not by_release)
        conditions: list[ColumnElement[bool]] = [bucket_s >= self.window.since_s, bucket_s < self.window.until_s]
        if narrow:
            # Both parts of the primary key by equality: SQLite then looks up (bucket, site) pairs instead of reading
            # every site of every bucket.
            conditions.append(bucket_s.in_(_each_bucket(self.window)))
            conditions.append(facts.c.site_id.in_(self._matching_sites(keys)))
        condition = self.filters.release_condition(facts.c.release_id)
        if condition is not None:
            conditions.append(condition)
        if by_release and keys is not None:
            conditions.append(release_named(facts.c.release_id, (key[0] for key in keys)))
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

    def processes(self, keys: Sequence[Key]) -> Select[Any]:
        """(key …, distinct agents that saw the group on the days of the window)."""
        pairs = (
            select(presence.c.site_id, presence.c.agent_id)
            .where(
                presence.c.day_s.in_(_each_day(self.window)),
                presence.c.site_id.in_(self._matching_sites(None if self.grouping.by_release else keys)),
            )
            .distinct()
            .subquery("pairs")
        )
        conditions = [self.grouping.has_key(keys)]
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
