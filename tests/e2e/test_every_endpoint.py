"""Known activity of several services, releases and processes, sent over the wire to a real collector: every endpoint
must answer what the activity itself says, worked out without the collector's code."""

import random
import time
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.collector import CollectorProcess, DatagramPeer, StreamPeer, run_collector
from tests.support.expected_hotspots import GROUP_KEYS, Asked, assert_same, expected_rows
from tests.support.known_activity import DAY_S, NOW_S, Calls, Fleet, Place, Process, make_fleet, rfc3339
from tests.support.postgres_server import find_binaries, run_postgres
from tests.support.sql import make_database
from tests.support.waiting import wait_until

from aiocop_wire import Define, Frame, Identity, Report, SiteDefinition, SiteDelta, Stall, bin_of

SHIFT_S = int(time.time() - NOW_S) // DAY_S * DAY_S
NOW = NOW_S + SHIFT_S
"""What the activity takes for now: less than a day ago."""

WINDOWS = {"1h": 3600, "24h": DAY_S, "30d": 30 * DAY_S}
SORTS = {"count": "count", "slow_count": "slow_count", "max": "max_ms", "p99": "p99_ms", "last_seen": "last_seen"}
FILTERS = (
    Asked(service=("shop",), environment=("prod",), operation=("open", "cpu")),
    Asked(release=("1.5.2", "8")),
    Asked(reason=("cpu_blocking",), status=("open", "resolved", "ignored")),
    Asked(q=("COMMON/", "getaddrinfo")),
    Asked(service=("nobody",)),
)
REPORTS_SENT_TWICE = 3
STALL_US = 7_000_000


def make_activity() -> Fleet:
    """The known fleet, moved to the present. What was `regressed` is left open: nobody can decide that."""
    fleet = make_fleet(seed=7, groups_of_calls=300)
    statuses = {hotspot: status for hotspot, status in fleet.statuses.items() if status != "regressed"}
    return Fleet(tuple(replace(calls, minute_s=calls.minute_s + SHIFT_S) for calls in fleet.calls), statuses)


def identity_of(process: Process) -> Identity:
    return Identity(
        bytes.fromhex(process.agent_id), process.pid, "host-1", process.service, process.environment, process.release,
        "3.12.1", "uvloop", "0.1.0", (NOW - 60 * DAY_S) * 1000,
    )  # fmt: skip


def site_id(place: Place) -> int:
    """As an agent would number it."""
    return random.Random(repr(place)).getrandbits(64)


def definition(place: Place) -> SiteDefinition:
    path, line, function = place.entry
    call_site = Frame(place.path, place.line, place.function, 0)
    frames = (call_site,) if (path, line) == (place.path, place.line) else (Frame(path, line, function, 2), call_site)
    return SiteDefinition(
        site_id(place), place.operation, place.fingerprint & (1 << 64) - 1, "io", place.reason, place.weight, frames,
        len(frames) - 1, place.advice,
    )  # fmt: skip


def report(sequence: int, calls: Calls) -> Report:
    bins = Counter(bin_of(duration_us * 1000) for duration_us in calls.durations_us)
    delta = SiteDelta(
        site_id(calls.place), len(calls.durations_us), calls.slow_count, sum(calls.durations_us),
        max(calls.durations_us), tuple(number for pair in sorted(bins.items()) for number in pair),
    )  # fmt: skip
    return Report(sequence, calls.minute_s * 1000, 0, (delta,))


