"""Reading buckets row by row, summed by site and release: of every site, or of a few.

As text: 86 columns take SQLAlchemy longer to put together than the database to sum. Numbers in it are our own.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.driver import fetch, integer_array
from aiocop_collector.store.schema import BIN_COLUMNS
from aiocop_collector.store.spans import Buckets
from aiocop_collector.store.totals import SiteRelease, Totals, pack_bins

_FEW_BUCKETS: Final = 3
"""Up to here buckets are read one by one: their rows are in order, and summing them takes the database longer."""

_BIN_SUMS: Final = ", ".join(f"CAST(sum({name}) AS BIGINT)" for name in BIN_COLUMNS)
_COUNTERS: Final = ('"count"', "slow_count", "blocked_us", "max_us")


def site_list(connection: AsyncConnection, site_ids: Iterable[int]) -> list[int] | str:
    """Sites as one parameter, for `among`: an array, or JSON for SQLite's json_each()."""
    return list(site_ids) if connection.dialect.name == "postgresql" else f"[{','.join(map(str, site_ids))}]"


def among(connection: AsyncConnection, column: str, *, parameter: int = 1) -> str:
    """SQL text: that the column is one of those of the parameter with this number, which is a `site_list`. Parameters
    come in the order of their numbers: SQLite's have none, as CPython 3.12.0 to 3.12.3 take a number for a name."""
    if connection.dialect.name == "postgresql":
        return f"{column} = ANY(${parameter}::bigint[])"
    return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 see above


def not_among(connection: AsyncConnection, column: str) -> str:
    """SQL text: that it is none of those of the only parameter."""
    if connection.dialect.name == "postgresql":
        return f"{column} <> ALL($1::bigint[])"
    return f"{column} NOT IN (SELECT value FROM json_each(?))"  # noqa: S608 see above


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


async def worth_reading(connection: AsyncConnection, buckets: Sequence[Buckets], now_s: float) -> Sequence[Buckets]:
    """All but those that begin after now, where nothing came too early: clocks may be ahead. A window reaches to the
    end of its hour or day, which would be up to six statements that find nothing."""
    coming_s = min([some.start_s for some in buckets if some.start_s >= now_s], default=None)
    if coming_s is None:
        return buckets
    # Whatever is counted is counted by minute, too.
    # In order, as of a day that began after the table was analyzed PostgreSQL would read all to find none.
    latest = f"SELECT 1 FROM rollups_minute WHERE bucket_s >= {coming_s:d} ORDER BY bucket_s DESC LIMIT 1"  # noqa: S608 see above
    if await fetch(connection, latest):
        return buckets
    return [some for some in buckets if some.start_s < coming_s]


async def read_counter_rows(
    connection: AsyncConnection, buckets: Iterable[Buckets], site_ids: Sequence[int] | None = None
) -> list[tuple[Buckets, Sequence[Any]]]:
    """The buckets in parts, without those that hold nothing: each with its rows (site_id, release_id, count,
    slow_count, blocked_us, max_us), in the order of the first two. `site_ids`, where given, are the only sites."""
    read = [
        (some, await _rows(connection, some, some.resolution.rollups.name, _COUNTERS, site_ids, ordered=True))
        for some in _one_by_one(buckets)
    ]
    return [(some, rows) for some, rows in read if rows]


async def read_bins(
    connection: AsyncConnection, buckets: Iterable[Buckets], site_ids: Sequence[int] | None = None
) -> dict[SiteRelease, int]:
    """Bins alone (totals.py). `site_ids`, where given, are the only sites."""
    found: dict[SiteRelease, int] = {}
    for some in _one_by_one(buckets):
        for site_id, release_id, *bins in await _rows(
            connection, some, some.resolution.histograms.name, BIN_COLUMNS, site_ids
        ):
            key = (site_id, release_id)
            found[key] = found.get(key, 0) + pack_bins(bins)
    return found


async def read_bins_by_number(
    connection: AsyncConnection,
    buckets: Iterable[Buckets],
    number_of: Mapping[int, int],
    release_ids: Collection[int] | None = None,
) -> list[tuple[int, int]]:
    """(number, bins) of these sites by their number, in these releases where given; some numbers more than once.

    Added up in the database: it would take longer to hand out 86 columns of each site.
    """
    if connection.dialect.name == "postgresql":
        # As a table: for a list of thousands in a condition the planner alone takes 5 ms.
        parameters: list[Any] = [integer_array(number_of), integer_array(number_of.values())]
        numbered = "unnest($1::text::bigint[], $2::text::bigint[]) AS numbered (site_id, number)"
    else:
        parameters = [json.dumps(number_of)]
        numbered = "(SELECT CAST(key AS INTEGER) AS site_id, value AS number FROM json_each(?)) AS numbered"
    of_releases = ""
    if release_ids is not None:
        of_releases = f"AND {among(connection, 'release_id', parameter=len(parameters) + 1)}"
        parameters.append(site_list(connection, release_ids))
    return await _summed_bins(
        connection,
        buckets,
        "numbered.number",
        f"JOIN {numbered} ON numbered.site_id = filled.site_id",
        of_releases,
        parameters,
    )


