"""Remote control with real processes: what is patched at a collector is what an agent does, while it runs."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.support.collector import DEADLINE_S, CollectorProcess, collector_environment, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import stable_id

SERVICE = Path(__file__).parent / "services" / "controlled.py"


class Service:
    """One process of the service."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, command: str) -> int:
        """Let it do something; how many blocking calls it has recorded then, all of them delivered."""
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def running(collector: str, **environment: str) -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, str(SERVICE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=collector_environment() | {"AIOCOP_COLLECTOR": collector} | environment,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield Service(process)
        process.stdin.write("end\n")
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def allowing(collector: CollectorProcess):
    return running(f"unix://{collector.socket_path}", AIOCOP_REMOTE_CONTROL="1")


@pytest.fixture
def collector(tmp_path) -> Iterator[CollectorProcess]:
    with run_collector(tmp_path, udp=True) as running_collector:
        yield running_collector


def patch(collector: CollectorProcess, path: str, **body: object) -> dict:
    answer = collector.http.patch(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def agents(collector: CollectorProcess) -> list[dict]:
    return collector.get("/agents")["agents"]


def agent_of(collector: CollectorProcess, service: Service) -> dict:
    pid = service.process.pid
    return wait_until(
        lambda: next((agent for agent in agents(collector) if agent["pid"] == pid), None), "the agent reports"
    )


def in_force(collector: CollectorProcess, service: Service, **expected: object) -> dict:
    """What the agent says, once it is this."""

    def settled() -> dict | None:
        said = agent_of(collector, service)["control"]["in_force"]
        return said if said is not None and expected.items() <= said.items() else None

    return wait_until(settled, f"{expected} in force")


def naps(collector: CollectorProcess) -> dict:
    rows = collector.get("/hotspots", since="1h", service="controlled")["hotspots"]
    return next((row for row in rows if row["call_site"].endswith(":naps")), {"count": 0, "slow_count": 0})


def test_paused_and_resumed_with_exact_counts_and_a_threshold_changed_meanwhile(collector):
    with allowing(collector) as service:
        in_force(collector, service, revision=0, active=True, threshold_ms=30.0)
        service.tell("block 20 1")
        assert naps(collector)["count"] == 20
        patch(collector, "/services/controlled", active=False)
        in_force(collector, service, active=False)
        before = service.tell("block 0 0")
        assert service.tell("block 50 1") == before
        assert naps(collector)["count"] == 20
        patch(collector, "/services/controlled", active=None, threshold_ms=5)
        in_force(collector, service, active=True, threshold_ms=5.0)
        slow_before = naps(collector)["slow_count"]
        service.tell("block 3 12")
        row = naps(collector)
        assert (row["count"], row["slow_count"] - slow_before) == (23, 3)
        (agent,) = agents(collector)
        assert (agent["reports_lost"], agent["reports_duplicated"]) == (0, 0)
        assert agent["control"]["reachable"]


def test_settings_are_remembered_for_agents_that_come_later(collector):
    patched = patch(collector, "/services/controlled", threshold_ms=7)
    assert (patched["revision"], patched["agents"]) == (1, {"reachable": 0, "in_force": 0, "active": 0})
    with allowing(collector) as first:
        in_force(collector, first, revision=1, threshold_ms=7.0, trace_depth=32)
        own = agent_of(collector, first)["id"]
        patch(collector, f"/agents/{own}", threshold_ms=9, trace_depth=50)
        in_force(collector, first, revision=2, threshold_ms=9.0, trace_depth=50)
        collector.kill()
        collector.start()
        with allowing(collector) as second:
            in_force(collector, second, revision=1, threshold_ms=7.0)
            service = collector.get("/services")["services"][0]["control"]
            assert (service["wanted"]["threshold_ms"], service["changed_by"]) == (7.0, "local")
            wait_until(
                lambda: collector.get("/services")["services"][0]["control"]["agents"]["in_force"] == 2,
                "both agents are told again and have taken it",
            )
            patch(collector, f"/agents/{own}", threshold_ms=None, trace_depth=None)
            in_force(collector, first, threshold_ms=7.0, trace_depth=32)


def test_traces_become_deeper(collector):
    def library_frames(service: Service) -> int:
        service.tell("deep 50")
        rows = collector.get("/hotspots", since="1h", service="controlled")["hotspots"]
        (row,) = [row for row in rows if row["call_site"].endswith("__deepcopy__")]
        traces = collector.get(f"/hotspots/{row['id']}")["traces"]
        return max(sum(frame["path"] == "copy.py" for frame in trace["frames"]) for trace in traces)

    with allowing(collector) as service:
        assert library_frames(service) == 31
        patch(collector, f"/agents/{agent_of(collector, service)['id']}", trace_depth=60)
        in_force(collector, service, trace_depth=60)
        assert library_frames(service) == 59


def test_agents_that_did_not_allow_it_or_cannot_be_reached_are_left_alone_and_say_so(collector):
    udp = "udp://{}:{}".format(*collector.udp)
    with (
        running(f"unix://{collector.socket_path}") as refuses,
        running(udp, AIOCOP_REMOTE_CONTROL="1") as unreachable,
        allowing(collector) as allows,
    ):
        for service in (refuses, unreachable, allows):
            agent_of(collector, service)
        patched = patch(collector, "/services/controlled", active=False, threshold_ms=5)
        in_force(collector, allows, active=False)
        why = {service: agent_of(collector, service)["control"]["unreachable"] for service in (refuses, unreachable)}
        assert why == {refuses: "not_allowed", unreachable: "udp"}
        assert patched["agents"]["reachable"] == 1
        assert in_force(collector, refuses, revision=0)["threshold_ms"] == 30.0
        for service in (refuses, unreachable):
            before = service.tell("block 0 0")
            assert service.tell("block 10 1") >= before + 10


def test_a_share_of_the_agents_is_active_and_a_larger_one_contains_it(collector):
    with ExitStack() as stack:
        services = [stack.enter_context(allowing(collector)) for _ in range(4)]
        ids = {service: agent_of(collector, service)["id"] for service in services}
        places = sorted(stable_id("share", instance) / 2**64 for instance in ids.values())
        share = (places[1] + places[2]) / 2  # half of these agents, wherever their ids fall
        for wanted, count in ((share, 2), (1.0, 4), (0.0, 0)):
            patch(collector, "/services/controlled", active_share=wanted)
            for service, instance in ids.items():
                active = stable_id("share", instance) / 2**64 < wanted
                in_force(collector, service, active=active)
            assert collector.get("/services")["services"][0]["control"]["agents"] == {
                "reachable": 4, "in_force": 4, "active": count,
            }  # fmt: skip


def test_a_change_at_one_collector_reaches_the_agents_of_another_on_the_store(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    shared = ("--database", f"sqlite:///{tmp_path}/shared.sqlite3")
    with (
        run_collector(tmp_path / "one", *shared) as one,
        run_collector(tmp_path / "other", *shared) as other,
        allowing(other) as service,
    ):
        in_force(one, service, revision=0)
        patch(one, "/services/controlled", threshold_ms=11)
        in_force(one, service, threshold_ms=11.0)


def test_a_capture_of_a_hotspot_arrives_once_from_whoever_is_slow_first(collector):
    with allowing(collector) as first, allowing(collector) as second:
        first.tell("block 1 50")
        hotspot = naps(collector)["id"]
        for service in (first, second):
            in_force(collector, service, revision=0)
        asked = patch(collector, "/services/controlled", capture=hotspot)
        assert asked["captures"][0]["state"] == "waiting"
        for service in (first, second):
            in_force(collector, service, revision=asked["revision"])
        second.tell("block 2 60")
        (capture,) = collector.get(f"/hotspots/{hotspot}")["captures"]
        assert (capture["state"], capture["agent"]) == ("captured", agent_of(collector, second)["id"])
        calls = [moment for moment in capture["slice"]["moments"] if moment["blocked_ms"] is not None]
        assert [moment["blocked_ms"] >= 60 for moment in calls] == [True]
        functions = [frame["function"] for frame in capture["slice"]["traces"][calls[0]["trace"]]]
        assert functions == ["naps", "main"]
        in_force(collector, first, revision=asked["revision"] + 1)  # nobody is asked any more
        first.tell("block 1 60")
        assert collector.get(f"/hotspots/{hotspot}")["captures"] == [capture]