def stall_of(calls: Calls) -> Stall:
    """A loop that is frozen while this is sent, at the place of these calls."""
    frames = definition(calls.place).frames
    return Stall(9, int(time.time() * 1000) - STALL_US // 1000, STALL_US, site_id=site_id(calls.place), frames=frames)


def feed(collector: CollectorProcess, fleet: Fleet) -> None:
    """Each process reports for itself, in no order of time, with an odd pid over udp; all repeat a few reports."""
    by_process: dict[Process, list[Calls]] = defaultdict(list)
    for calls in fleet.calls:
        by_process[calls.process].append(calls)
    for process, all_calls in by_process.items():
        reports = [report(number, calls) for number, calls in enumerate(all_calls, start=1)]
        sites = {site_id(calls.place): definition(calls.place) for calls in all_calls}
        if process.pid % 2:
            with DatagramPeer(collector.udp) as agent:
                for one, calls in zip(reports, all_calls, strict=True):
                    agent.send(identity_of(process), one, sites[site_id(calls.place)])
                for one in reports[:REPORTS_SENT_TWICE]:
                    agent.send(identity_of(process), one)
                agent.send(identity_of(process), farewell=len(reports))
        else:
            with StreamPeer(collector.socket_path) as agent:
                agent.greet(identity_of(process))
                agent.send(Define(tuple(sites.values())), stall_of(all_calls[0]), *reports)
                agent.wait_for_ack(len(reports))
                agent.send(*reports[-REPORTS_SENT_TWICE:])
                agent.wait_for_ack(len(reports))
    sent = sum(len(all_calls) for all_calls in by_process.values())
    wait_until(
        lambda: sum(agent["reports_received"] for agent in collector.get("/agents")["agents"]) == sent, "all reports"
    )


def decide(collector: CollectorProcess, fleet: Fleet) -> dict[tuple, str]:
    """Say of each hotspot what was decided; their ids."""
    every = {"status": ["open", "regressed", "resolved", "ignored"], "since": rfc3339(NOW - 60 * DAY_S)}
    ids = {}
    for row in collector.get("/hotspots", **every)["hotspots"]:
        path, _, rest = row["call_site"].partition(":")
        ids[row["service"], row["environment"], path, rest.partition(":")[2]] = row["id"]
    assert ids.keys() == {calls.hotspot for calls in fleet.calls}
    for hotspot, status in fleet.statuses.items():
        if hotspot in ids:
            assert collector.http.patch(f"/hotspots/{ids[hotspot]}", json={"status": status}).status_code == 200
    return ids


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def fed(request, tmp_path_factory):
    """(collector, fleet, ids of hotspots)"""
    fleet = make_activity()
    folder = tmp_path_factory.mktemp("fed")
    if request.param == "sqlite":
        with run_collector(folder, "--retention", "90d", udp=True) as collector:
            feed(collector, fleet)
            yield collector, fleet, decide(collector, fleet)
        return
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed here")
    with run_postgres(binaries) as url:
        database = ("--database", make_database(url))
        with run_collector(folder, "--retention", "90d", *database, udp=True) as collector:
            feed(collector, fleet)
            yield collector, fleet, decide(collector, fleet)


def ask(collector: CollectorProcess, path: str, seconds: int, *parameters: tuple[str, str]) -> tuple[dict, int, int]:
    """The answer, and the window it says it is of, which holds the one asked for."""
    asked = [("since", rfc3339(NOW - seconds)), ("until", rfc3339(NOW)), *parameters]
    answer = collector.http.get(path, params=asked)
    assert answer.status_code == 200, answer.text
    since_s, until_s = (unix(answer.json()["window"][name]) for name in ("since", "until"))
    assert since_s <= NOW - seconds < since_s + DAY_S
    assert until_s - DAY_S < NOW <= until_s
    return answer.json(), since_s, until_s


def unix(text: str) -> int:
    return int(time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))) - time.timezone


def check_rows(fed, group_by: str, seconds: int, asked: Asked, sort: str = "blocked_time") -> None:
    collector, fleet, ids = fed
    parameters = [*asked.as_parameters(), ("group_by", group_by), ("sort", sort), ("limit", "1000")]
    answer, since_s, until_s = ask(collector, "/hotspots", seconds, *parameters)
    expected = {
        ids[hotspot_of(row, ids)] if group_by == "call_site" else key: row
        for key, row in expected_rows(fleet, asked, group_by, since_s, until_s).items()
    }
    question = f"{group_by}, {seconds} s, by {sort}: {asked}"
    rows = {row["id"] or row["key"]: row for row in answer["hotspots"]}
    assert rows.keys() == expected.keys(), question
    assert answer["total"] == len(expected), question
    for key, row in expected.items():
        wanted = row | ({"id": key} if group_by == "call_site" else {})
        if group_by == "release":  # a release was last seen when one of its processes connected: just now
            assert unix(rows[key]["last_seen"][:19] + "Z") >= unix(wanted["last_seen"])
            wanted["last_seen"] = rows[key]["last_seen"]
        assert_same(rows[key], wanted, question)
    values = [row[SORTS.get(sort, "blocked_ms")] for row in answer["hotspots"]]
    assert values == sorted(values, reverse=True), question


def hotspot_of(row: dict, ids: dict) -> tuple:
    path, _, rest = row["call_site"].partition(":")
    return (row["service"], row["environment"], path, rest.partition(":")[2])


