"""Reading buckets row by row, summed by site and release: of every site, or of a few.

As text: 86 columns take SQLAlchemy longer to put together than the database to sum. Numbers in it are our own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.schema import BIN_COLUMNS
from aiocop_collector.store.spans import Buckets
from aiocop_collector.store.totals import SiteRelease, Totals, pack_bins

_COUNTERS: Final = ('"count"', "slow_count", "blocked_us", "max_us")


def site_list(connection: AsyncConnection, site_ids: Iterable[int]) -> list[int] | str:
    """Sites as one parameter, for `among`: an array, or JSON for SQLite's json_each()."""
    return list(site_ids) if connection.dialect.name == "postgresql" else f"[{','.join(map(str, site_ids))}]"


def among(connection: AsyncConnection, column: str) -> str:
    """SQL text: that the column is one of the sites of the only parameter."""
    if connection.dialect.name == "postgresql":
        return f"{column} = ANY($1)"
    return f"{column} IN (SELECT value FROM json_each(?1))"  # noqa: S608 see above


async def read_totals(connection: AsyncConnection, buckets: Iterable[Buckets]) -> Totals:
    """Of every site, with bins."""
    totals = await read_counters(connection, buckets)
    totals.add_bins(await read_bins(connection, buckets))
    return totals


async def read_counters(
    connection: AsyncConnection, buckets: Iterable[Buckets], site_ids: Sequence[int] | None = None
) -> Totals:
    """Without bins: a fifth of the time. `site_ids`, where given, are the only sites."""
    totals = Totals()
    for some in buckets:
        totals.add_counters(await _rows(connection, some, some.resolution.rollups.name, _COUNTERS, site_ids))
    return totals


async def read_bins(
    connection: AsyncConnection, buckets: Iterable[Buckets], site_ids: Sequence[int] | None = None
) -> dict[SiteRelease, int]:
    """Bins alone (totals.py). `site_ids`, where given, are the only sites."""
    found: dict[SiteRelease, int] = {}
    for some in buckets:
        for site_id, release_id, *bins in await _rows(
            connection, some, some.resolution.histograms.name, BIN_COLUMNS, site_ids
        ):
            key = (site_id, release_id)
            found[key] = found.get(key, 0) + pack_bins(bins)
    return found


async def _rows(
    connection: AsyncConnection, buckets: Buckets, table: str, columns: Sequence[str], site_ids: Sequence[int] | None
) -> Sequence[Any]:
    """(site_id, release_id, sums of columns …)."""
    conditions = buckets.where()
    parameters: tuple[Any, ...] = ()
    if site_ids is not None:
        # By equality, so that both databases look up (bucket, site) instead of reading every site of every bucket.
        starts = ", ".join(map(str, buckets.starts_s))
        conditions = f"bucket_s IN ({starts}) AND {among(connection, 'site_id')}"
        parameters = (site_list(connection, site_ids),)
    if len(buckets.starts_s) == 1:  # there is nothing to sum: a bucket has one row of each
        statement = f"SELECT site_id, release_id, {', '.join(columns)} FROM {table} WHERE {conditions}"  # noqa: S608 see above
    else:
        sums = ", ".join(map(_sum, columns))
        statement = f"SELECT site_id, release_id, {sums} FROM {table} WHERE {conditions} GROUP BY site_id, release_id"  # noqa: S608 see above
    return (await connection.exec_driver_sql(statement, parameters)).all()


def _sum(column: str) -> str:
    return "max(max_us)" if column == "max_us" else f"CAST(sum({column}) AS BIGINT)"


async def read_presence(
    connection: AsyncConnection, days_s: Iterable[int], site_ids: Sequence[int] | None = None
) -> Sequence[Any]:
    """(site_id, service_id, agent_id): who saw what on these days. `site_ids`, where given, are the only sites."""
    days = ", ".join(map(str, sorted(days_s)))
    if not days:
        return []
    conditions = f"p.day_s IN ({days})"
    parameters: tuple[Any, ...] = ()
    if site_ids is not None:
        conditions += f" AND {among(connection, 'p.site_id')}"
        parameters = (site_list(connection, site_ids),)
    statement = (
        "SELECT p.site_id, s.service_id, p.agent_id FROM presence AS p JOIN sites AS s ON s.id = p.site_id "  # noqa: S608 see above
        f"WHERE {conditions}"
    )
    return (await connection.exec_driver_sql(statement, parameters)).all()
