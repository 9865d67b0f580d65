"""A store as a fleet leaves it after a month, made by SQL: used by benchmarks/queries.py.

Sites differ in how often they are called: one in n is active each n-th minute or so, as ranks go (Zipf), so that about
one site in six has a row in a given minute, nearly all in a given hour and all in a day. Two releases per service, the
second since yesterday. Minutes reach back to the day before yesterday, hours 14 days, days a month, as retention keeps
them; hours and days are sums of the rows below, older ones are copies of yesterday. `extend_fleet` adds the minutes
that have come since: a store never holds what is still to come.
"""

import random
from collections.abc import Iterable, Iterator

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiocop_collector.store import ids, schema
from aiocop_collector.store.condense import hold_spans, strike_off

DAY_S = 86_400
PROCESSES_PER_SERVICE = 4
SITES_PER_HOTSPOT = 2
OPERATIONS = [
    "time.sleep",
    "open",
    "socket.getaddrinfo",
    "socket.socket.connect",
    "sqlite3.connect",
    "subprocess.Popen",
    "os.listdir",
    "os.stat",
    "threading.Lock.acquire",
    "queue.Queue.get",
    "cpu",
    "ssl.read",
]
SHAPES = 6
"""Kinds of histograms: three bins each."""
_OWN = "a.site_id = r.site_id AND r.release_id IN (a.old, a.new)"
"""What the fleet did, and not the agents that report meanwhile."""


def _bin_expression(name: str, index: int) -> str:
    shapes = [shape for shape in range(SHAPES) if index in (2 + 3 * shape, 7 + 4 * shape, 12 + 5 * shape)]
    cases = "".join(f" WHEN {shape} THEN {1 if index == 12 + 5 * shape else 'r.count / 2 + 1'}" for shape in shapes)
    return f"CASE a.shape{cases} END AS {name}" if shapes else f"CAST(NULL AS BIGINT) AS {name}"


async def fill_fleet(engine: AsyncEngine, *, services: int, sites: int, days: int, now_s: int) -> None:
    """Fill the empty, migrated store; commits as it goes."""
    today_s = now_s - now_s % DAY_S
    async with engine.begin() as connection:
        await _dimensions(connection, services, sites, days, now_s)
    async with engine.begin() as connection:
        await _presence(connection, services, sites, range(today_s - (days - 1) * DAY_S, today_s + 1, DAY_S))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE minutes (bucket_s BIGINT PRIMARY KEY, n BIGINT)")
        await _minutes(connection, range(today_s - 2 * DAY_S, now_s, 60), 0, released_s=today_s - DAY_S)
    for finer, coarser, kept_days in (("minute", "hour", min(14, days)), ("hour", "day", days)):
        async with engine.begin() as connection:
            await _sum_up(connection, finer, coarser, 3600 if coarser == "hour" else DAY_S)
        first_copied = 3 if coarser == "hour" else 14
        for age in range(first_copied, kept_days):
            async with engine.begin() as connection:
                await _copy_yesterday(connection, coarser, today_s - DAY_S, (age - 1) * DAY_S)


async def extend_fleet(connection: AsyncConnection, *, until_s: int) -> None:
    """Add the minutes from where the fleet's end up to then, whole ones, in the caller's transaction."""
    await hold_spans(connection)
    (last_s, last), *_ = await connection.exec_driver_sql("SELECT max(bucket_s), max(n) FROM minutes")
    starts_s = range(last_s + 60, until_s, 60)
    if not starts_s:
        return
    (last_day_s,), *_ = await connection.exec_driver_sql("SELECT max(day_s) FROM presence")
    days_s = range(last_day_s + DAY_S, until_s, DAY_S)
    if days_s:
        (services,), *_ = await connection.exec_driver_sql(
            "SELECT count(DISTINCT name) FROM services WHERE name LIKE 'service-%'"
        )
        (sites,), *_ = await connection.exec_driver_sql("SELECT count(*) FROM active")
        await _presence(connection, services, sites, days_s)
    await _minutes(connection, starts_s, last + 1, released_s=0)
    await _see(connection, starts_s[0])
    for coarser, length_s in (("hour", 3600), ("day", DAY_S)):
        await _sum_up(connection, "minute", coarser, length_s, since_s=starts_s[0])
    await strike_off(connection, starts_s)


