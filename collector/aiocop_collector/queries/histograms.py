"""Merged histograms of groups of sites, and the percentiles in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause

from aiocop_collector.groupings import Key
from aiocop_collector.queries.scope import Scope, exact_sum
from aiocop_collector.schema import BIN_COLUMNS, RESOLUTIONS
from aiocop_wire import percentile_ms

Bins = tuple[int, ...]


def _sums(bins: FromClause) -> list[ColumnElement[int]]:
    # An empty bin is NULL.
    return [func.coalesce(exact_sum(bins.c[name]), 0).label(name) for name in BIN_COLUMNS]


# Built once: 86 expressions cost more to build than to run.
_SUMS: Final = {resolution.name: _sums(resolution.histograms) for resolution in RESOLUTIONS}


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In milliseconds, to the microsecond; None where nothing was recorded."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def percentiles(bins: Bins | None, max_us: int) -> Percentiles:
    """`max_us` is the longest recorded duration: no percentile lies above it."""
    if bins is None:
        return Percentiles(None, None, None)
    return Percentiles(*(_rounded(percentile_ms(bins, part, max_ms=max_us / 1000)) for part in (0.50, 0.95, 0.99)))


async def bins_by_group(
    connection: AsyncConnection, scope: Scope, keys: Sequence[Key] | None = None
) -> Mapping[Key, Bins]:
    """The summed bins of each group (of `keys`, where given)."""
    histograms = scope.window.resolution.histograms
    dimensions = scope.fact_dimensions(histograms)
    # By site first: joined row by row, SQLite would read the histograms once per group.
    by_site = (
        select(*dimensions, *_SUMS[scope.window.resolution.name])
        .where(*scope.fact_conditions(histograms, keys))
        .group_by(*dimensions)
        .subquery("by_site")
    )
    columns = scope.grouping.columns
    statement = (
        select(*columns, *_sums(by_site))
        .select_from(scope.joined(by_site))
        .where(*scope.group_conditions(keys))
        .group_by(*columns)
    )
    width = len(columns)
    return {tuple(row[:width]): tuple(row[width:]) for row in await connection.execute(statement)}


async def bins_by_site(connection: AsyncConnection, scope: Scope) -> Mapping[int, Bins]:
    """The summed bins of each matching site, by its id."""
    histograms = scope.window.resolution.histograms
    site_id = histograms.c.site_id
    statement = (
        select(site_id, *_SUMS[scope.window.resolution.name])
        .where(*scope.fact_conditions(histograms))
        .group_by(site_id)
    )
    return {row[0]: tuple(row[1:]) for row in await connection.execute(statement)}


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 3)
