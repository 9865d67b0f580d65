"""Freezes in progress, with real processes: seen while they go on, closed when they end, counted once in any case."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from tests.support.collector import DEADLINE_S, CollectorProcess, collector_environment, run_collector
from tests.support.waiting import wait_until

SERVICE = Path(__file__).parent / "services" / "stalling.py"
EVIDENCE_S = 3.0
"""How soon after its death a process must be known to be dead."""


def line_of(text: str) -> int:
    (line,) = [number for number, line in enumerate(SERVICE.read_text().splitlines(), 1) if line.strip() == text]
    return line


PLACES = {
    "naps": f"stalling.py:{line_of('time.sleep(seconds)')}:naps",
    "naps-early-bound": f"stalling.py:{line_of('early_bound_sleep(seconds)')}:naps_early_bound",
    "holds-gil": f"stalling.py:{line_of('with open(os.devnull):')}:holds_gil",
    "forks-and-naps": f"stalling.py:{line_of('time.sleep(seconds)')}:naps",
}


@pytest.fixture
def collector(tmp_path) -> Iterator[CollectorProcess]:
    with run_collector(tmp_path) as running:
        yield running


class Service:
    """The service, and what it said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def says(self) -> str:
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def end(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(DEADLINE_S) == 0


@contextmanager
def stalling(collector: CollectorProcess, how: str, seconds: float, loop: str = "asyncio") -> Iterator[Service]:
    process = subprocess.Popen(
        [sys.executable, str(SERVICE), how, str(seconds), loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=collector_environment() | {"AIOCOP_COLLECTOR": f"unix://{collector.socket_path}"},
        text=True,
    )
    try:
        yield Service(process)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def stall_at(collector: CollectorProcess, place: str | None, state: str) -> dict | None:
    """The stall at this place, once it is in that state. Others are the machine's: it is slow, and shared."""
    function = place.rpartition(":")[2] if place else None
    for stall in collector.get("/stalls", state=state)["stalls"]:
        if stall["call_site"] is not None and stall["call_site"].rpartition(":")[2] == function:
            return stall
    return None


def counted(collector: CollectorProcess, place: str) -> dict:
    function = place.rpartition(":")[2]
    rows = collector.get("/hotspots", since="1h")["hotspots"]
    (row,) = [row for row in rows if row["call_site"].rpartition(":")[2] == function]
    return row


def at_ms(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


@pytest.mark.parametrize("how", ["naps", "naps-early-bound"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_freeze_is_seen_while_it_goes_on_and_counted_once_when_it_ends(collector, how, loop):
    place = PLACES[how]
    with stalling(collector, how, 4, loop) as service:
        assert service.says() == "frozen"
        first = wait_until(lambda: stall_at(collector, place, "frozen"), "the freeze shows")
        grown = wait_until(
            lambda: (now := stall_at(collector, place, "frozen")) and now["blocked_ms"] > first["blocked_ms"] and now,
            "its age grows",
        )
        assert not [row for row in collector.get("/hotspots", since="1h")["hotspots"] if row["call_site"] == place]
        assert service.says() == "thawed"
        assert service.says() == "flushed"
        ended = wait_until(lambda: stall_at(collector, place, "ended"), "its end")
        wait_until(
            lambda: stall_at(collector, place, "ended")["blocked_ms"] >= 4000, "the agent's own word of its length"
        )
        service.end()
    assert first["call_site"] == grown["call_site"] == ended["call_site"] == place
    assert {first["id"], grown["id"], ended["id"]} == {first["id"]}
    assert [f"{frame['path']}:{frame['function']}" for frame in first["trace"]][-1] == "stalling.py:freeze"
    assert first["service"] == "stalling"
    assert first["thread_name"] == "MainThread"
    assert grown["gil_held"] is False
    assert not collector.get("/stalls", state="frozen")["stalls"]
    row = counted(collector, place)
    assert (row["count"], row["slow_count"]) == (1, 1)
    assert row["blocked_ms"] == pytest.approx(4000, rel=0.25)
    assert row["id"] == ended["hotspot"]


@pytest.mark.parametrize("how", ["naps", "naps-early-bound", "holds-gil"])
def test_a_process_that_dies_frozen_is_known_to_and_counted_once(collector, how):
    place = PLACES[how]
    with stalling(collector, how, 30) as service:
        assert service.says() == "frozen"
        seen = wait_until(lambda: stall_at(collector, place, "frozen"), "the freeze shows")
        wait_until(
            lambda: stall_at(collector, place, "frozen")["gil_held"] is (how == "holds-gil"),
            "whether native code holds the GIL",
        )
        service.kill()
        died = wait_until(lambda: stall_at(collector, place, "died"), "its death", deadline_s=EVIDENCE_S)
    assert died["id"] == seen["id"]
    assert died["blocked_ms"] >= seen["blocked_ms"] > 1000
    assert died["operation"] == {"naps": "time.sleep", "naps-early-bound": died["operation"], "holds-gil": "cpu"}[how]
    row = counted(collector, place)
    assert (row["count"] - (how == "holds-gil") * already_opened(row), row["slow_count"]) == (1, 1)
    assert row["blocked_ms"] == pytest.approx(died["blocked_ms"], abs=100)
    assert row["id"] == died["hotspot"]


def already_opened(row: dict) -> int:
    """Calls of open() that may have been reported before the process died."""
    return sum(item["count"] for item in row["operations"] if item["name"] == "open")


def test_a_child_that_keeps_the_socket_open_does_not_hide_the_death(collector):
    place = PLACES["forks-and-naps"]
    with stalling(collector, "forks-and-naps", 30) as service:
        child = int(service.says())
        try:
            seen = wait_until(lambda: stall_at(collector, place, "frozen"), "the freeze shows")
            service.kill()
            died = wait_until(lambda: stall_at(collector, place, "died"), "its death", deadline_s=EVIDENCE_S)
            held = [os.readlink(f"/proc/{child}/fd/{number}") for number in os.listdir(f"/proc/{child}/fd")]
        finally:
            os.kill(child, signal.SIGKILL)
    assert any("socket:" in target for target in held), "the child was to keep the connection"
    assert died["id"] == seen["id"]
    assert counted(collector, place)["count"] == 1


def test_a_collector_that_comes_back_finds_out_what_became_of_a_stall(collector):
    """It is away when the freeze ends, and has to learn that from the heartbeat and the report it then gets."""
    place = PLACES["naps"]
    with stalling(collector, "naps", 4) as service:
        assert service.says() == "frozen"
        seen = wait_until(lambda: stall_at(collector, place, "frozen"), "the freeze shows")
        collector.kill()
        assert service.says() == "thawed"
        collector.start()
        assert service.says() == "flushed"
        ended = wait_until(lambda: stall_at(collector, place, "ended"), "its end")
        wait_until(lambda: stall_at(collector, place, "ended")["blocked_ms"] >= 4000, "its length")
        service.end()
    assert ended["id"] == seen["id"]
    assert counted(collector, place)["count"] == 1


def test_a_collector_that_comes_back_during_a_freeze_goes_on_showing_it(collector):
    place = PLACES["naps"]
    with stalling(collector, "naps", 30) as service:
        assert service.says() == "frozen"
        seen = wait_until(lambda: stall_at(collector, place, "frozen"), "the freeze shows")
        collector.kill()
        collector.start()
        again = wait_until(
            lambda: (now := stall_at(collector, place, "frozen")) and now["blocked_ms"] > seen["blocked_ms"] and now,
            "it goes on",
        )
        service.kill()
        died = wait_until(lambda: stall_at(collector, place, "died"), "its death", deadline_s=EVIDENCE_S)
    assert seen["id"] == again["id"] == died["id"]
    assert at_ms(died["started_at"]) == pytest.approx(at_ms(seen["started_at"]), abs=1)
    assert counted(collector, place)["count"] == 1


def test_a_process_that_dies_without_being_frozen_leaves_no_stall(collector):
    with stalling(collector, "naps", 0.2) as service:
        assert service.says() == "frozen"
        assert service.says() == "thawed"
        assert service.says() == "flushed"
        service.kill()
        wait_until(lambda: collector.counters().get("agents_died"), "its death")
    assert stall_at(collector, PLACES["naps"], "died") is None
    assert counted(collector, PLACES["naps"])["count"] == 1


def test_a_process_that_ends_on_purpose_is_not_dead(collector):
    with stalling(collector, "naps", 0.2) as service:
        assert [service.says() for _ in range(3)] == ["frozen", "thawed", "flushed"]
        service.end()
        wait_until(lambda: collector.get("/agents")["agents"][0]["reports_received"], "its last report")
    assert "agents_died" not in collector.counters()
    assert not collector.get("/stalls", state="frozen")["stalls"]
