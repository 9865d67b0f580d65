"""One hotspot in full, its timeline, and decisions about it, against the activity itself."""

import asyncio
from collections import defaultdict

import pytest
from tests.support.api_client import serving
from tests.support.expected_hotspots import Asked, expected_rows
from tests.support.fill_store import fill
from tests.support.known_activity import NOW_S, PLACES, Calls, Fleet, Process, hex_id, id_of, rfc3339

from aiocop_collector.store.schema import slow_events

MONTH = (1_767_225_600, 1_769_904_000)
ALL_STATUSES = ("open", "regressed", "resolved", "ignored")


async def test_a_hotspot_in_full_is_what_the_activity_says(api, fleet):
    rows = expected_rows(fleet, Asked(status=ALL_STATUSES), "call_site", *MONTH)
    shown = {row["id"]: row for row in (await api.get("/hotspots", params={"since": "30d"})).json()["hotspots"]}
    assert len(rows) > len(shown) > 5
    for hotspot_id, expected in rows.items():
        detail = (await api.get(f"/hotspots/{hotspot_id}", params={"since": "30d"})).json()
        if hotspot_id in shown:
            assert {name: detail[name] for name in shown[hotspot_id]} == shown[hotspot_id]
        assert detail["window"] == {"since": rfc3339(MONTH[0]), "until": rfc3339(MONTH[1]), "resolution_s": 86_400}
        for name in ("call_site", "count", "slow_count", "processes", "status", "first_seen", "last_release"):
            assert detail[name] == expected[name]
        calls = [one for one in fleet.calls if hex_id("hotspot", *one.hotspot) == hotspot_id]
        active = [one for one in calls if MONTH[0] <= one.minute_s < MONTH[1]]
        assert_divided(detail["lines"], "line", active, lambda one: one.place.line)
        assert_divided(detail["entry_points"], "entry_point", active, lambda one: one.place.entry_point)
        assert_divided(detail["releases"], "name", active, lambda one: one.process.release)
        assert_divided(
            [site for site in detail["sites"] if site["count"]], "id", active, lambda one: hex_id("site", *one.site)
        )
        assert {site["id"] for site in detail["sites"]} == {hex_id("site", *one.site) for one in calls}
        assert {agent["id"] for agent in detail["agents"]} == {one.process.agent_id for one in active}
        assert {trace["site_id"] for trace in detail["traces"]} == {site["id"] for site in detail["sites"]}


def assert_divided(parts, name, calls, value):
    """That the parts have the counts and times of the calls they stand for, costliest first."""
    expected = defaultdict(lambda: [0, 0, 0, 0])
    for one in calls:
        totals = expected[value(one)]
        totals[0] += len(one.durations_us)
        totals[1] += one.slow_count
        totals[2] += sum(one.durations_us)
        totals[3] = max(totals[3], *one.durations_us)
    assert {part[name]: (part["count"], part["slow_count"]) for part in parts} == {
        key: (count, slow_count) for key, (count, slow_count, _, _) in expected.items()
    }
    for part in parts:
        _, _, blocked_us, max_us = expected[part[name]]
        assert part["blocked_ms"] == pytest.approx(blocked_us / 1000, abs=0.000_6)
        assert part["max_ms"] == pytest.approx(max_us / 1000, abs=0.000_6)
    assert [part["blocked_ms"] for part in parts] == sorted((part["blocked_ms"] for part in parts), reverse=True)


async def test_frames_say_what_is_application_code(api):
    hotspot_id = hex_id("hotspot", "shop", "prod", "shop/orders.py", "create_order")
    detail = (await api.get(f"/hotspots/{hotspot_id}", params={"since": "30d"})).json()
    site = next(site for site in detail["sites"] if site["operation"] == "socket.getaddrinfo")
    assert site["frames"] == [
        {"path": "socket.py", "line": 836, "function": "create_connection", "kind": "standard"},
        {"path": "shop/orders.py", "line": 42, "function": "create_order", "kind": "application"},
    ]
    assert site["entry_point"] == "socket.py:836:create_connection"
    trace = next(trace for trace in detail["traces"] if trace["site_id"] == site["id"])
    assert trace["frames"][-1] == {"path": "uvicorn/run.py", "line": 7, "function": "run", "kind": "library"}


async def test_a_hotspot_that_was_idle_in_the_window_is_still_there(tmp_path):
    process = Process("shop", "prod", "1.0", 1)
    day_ago_s = NOW_S // 60 * 60 - 86_400
    url = f"sqlite+aiosqlite:///{tmp_path}/collector.db"
    await fill(url, Fleet((Calls(process, PLACES[0], day_ago_s, (70_000,), 1),)))
    async with serving(url) as client:
        hotspot_id = hex_id("hotspot", "shop", "prod", "shop/orders.py", "create_order")
        detail = (await client.get(f"/hotspots/{hotspot_id}", params={"since": "15m"})).json()
    assert detail["call_site"] == "shop/orders.py:42:create_order"
    assert (detail["count"], detail["blocked_ms"], detail["share"], detail["p99_ms"]) == (0, 0, 0, None)
    assert detail["last_seen"] == rfc3339(day_ago_s)
    assert detail["operations"] == detail["lines"] == detail["releases"] == []
    assert [site["operation"] for site in detail["sites"]] == ["socket.getaddrinfo"]