@pytest.mark.parametrize("group_by", GROUP_KEYS)
def test_hotspots(fed, group_by):
    for seconds in WINDOWS.values():
        check_rows(fed, group_by, seconds, Asked())
    for asked, sort, seconds in zip(FILTERS, SORTS, [*WINDOWS.values()] * 2, strict=False):
        check_rows(fed, group_by, seconds, asked, sort)


def test_pages_put_together_are_the_whole(fed):
    collector, _, _ = fed
    whole, _, _ = ask(collector, "/hotspots", 30 * DAY_S)
    put_together, cursor = [], []
    while True:
        page, _, _ = ask(collector, "/hotspots", 30 * DAY_S, ("limit", "3"), *cursor)
        put_together += page["hotspots"]
        if page["next_cursor"] is None:
            break
        cursor = [("cursor", page["next_cursor"])]
    assert put_together == whole["hotspots"]


def test_one_hotspot_and_its_timeline(fed):
    collector, fleet, ids = fed
    for hotspot, hotspot_id in ids.items():
        detail, since_s, until_s = ask(collector, f"/hotspots/{hotspot_id}", 30 * DAY_S)
        calls = [one for one in fleet.calls if one.hotspot == hotspot]
        active = [one for one in calls if since_s <= one.minute_s < until_s]
        assert (detail["service"], detail["environment"]) == hotspot[:2]
        assert detail["status"] == fleet.status(hotspot)
        assert (detail["count"], detail["slow_count"], detail["blocked_ms"]) == totals(active)
        assert divided(detail["lines"], "line") == expected_parts(active, lambda one: one.place.line)
        assert divided(detail["releases"], "name") == expected_parts(active, lambda one: one.process.release)
        assert divided(detail["entry_points"], "entry_point") == expected_parts(
            active, lambda one: one.place.entry_point
        )
        assert Counter(site["operation"] for site in detail["sites"]) == Counter(
            operation for operation, _ in {(one.place.operation, one.place.fingerprint) for one in calls}
        )
        assert {agent["id"] for agent in detail["agents"]} == {one.process.agent_id for one in active}
        timeline, since_s, until_s = ask(collector, f"/hotspots/{hotspot_id}/timeline", DAY_S)
        step_s = timeline["window"]["resolution_s"]
        assert [unix(bucket["at"]) for bucket in timeline["buckets"]] == list(range(since_s, until_s, step_s))
        for bucket in timeline["buckets"]:
            at_s = unix(bucket["at"])
            inside = [one for one in calls if at_s <= one.minute_s < at_s + step_s]
            assert (bucket["count"], bucket["slow_count"], bucket["blocked_ms"]) == totals(inside)


def totals(calls: list[Calls]) -> tuple:
    blocked_us = sum(sum(one.durations_us) for one in calls)
    return (
        sum(len(one.durations_us) for one in calls),
        sum(one.slow_count for one in calls),
        pytest.approx(blocked_us / 1000, abs=0.000_6),
    )


def divided(parts: list[dict], name: str) -> dict:
    return {part[name]: (part["count"], part["slow_count"], part["blocked_ms"]) for part in parts}


def expected_parts(calls: list[Calls], value) -> dict:
    return {part: totals([one for one in calls if value(one) == part]) for part in {value(one) for one in calls}}


def test_services_and_operations(fed):
    collector, fleet, _ = fed
    answer, since_s, until_s = ask(collector, "/services", 30 * DAY_S)
    visible = [
        one for one in fleet.calls if since_s <= one.minute_s < until_s and fleet.status(one.hotspot) != "ignored"
    ]
    shown = {(row["name"], row["environment"]): row for row in answer["services"]}
    assert shown.keys() == {one.hotspot[:2] for one in fleet.calls}
    for home, row in shown.items():
        active = [one for one in visible if one.hotspot[:2] == home]
        history = sorted((one for one in fleet.calls if one.hotspot[:2] == home), key=lambda one: one.minute_s)
        assert (row["count"], row["blocked_ms"]) == (totals(active)[0], totals(active)[2])
        assert row["hotspots"] == len({one.hotspot for one in active})
        assert row["releases"] == list(dict.fromkeys(one.process.release for one in history))
        assert unix(row["first_seen"]) == history[0].minute_s
    answer, since_s, until_s = ask(collector, "/operations", 30 * DAY_S)
    operations = {row["name"]: row for row in answer["operations"]}
    assert operations.keys() == {one.place.operation for one in visible}
    for name, row in operations.items():
        active = [one for one in visible if one.place.operation == name]
        assert (row["count"], row["slow_count"], row["blocked_ms"]) == totals(active)
        assert row["hotspots"] == len({one.hotspot for one in active})
        assert row["severity_score"] == max(one.place.weight for one in active)