async def _insert(connection: AsyncConnection, table: str, rows: Iterable[tuple], columns: int) -> None:
    numbered = connection.dialect.name == "postgresql"
    marks = ", ".join(f"${n}" if numbered else "?" for n in range(1, columns + 1))
    names = ""
    if table in schema.metadata.tables:  # columns that later versions added at its end may stay empty
        names = (
            "("
            + ", ".join(f'"{column.name}"' for column in list(schema.metadata.tables[table].columns)[:columns])
            + ")"
        )
    await connection.exec_driver_sql(f"INSERT INTO {table} {names} VALUES ({marks})", list(rows))


async def _dimensions(connection: AsyncConnection, services: int, sites: int, days: int, now_s: int) -> None:
    first_ms, last_ms = (now_s - days * DAY_S) * 1000, now_s * 1000
    randomly = random.Random(7)
    await connection.exec_driver_sql(
        "CREATE TABLE active (site_id BIGINT PRIMARY KEY, n BIGINT, p BIGINT, shape BIGINT, old BIGINT, new BIGINT)"
    )
    rows: dict[str, list[tuple]] = {
        name: [] for name in ("services", "releases", "agents", "hotspots", "sites", "active")
    }
    for number in range(services):
        name, environment = f"service-{number:03}", "prod" if number % 4 else "staging"
        service = ids.service_id(name, environment)
        old, new = ids.release_id(service, "1.4.0"), ids.release_id(service, "1.5.0")
        rows["services"].append((service, name, environment, first_ms, last_ms))
        rows["releases"] += [(old, service, "1.4.0", first_ms, last_ms), (new, service, "1.5.0", last_ms, last_ms)]
        for process in range(PROCESSES_PER_SERVICE):
            rows["agents"].append(
                (f"{number * 100 + process:032x}", service, new, process, f"host-{process}", "3.12", "uvloop", "0.1",
                 "unix", first_ms, first_ms, last_ms, 1, "[]", None, 1, 0, 0, "{}", 1, 1, 1)
            )  # fmt: skip
        for index in range(sites // services):
            path, function = f"service_{number:03}/part_{index // 8}.py", f"function_{index // SITES_PER_HOTSPOT}"
            hotspot, site = ids.hotspot_id(service, path, function), ids.site_id(service, index)
            seen = (first_ms, last_ms, old, new)
            if index % SITES_PER_HOTSPOT == 0:
                rows["hotspots"].append((hotspot, service, path, function, "open", "", *seen))
            operation = OPERATIONS[(number + index) % len(OPERATIONS)]
            rows["sites"].append(
                (site, hotspot, service, operation, ids.to_signed(site * 31 % (1 << 64)), "io", "io_blocking",
                 (1, 10, 50)[index % 3], 10 + index, path, 10 + index, function, "[]", "Do it elsewhere.", *seen)
            )  # fmt: skip
            rank = randomly.randrange(sites) + 1
            rows["active"].append(
                (site, len(rows["active"]), min(10**6, 40_000 * sites // rank), rank % SHAPES, old, new)
            )
    for table, part in rows.items():
        await _insert(connection, table, part, len(part[0]))


async def _presence(connection: AsyncConnection, services: int, sites: int, days_s: Iterable[int]) -> None:
    by_site = sorted(
        (ids.site_id(ids.service_id(f"service-{number:03}", "prod" if number % 4 else "staging"), index), number)
        for number in range(services)
        for index in range(sites // services)
    )
    for day_s in days_s:
        rows = (
            (day_s, site, f"{number * 100 + process:032x}")
            for site, number in by_site
            for process in range(PROCESSES_PER_SERVICE)
        )
        await _insert(connection, "presence", rows, 3)


async def _minutes(connection: AsyncConnection, starts_s: range, first: int, *, released_s: int) -> None:
    """The first of them is the fleet's minute with that number."""
    await _insert(connection, "minutes", ((start_s, n) for n, start_s in enumerate(starts_s, first)), 2)
    drawn = "((m.n * 7919 + 13) * (a.n * 104729 + 7)) % 1000003"
    await connection.exec_driver_sql(
        f"INSERT INTO rollups_minute SELECT m.bucket_s, a.site_id, CASE WHEN m.bucket_s < {released_s} THEN a.old ELSE "
        "a.new END, 20 + (m.n + a.n) % 30, (m.n * a.n) % 3, 40000 + a.p / 10 + (m.n * 31 + a.n * 17) % 9000, "
        "30000 + (m.n * 7 + a.n * 13) % 90000 "
        f"FROM minutes m CROSS JOIN active a WHERE m.bucket_s >= {starts_s[0]} AND {drawn} < a.p "
        "ORDER BY m.bucket_s, a.site_id"
    )
    bins = ", ".join(_bin_expression(name, index) for index, name in enumerate(schema.BIN_COLUMNS))
    await connection.exec_driver_sql(
        f"INSERT INTO histograms_minute SELECT r.bucket_s, r.site_id, r.release_id, {bins} "
        f"FROM rollups_minute r JOIN active a ON {_OWN} WHERE r.bucket_s >= {starts_s[0]} "
        "ORDER BY r.bucket_s, r.site_id"
    )


async def _see(connection: AsyncConnection, since_s: int) -> None:
    """Sites and hotspots were last seen when they were active."""
    if connection.dialect.name == "postgresql":  # as commits do, so that nobody waits for each other
        await connection.exec_driver_sql("SELECT id FROM services ORDER BY id FOR UPDATE")
    active = (
        f"(SELECT site_id, max(bucket_s) * 1000 AS at_ms FROM rollups_minute WHERE bucket_s >= {since_s} GROUP BY 1)"
    )
    for table, seen in (
        ("sites", active),
        (
            "hotspots",
            f"(SELECT hotspot_id, max(at_ms) AS at_ms FROM {active} AS a JOIN sites ON id = site_id GROUP BY 1)",
        ),
    ):
        key = "site_id" if table == "sites" else "hotspot_id"
        await connection.exec_driver_sql(
            f"UPDATE {table} SET last_seen_ms = seen.at_ms FROM {seen} AS seen "
            f"WHERE {table}.id = seen.{key} AND {table}.last_seen_ms < seen.at_ms"
        )


def _tables(resolution: str) -> Iterator[tuple[str, list[str]]]:
    yield f"rollups_{resolution}", ["count", "slow_count", "blocked_us", "max_us"]
    yield f"histograms_{resolution}", list(schema.BIN_COLUMNS)


async def _sum_up(connection: AsyncConnection, finer: str, coarser: str, length_s: int, *, since_s: int = 0) -> None:
    """What the fleet did since then: a collector adds up itself what it takes in."""
    for (source, columns), (target, _) in zip(_tables(finer), _tables(coarser), strict=True):
        sums = ", ".join(f"max({name})" if name == "max_us" else f"CAST(sum({name}) AS BIGINT)" for name in columns)
        changes = ", ".join(f"{name} = {_merged(target, name)}" for name in columns)
        await connection.exec_driver_sql(
            f"INSERT INTO {target} SELECT bucket_s - bucket_s % {length_s} AS start_s, r.site_id, release_id, {sums} "
            f"FROM {source} AS r JOIN active AS a ON {_OWN} WHERE bucket_s >= {since_s} "
            "GROUP BY start_s, r.site_id, release_id "
            f"ON CONFLICT (bucket_s, site_id, release_id) DO UPDATE SET {changes}"
        )


def _merged(table: str, name: str) -> str:
    old, new = f"{table}.{name}", f"excluded.{name}"
    if name == "max_us":
        return f"CASE WHEN {new} > {old} THEN {new} ELSE {old} END"
    return f"coalesce({old} + {new}, {old}, {new})"


async def _copy_yesterday(connection: AsyncConnection, resolution: str, yesterday_s: int, back_s: int) -> None:
    for table, columns in _tables(resolution):
        names = ", ".join(columns)
        await connection.exec_driver_sql(
            f"INSERT INTO {table} SELECT bucket_s - {back_s}, site_id, release_id, {names} FROM {table} "
            f"WHERE bucket_s >= {yesterday_s} AND bucket_s < {yesterday_s + DAY_S}"
        )