async def test_the_timeline_has_every_bucket_of_the_window(api, fleet):
    hotspot_id = hex_id("hotspot", "shop", "prod", "shop/orders.py", "create_order")
    calls = [one for one in fleet.calls if hex_id("hotspot", *one.hotspot) == hotspot_id]
    for since, bucket_s, buckets in (("1h", 60, 61), ("7d", 3600, 169), ("30d", 86_400, 31)):
        timeline = (await api.get(f"/hotspots/{hotspot_id}/timeline", params={"since": since})).json()
        assert timeline["id"] == hotspot_id
        assert timeline["window"]["resolution_s"] == bucket_s
        assert len(timeline["buckets"]) == buckets
        assert timeline["buckets"][0]["at"] == timeline["window"]["since"]
        expected = defaultdict(lambda: [0, 0])
        for one in calls:
            expected[rfc3339(one.minute_s // bucket_s * bucket_s)][0] += len(one.durations_us)
            expected[rfc3339(one.minute_s // bucket_s * bucket_s)][1] += sum(one.durations_us)
        for bucket in timeline["buckets"]:
            count, blocked_us = expected[bucket["at"]]
            assert (bucket["count"], bucket["blocked_ms"]) == (count, pytest.approx(blocked_us / 1000, abs=0.000_6))
        assert sum(bucket["count"] for bucket in timeline["buckets"]) > 0


async def test_slow_events_are_shown_with_their_context(own_store):
    hotspot, site = id_of("hotspot", "shop", "prod", "shop/orders.py", "create_order"), id_of("a site")
    process = Process("shop", "prod", "1.0", 1)
    await fill(str(own_store.url), Fleet((Calls(process, PLACES[0], NOW_S // 60 * 60, (70_000,), 1),)))
    event = (
        '{"started_at_ms":%d,"elapsed_us":70100,"threshold_us":30000,"cause":"io","severity_score":50,"sites":'
        '[{"site_id":%d,"count":1,"blocked_us":70000,"trace_id":null}],"task_name":"Task-7","thread_name":"MainThread",'
        '"loop":"uvloop","cpu_us":-1,"gc_us":0,"context":{"route":"/orders","retries":2}}'
    )
    async with own_store.begin() as connection:
        for age_s in (5, 1, 100_000):
            at_ms = (NOW_S - age_s) * 1000 + 250
            await connection.execute(
                slow_events.insert().values(
                    id=age_s, hotspot_id=hotspot, agent_id=process.agent_id, started_at_ms=at_ms, elapsed_us=70_100,
                    cause="io", event=event % (at_ms, site),
                )
            )  # fmt: skip
    async with serving(str(own_store.url)) as client:
        detail = (await client.get(f"/hotspots/{hotspot & (1 << 64) - 1:016x}")).json()
    assert [event["id"] for event in detail["slow_events"]] == [f"{1:016x}", f"{5:016x}"]
    assert detail["slow_events"][0] == {
        "id": f"{1:016x}", "agent": process.agent_id, "started_at": "2026-01-31T12:34:55.250Z", "elapsed_ms": 70.1,
        "threshold_ms": 30.0, "cause": "io", "severity_score": 50, "task_name": "Task-7", "thread_name": "MainThread",
        "loop": "uvloop", "cpu_ms": None, "gc_ms": 0.0, "waiting": None, "context": {"route": "/orders", "retries": 2},
        "capture": None,
        "sites": [{"site_id": hex_id("a site"), "trace_id": None, "count": 1, "blocked_ms": 70.0, "arguments": {}}],
    }  # fmt: skip


async def test_a_decision_is_kept_and_changes_what_is_shown(own_store):
    process = Process("shop", "prod", "1.0", 1)
    await fill(
        str(own_store.url),
        Fleet(tuple(Calls(process, place, NOW_S // 60 * 60, (70_000,), 1) for place in (PLACES[0], PLACES[3]))),
    )
    path = "/hotspots/" + hex_id("hotspot", "shop", "prod", "shop/orders.py", "create_order")
    async with serving(str(own_store.url)) as client:

        async def shown(**filters):
            return {
                row["call_site"]: row["share"]
                for row in (await client.get("/hotspots", params=filters)).json()["hotspots"]
            }

        assert len(await shown()) == 2
        answer = await client.patch(path, json={"status": "ignored", "note": "known since June"})
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["note"]) == ("ignored", "known since June")
        assert await shown() == {"shop/orders.py:99:Order.total": 1.0}
        assert await shown(status="ignored") == {"shop/orders.py:42:create_order": 1.0}
        assert (await client.get(path)).json()["share"] == 0.5
        answer = await client.patch(path, json={"status": "resolved"})
        assert (answer.json()["status"], answer.json()["note"]) == ("resolved", "known since June")
        assert len(await shown()) == 2
        answer = await client.patch(path, json={"note": ""})
        assert (answer.json()["status"], answer.json()["note"]) == ("resolved", "")
        assert (await client.patch(path, json={})).json()["status"] == "resolved"
        assert (await client.patch("/hotspots/0123456789abcdef", json={"status": "open"})).status_code == 404


async def test_an_answer_is_of_one_moment_while_activity_arrives(own_store):
    """The parts of a row come from several statements; they must add up although a writer commits between them."""
    process = Process("shop", "prod", "1.0", 1)
    minute_s = NOW_S // 60 * 60
    await fill(str(own_store.url), Fleet((Calls(process, PLACES[0], minute_s, (70_000,), 1),)))
    stop = asyncio.Event()

    commits = []

    async def write():
        while not stop.is_set():
            async with own_store.begin() as connection:
                await connection.exec_driver_sql("UPDATE rollups_hour SET count = count + 1")
            commits.append(None)

    async with serving(str(own_store.url)) as client:
        writer = asyncio.create_task(write())
        try:
            asked = 0
            while asked < 50 or len(commits) <= 10:
                asked += 1
                row = (await client.get("/hotspots")).json()["hotspots"][0]
                assert sum(operation["count"] for operation in row["operations"]) == row["count"]
        finally:
            stop.set()
            await writer
    assert row["count"] > 1