def test_agents(fed):
    collector, fleet, _ = fed
    answer = collector.get("/agents")
    agents = {agent["id"]: agent for agent in answer["agents"]}
    processes = {one.process for one in fleet.calls}
    assert answer["total"] == len(processes)
    assert agents.keys() == {process.agent_id for process in processes}
    for process in processes:
        agent = agents[process.agent_id]
        sent = sum(one.process == process for one in fleet.calls)
        assert (agent["service"], agent["environment"], agent["release"], agent["pid"]) == (
            process.service, process.environment, process.release, process.pid,
        )  # fmt: skip
        assert (agent["reports_received"], agent["reports_lost"]) == (sent, 0)
        assert agent["reports_duplicated"] == REPORTS_SENT_TWICE
        assert (agent["transport"], agent["tail"]) == (("udp", "complete") if process.pid % 2 else ("unix", None))


def test_a_comparison_of_releases(fed):
    collector, fleet, ids = fed
    found = collector.get("/diff", base="1.4.0", head="1.5.2", service="shop", environment="prod")
    active: dict[str, set[str]] = defaultdict(set)
    for calls in fleet.calls:
        if calls.hotspot[:2] == ("shop", "prod") and fleet.status(calls.hotspot) != "ignored":
            active[calls.process.release].add(ids[calls.hotspot])
    changes = {change: {row["id"] for row in found[change]} for change in ("new", "gone", "worse", "better")}
    assert changes["new"] <= active["1.5.2"] - active["1.4.0"]
    assert changes["gone"] <= active["1.4.0"] - active["1.5.2"]
    assert changes["worse"] | changes["better"] <= active["1.4.0"] & active["1.5.2"]
    assert sum(found["counts"].values()) == len(active["1.4.0"] | active["1.5.2"])


def test_stalls(fed):
    collector, fleet, _ = fed
    first_calls: dict[Process, Calls] = {}
    for calls in fleet.calls:
        if calls.process.pid % 2 == 0:
            first_calls.setdefault(calls.process, calls)
    stalls = {stall["agent"]: stall for stall in collector.get("/stalls", since="1h")["stalls"]}
    assert stalls.keys() == {process.agent_id for process in first_calls}
    for process, calls in first_calls.items():
        stall = stalls[process.agent_id]
        assert (stall["service"], stall["environment"], stall["release"], stall["pid"]) == (
            process.service, process.environment, process.release, process.pid,
        )  # fmt: skip
        assert (stall["state"], stall["blocked_ms"]) == ("frozen", STALL_US / 1000)
        assert (stall["call_site"], stall["operation"]) == (calls.place.call_site, calls.place.operation)


def test_metrics(fed):
    collector, fleet, _ = fed
    samples = {
        (sample.name, sample.labels.get("service"), sample.labels.get("environment")): sample.value
        for family in text_string_to_metric_families(collector.http.get("/metrics").text)
        for sample in family.samples
    }
    for home in {calls.hotspot[:2] for calls in fleet.calls}:
        calls = [one for one in fleet.calls if one.hotspot[:2] == home]
        assert samples[("aiocop_blocking_calls_total", *home)] == totals(calls)[0]
        blocked_s = sum(sum(one.durations_us) for one in calls) / 1e6
        assert samples[("aiocop_blocked_seconds_total", *home)] == pytest.approx(blocked_s)
    assert samples["aiocop_collector_database_up", None, None] == 1


def test_it_says_of_itself_that_all_is_well(fed):
    collector, _, _ = fed
    assert collector.get("/healthz") == {"status": "alive"}
    assert collector.get("/readyz")["status"] == "ready"
    tested = {"/hotspots", "/hotspots/{hotspot_id}", "/hotspots/{hotspot_id}/timeline", "/diff", "/services", "/stalls"}
    tested |= {"/operations", "/agents", "/metrics", "/healthz", "/readyz"}
    changes = {"/services/{name}", "/agents/{agent_id}"}
    assert collector.get("/openapi.json")["paths"].keys() == tested | changes
