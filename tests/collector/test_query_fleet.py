"""Services, operations and agents, against the activity itself."""

import pytest
from tests.support.known_activity import NOW_S, rfc3339

DAY = (1_769_774_400, 1_769_864_400)
MONTH = (1_767_225_600, 1_769_904_000)
OVERHEAD = {"share": 0.0145, "budget": 0.01, "level": 2, "since": rfc3339(1_769_774_400), "reductions": 5}


def visible(fleet, since_s, until_s):
    return [one for one in fleet.calls if since_s <= one.minute_s < until_s and fleet.status(one.hotspot) != "ignored"]


def home(calls):
    return (calls.process.service, calls.process.environment)


@pytest.mark.parametrize(("since", "window"), [("24h", DAY), ("30d", MONTH)])
async def test_services_are_what_the_activity_says(api, fleet, since, window):
    answer = (await api.get("/services", params={"since": since})).json()
    assert (answer["window"]["since"], answer["window"]["until"]) == (rfc3339(window[0]), rfc3339(window[1]))
    homes = {home(one) for one in fleet.calls}
    shown = {(row["name"], row["environment"]): row for row in answer["services"]}
    assert shown.keys() == homes
    for key, row in shown.items():
        of_all_time = sorted((one for one in fleet.calls if home(one) == key), key=lambda one: one.minute_s)
        active = [one for one in visible(fleet, *window) if home(one) == key]
        assert row["releases"] == list(dict.fromkeys(one.process.release for one in of_all_time))
        assert row["hotspots"] == len({one.hotspot for one in active})
        assert row["count"] == sum(len(one.durations_us) for one in active)
        assert row["blocked_ms"] == pytest.approx(sum(sum(one.durations_us) for one in active) / 1000, abs=0.000_6)
        seen = {}
        for one in of_all_time:
            first_s, _ = seen.get(one.process, (one.minute_s, None))
            seen[one.process] = (first_s, one.minute_s)
        assert row["agents"] == sum(last_s >= window[0] and first_s < window[1] for first_s, last_s in seen.values())
        assert row["first_seen"] == rfc3339(of_all_time[0].minute_s)
        assert row["last_seen"] == rfc3339(of_all_time[-1].minute_s)
    costs = [row["blocked_ms"] for row in answer["services"]]
    assert costs == sorted(costs, reverse=True)


async def test_services_can_be_picked(api):
    answer = (await api.get("/services", params={"service": ["shop", "mail"], "environment": ["staging", ""]})).json()
    assert {(row["name"], row["environment"]) for row in answer["services"]} == {("shop", "staging"), ("mail", "")}


async def test_operations_are_what_the_activity_says(api, fleet):
    answer = (await api.get("/operations", params={"since": "30d", "service": ["shop", "billing"]})).json()
    active = [one for one in visible(fleet, *MONTH) if one.process.service in ("shop", "billing")]
    shown = {row["name"]: row for row in answer["operations"]}
    assert shown.keys() == {one.place.operation for one in active}
    for name, row in shown.items():
        calls = [one for one in active if one.place.operation == name]
        assert row["count"] == sum(len(one.durations_us) for one in calls)
        assert row["slow_count"] == sum(one.slow_count for one in calls)
        assert row["blocked_ms"] == pytest.approx(sum(sum(one.durations_us) for one in calls) / 1000, abs=0.000_6)
        assert row["max_ms"] == pytest.approx(max(max(one.durations_us) for one in calls) / 1000, abs=0.000_6)
        assert row["hotspots"] == len({one.hotspot for one in calls})
        assert row["services"] == len({home(one) for one in calls})
        assert row["severity_score"] == max(one.place.weight for one in calls)
    costs = [row["blocked_ms"] for row in answer["operations"]]
    assert costs == sorted(costs, reverse=True)


async def test_agents_say_who_they_are_and_what_became_of_their_reports(api, fleet):
    answer = (await api.get("/agents")).json()
    processes = {one.process.agent_id: one.process for one in fleet.calls}
    assert answer["total"] == len(processes)
    assert {agent["id"] for agent in answer["agents"]} == processes.keys()
    in_force = {"revision": 3, "active": False, "threshold_ms": 5.0, "trace_depth": 7, "refused": "why"}
    for agent in answer["agents"]:
        process = processes[agent["id"]]
        minutes = [one.minute_s for one in fleet.calls if one.process == process]
        transport, tail = {
            0: ("unix", None), 1: ("udp", "complete"), 2: ("unix", None), 3: ("udp", "unknown"),
        }[process.pid % 4]  # fmt: skip
        assert agent == {
            "id": process.agent_id,
            "service": process.service,
            "environment": process.environment,
            "release": process.release,
            "pid": process.pid,
            "host": f"host-{process.pid % 3}",
            "python": "3.12.1",
            "loop": "uvloop",
            "agent_version": "0.1.0",
            "transport": transport,
            "started_at": rfc3339(min(minutes) - 1).replace("Z", ".999Z"),
            "first_seen": rfc3339(min(minutes)),
            "last_seen": rfc3339(max(minutes)),
            "committed_sequence": 17,
            "reports_received": 17,
            "reports_lost": 1,
            "reports_duplicated": 2,
            "tail": tail,
            "dropped": {"queue_full_events": 3},
            "recorded": 1234,
            "slices": 99,
            "agent_cpu_ms": 4.567,
            "loops": [],
            "overhead": None if process.pid % 2 else OVERHEAD,
            "stalls": [],
            "control": {
                "reachable": False,
                "unreachable": "udp" if transport == "udp" else "gone",
                "wanted": {"active": None, "threshold_ms": None, "trace_depth": None},
                "revision": 0,
                "in_force": None if transport == "udp" else in_force | {"at": rfc3339(min(minutes))},
            },
        }
    seen = [agent["last_seen"] for agent in answer["agents"]]
    assert seen == sorted(seen, reverse=True)


async def test_agents_can_be_picked(api, fleet):
    answer = (await api.get("/agents", params={"service": "shop", "environment": "prod", "limit": 1})).json()
    assert answer["total"] == len({one.process for one in fleet.calls if home(one) == ("shop", "prod")}) > 1
    assert len(answer["agents"]) == 1
    recent = (await api.get("/agents", params={"since": "1h"})).json()
    assert {agent["id"] for agent in recent["agents"]} == {
        one.process.agent_id for one in fleet.calls if one.minute_s >= NOW_S - 3600
    }
    assert (await api.get("/agents", params={"since": "yesterday"})).status_code == 422
