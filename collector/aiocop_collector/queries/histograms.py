"""Merged histograms of groups of sites, and the percentiles in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.groupings import Key
from aiocop_collector.queries.scope import Scope, Sites
from aiocop_collector.store.schema import BIN_COLUMNS, hotspots, releases, services, sites
from aiocop_wire import percentile_ms

Bins = tuple[int, ...]


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
    connection: AsyncConnection, scope: Scope, keys: Sequence[Key] | None = None, few: Sites | None = None
) -> Mapping[Key, Bins]:
    """The summed bins of each group (of `keys`, where given; `few` are all sites that these have)."""
    group_of = await _groups(connection, scope, keys, few)
    release_of = await _release_keys(connection, keys) if scope.grouping.by_release else {}
    found: dict[Key, Bins] = {}
    for row in await _summed(connection, scope, few, by_release=scope.grouping.by_release):
        counts = row[2:]
        key = group_of.get(row[0])
        if key is not None and scope.grouping.by_release:
            key = release_of.get(row[1])
        if key is None:
            continue
        known = found.get(key)
        found[key] = tuple(counts) if known is None else tuple(map(add, known, counts))
    return found


async def bins_by_site(connection: AsyncConnection, scope: Scope) -> Mapping[int, Bins]:
    """The summed bins of each matching site, by its id."""
    return {row[0]: tuple(row[2:]) for row in await _summed(connection, scope, None, by_release=False)}


async def _groups(
    connection: AsyncConnection, scope: Scope, keys: Sequence[Key] | None, few: Sites | None
) -> Mapping[int, Key]:
    """The group of each matching site; grouping by release, only that it matches."""
    source = sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id)
    if scope.grouping.by_service:
        source = source.join(services, services.c.id == sites.c.service_id)
    by_release = scope.grouping.by_release
    columns = () if by_release else scope.grouping.columns
    statement = select(sites.c.id, *columns).select_from(source)
    statement = statement.where(*scope.group_conditions(None if by_release else keys))
    if few is not None:
        statement = statement.where(few.condition(sites.c.id))
    return {row[0]: tuple(row[1:]) for row in await connection.execute(statement)}


async def _release_keys(connection: AsyncConnection, keys: Sequence[Key] | None) -> Mapping[int, Key]:
    statement = select(releases.c.id, releases.c.name)
    if keys is not None:
        statement = statement.where(releases.c.name.in_([key[0] for key in keys]))
    return {release_id: (name,) for release_id, name in await connection.execute(statement)}


async def _summed(connection: AsyncConnection, scope: Scope, few: Sites | None, *, by_release: bool) -> Sequence[Any]:
    """(site_id, release_id or 0, bins …), zero where a bin is empty.

    As text: 86 columns in up to six parts take SQLAlchemy longer to put together than the database to sum. Numbers that
    are in it are starts of buckets and ids that came from the database.
    """
    few = few or scope.few
    postgresql = connection.dialect.name == "postgresql"
    conditions = ""
    if few is not None:
        conditions += " AND site_id = ANY($1)" if postgresql else " AND site_id IN (SELECT value FROM json_each(?1))"
    if scope.filters.release:
        found = await connection.execute(select(releases.c.id).where(releases.c.name.in_(scope.filters.release)))
        conditions += f" AND release_id IN ({_numbers(found.scalars()) or 'NULL'})"
    columns = ", ".join(BIN_COLUMNS)
    parts = " UNION ALL ".join(
        f"SELECT site_id, release_id, {columns} FROM {part.table('histograms').name} "  # noqa: S608 see above
        f"WHERE {part.where()}{conditions}"
        for part in scope.read_parts
    )
    sums = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT)" for name in BIN_COLUMNS)
    release_id, group = ("release_id", "site_id, release_id") if by_release else ("0", "site_id")
    statement = f"SELECT site_id, {release_id}, {sums} FROM ({parts}) AS facts GROUP BY {group}"  # noqa: S608 see above
    parameters = () if few is None else (few.parameter,)
    return (await connection.exec_driver_sql(statement, parameters)).all()


def _numbers(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 3)