async def read_bins_by_release(
    connection: AsyncConnection, buckets: Iterable[Buckets], site_ids: Collection[int] | None = None
) -> list[tuple[int, int]]:
    """(release id, bins) of all sites, or of these; some releases more than once."""
    if site_ids is None:
        return await _summed_bins(connection, buckets, "release_id", "", "", [])
    of_sites = f"AND {among(connection, 'site_id')}"
    return await _summed_bins(connection, buckets, "release_id", "", of_sites, [site_list(connection, site_ids)])


async def _summed_bins(
    connection: AsyncConnection,
    buckets: Iterable[Buckets],
    key: str,
    joined: str,
    conditions: str,
    parameters: Sequence[Any],
) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for some in buckets:
        rows = await fetch(
            connection,
            f"SELECT {key}, {_BIN_SUMS} FROM {some.resolution.histograms.name} AS filled {joined} "  # noqa: S608 see above
            f"WHERE {some.where()} {conditions} GROUP BY {key}",
            parameters,
        )
        found += [(row[0], pack_bins(row[1:])) for row in rows]
    return found


def _one_by_one(buckets: Iterable[Buckets]) -> list[Buckets]:
    """Each by itself, where they are few."""
    parts: list[Buckets] = []
    for some in buckets:
        starts_s = some.starts_s
        if len(starts_s) <= _FEW_BUCKETS:
            parts += [Buckets(some.resolution, start_s, start_s + some.resolution.seconds) for start_s in starts_s]
        else:
            parts.append(some)
    return parts


async def _rows(
    connection: AsyncConnection,
    buckets: Buckets,
    table: str,
    columns: Sequence[str],
    site_ids: Sequence[int] | None,
    *,
    ordered: bool = False,
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
    if ordered:
        statement += " ORDER BY site_id, release_id"
    return await fetch(connection, statement, parameters)


def _sum(column: str) -> str:
    return "max(max_us)" if column == "max_us" else f"CAST(sum({column}) AS BIGINT)"


async def read_presence(
    connection: AsyncConnection, days_s: Iterable[int], site_ids: Sequence[int] | None = None
) -> Sequence[Any]:
    """(site_id, service_id, agent ids with commas between): who saw what on each of these days, in any order.
    `site_ids`, where given, are the only sites.

    As one text a site, for `Presence.add`: sites of a service have few different ones.
    """
    days = ", ".join(map(str, sorted(days_s)))
    if not days:
        return []
    conditions = f"p.day_s IN ({days})"
    parameters: tuple[Any, ...] = ()
    if site_ids is not None:
        conditions += f" AND {among(connection, 'p.site_id')}"
        parameters = (site_list(connection, site_ids),)
    if site_ids is not None and connection.dialect.name == "postgresql":
        # Site by site: of a day that began after the table was analyzed the planner expects nothing, and reads it all.
        return await fetch(
            connection,
            "SELECT s.id, s.service_id, seen.agents FROM unnest($1::bigint[]) AS wanted (id) "  # noqa: S608 see above
            "JOIN sites AS s ON s.id = wanted.id CROSS JOIN LATERAL "
            "(SELECT string_agg(p.agent_id, ',') AS agents FROM presence AS p "
            f"WHERE p.day_s IN ({days}) AND p.site_id = wanted.id) AS seen WHERE seen.agents IS NOT NULL",
            parameters,
        )
    together = "string_agg(p.agent_id, ',')" if connection.dialect.name == "postgresql" else "group_concat(p.agent_id)"
    # The order of the primary key: nothing is sorted.
    return await fetch(
        connection,
        f"SELECT seen.site_id, s.service_id, seen.agents FROM (SELECT p.site_id, {together} AS agents "  # noqa: S608 see above
        f"FROM presence AS p WHERE {conditions} GROUP BY p.day_s, p.site_id) AS seen "
        "JOIN sites AS s ON s.id = seen.site_id",
        parameters,
    )
