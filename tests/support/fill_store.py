"""A store filled with known activity by plain SQL, as ingest would have left it. Ids are numbers made up here."""

import json
from collections import defaultdict

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from tests.support.known_activity import DAY_S, Calls, Fleet, Place, Process, id_of

from aiocop_collector.store import schema
from aiocop_wire import bin_of

OVERHEADS = ("[2,14500,10000,1769774400000,5]", None)
"""What agents with an even and with an odd pid say that they cost."""


async def fill(url: str, fleet: Fleet) -> None:
    """Create the tables in an empty database and write the fleet's activity, as ingest would have left it."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(schema.metadata.create_all)
        await insert_activity(engine, fleet)
    finally:
        await engine.dispose()


async def insert_activity(engine: AsyncEngine, fleet: Fleet) -> None:
    async with engine.begin() as connection:
        for table, rows in _rows(fleet).items():
            keys = list(rows)
            for start in range(0, len(keys), 200):
                await connection.execute(table.insert(), [rows[key] for key in keys[start : start + 200]])


def _rows(fleet: Fleet) -> dict:
    """Rows by table, then by whatever tells them apart."""
    rows: dict = defaultdict(dict)
    # In order of time: the first to write a row was the first to see it, the last to update it the last.
    for calls in sorted(fleet.calls, key=lambda one: one.minute_s):
        process, place, at_ms = calls.process, calls.place, calls.minute_s * 1000
        service = id_of("service", process.service, process.environment)
        release = id_of("release", service, process.release)
        hotspot, site = id_of("hotspot", *calls.hotspot), id_of("site", *calls.site)

        def see(table, row, *, releases=True, at_ms=at_ms, release=release):
            first = {"first_seen_ms": at_ms} | ({"first_release_id": release} if releases else {})
            last = {"last_seen_ms": at_ms} | ({"last_release_id": release} if releases else {})
            rows[table].setdefault(row["id"], first | row).update(last)

        see(
            schema.services,
            {"id": service, "name": process.service, "environment": process.environment},
            releases=False,
        )
        see(schema.releases, {"id": release, "service_id": service, "name": process.release}, releases=False)
        see(
            schema.hotspots,
            {
                "id": hotspot,
                "service_id": service,
                "path": place.path,
                "function": place.function,
                "status": fleet.status(calls.hotspot),
                "note": "",
            },
        )
        see(schema.sites, _site_row(site, hotspot, service, place))
        see(schema.agents, _agent_row(process, service, release, at_ms), releases=False)
        rows[schema.traces][site] = {
            "id": id_of("trace", site),
            "site_id": site,
            "frames": json.dumps([*_frames(place), ["uvicorn/run.py", 7, "run", 1]]),
            "last_seen_ms": at_ms,
        }
        presence = (calls.minute_s // DAY_S * DAY_S, site, process.agent_id)
        rows[schema.presence][presence] = dict(zip(("day_s", "site_id", "agent_id"), presence, strict=True))
        for resolution in schema.RESOLUTIONS:
            _add_counters(rows, resolution, site, release, calls)
    return rows


def _frames(place: Place) -> list:
    path, line, function = place.entry
    call_site = [place.path, place.line, place.function, 0]
    return [call_site] if (path, line, function) == tuple(call_site[:3]) else [[path, line, function, 2], call_site]


def _site_row(site: int, hotspot: int, service: int, place: Place) -> dict:
    path, line, function = place.entry
    return {
        "id": site,
        "hotspot_id": hotspot,
        "service_id": service,
        "operation": place.operation,
        "fingerprint": place.fingerprint,
        "cause": "io",
        "reason": place.reason,
        "weight": place.weight,
        "line": place.line,
        "entry_path": path,
        "entry_line": line,
        "entry_function": function,
        "frames": json.dumps(_frames(place)),
        "advice": place.advice,
    }


def _agent_row(process: Process, service: int, release: int, at_ms: int) -> dict:
    return {
        "id": process.agent_id,
        "service_id": service,
        "release_id": release,
        "pid": process.pid,
        "host": f"host-{process.pid % 3}",
        "python": "3.12.1",
        "loop": "uvloop",
        "agent_version": "0.1.0",
        "transport": "udp" if process.pid % 2 else "unix",
        "started_at_ms": at_ms - 1,
        "committed_sequence": 17,
        "received_ranges": "[[1, 17]]",
        "farewell_sequence": 18 if process.pid % 4 == 1 else None,
        "reports_received": 17,
        "reports_lost": 1,
        "reports_duplicated": 2,
        "dropped": json.dumps({"queue_full_events": 3}),
        "recorded": 1234,
        "slices": 99,
        "agent_cpu_us": 4567,
        "overhead": OVERHEADS[process.pid % 2],
        "control": None if process.pid % 2 else json.dumps([True, [3, False, 5_000, 7, "why"], at_ms]),
    }


def _add_counters(rows: dict, resolution: schema.Resolution, site: int, release: int, calls: Calls) -> None:
    key = (calls.minute_s // resolution.seconds * resolution.seconds, site, release)
    columns = dict(zip(("bucket_s", "site_id", "release_id"), key, strict=True))
    empty = {"count": 0, "slow_count": 0, "blocked_us": 0, "max_us": 0}
    counters = rows[resolution.rollups].setdefault(key, columns | empty)
    counters["count"] += len(calls.durations_us)
    counters["slow_count"] += calls.slow_count
    counters["blocked_us"] += sum(calls.durations_us)
    counters["max_us"] = max(counters["max_us"], *calls.durations_us)
    bins = rows[resolution.histograms].setdefault(key, columns | dict.fromkeys(schema.BIN_COLUMNS))
    for duration_us in calls.durations_us:
        column = schema.BIN_COLUMNS[bin_of(duration_us * 1000)]
        bins[column] = (bins[column] or 0) + 1
