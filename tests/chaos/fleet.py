"""Real agents in processes of their own, and what the store must say about them afterwards."""

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.counting_agent import FLUSH_S, PROGRESS
from tests.support.collector import DEADLINE_S, CollectorProcess, collector_environment

_PROGRAM = Path(__file__).with_name("counting_agent.py")


class AgentProcess:
    """One `counting_agent.py`."""

    def __init__(self, folder: Path, service: str, collector: str, pause_s: float) -> None:
        self.service = service
        self._progress = folder / f"{service}.progress"
        self._progress.write_bytes(bytes(PROGRESS.size))
        self._log = folder / f"{service}.stderr"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", _PROGRAM, collector, service, str(pause_s), self._progress],
                stdout=subprocess.PIPE,
                stderr=log,
                env=collector_environment(),
                text=True,
            )

    def wait_until_ready(self) -> None:
        readable, _, _ = select.select([self._process.stdout], [], [], DEADLINE_S)
        assert readable, f"{self.service} does not start"
        said = self._process.stdout.readline()
        assert said == "ready\n", self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def progress(self) -> tuple[int, int]:
        """File openings begun, calls acknowledged."""
        return PROGRESS.unpack(self._progress.read_bytes())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self) -> dict:
        """What it did, when it has flushed and ended. Call `signal(SIGTERM)` first."""
        said, _ = self._process.communicate(timeout=FLUSH_S + DEADLINE_S)
        log = self._log.read_text()
        assert self._process.returncode == 0, log
        assert "Traceback" not in log, log
        return json.loads(said)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def run_fleet(
    folder: Path, collector: str, size: int, *, pause_s: float = 0.01, name: str = "agent"
) -> Iterator[list[AgentProcess]]:
    """Working agents `NAME-0`, `NAME-1`, …; killed at the end if they still run."""
    agents: list[AgentProcess] = []
    try:
        for number in range(size):
            agents.append(AgentProcess(folder, f"{name}-{number}", collector, pause_s))
        for agent in agents:
            agent.wait_until_ready()
        yield agents
    finally:
        for agent in agents:
            agent.kill()


def finish(agents: list[AgentProcess]) -> dict[str, dict]:
    """End all of them; what each did, by service."""
    for agent in agents:
        agent.signal(signal.SIGTERM)
    return {agent.service: agent.finish() for agent in agents}


def stored(collector: CollectorProcess, agents: list[AgentProcess]) -> dict[str, dict[str, int]]:
    """Calls in the store by service, and there by what was called where; `total` of all.

    Only of these agents. By operation, because a busy host may make a slow slice of a call: `cpu`, at its place.
    """
    found: dict[str, dict[str, int]] = {}
    services = [agent.service for agent in agents]
    cursor: dict[str, str] = {}
    while True:
        answer = collector.get("/hotspots", since="3h", limit=1000, service=services, **cursor)
        for row in answer["hotspots"]:
            counts = found.setdefault(row["service"], {"total": 0})
            function = row["call_site"].rpartition(":")[2]
            counts["total"] += row["count"]
            for operation in row["operations"]:
                called = f"{operation['name']} in {function}"
                counts[called] = counts.get(called, 0) + operation["count"]
        if answer["next_cursor"] is None:
            return found
        cursor = {"cursor": answer["next_cursor"]}


def expect_every_count_once(collector: CollectorProcess, agents: list[AgentProcess]) -> None:
    """End the agents; the store holds exactly what each of them recorded."""
    outcomes = finish(agents)
    counts = stored(collector, agents)
    for service, outcome in outcomes.items():
        assert outcome["flushed"], (service, outcome)
        assert (outcome["pending"], outcome["dropped"], outcome["faults"]) == (0, {}, 0), (service, outcome)
        assert outcome["acknowledged"] == outcome["recorded"], (service, outcome)
        for called, times in outcome["done"].items():
            assert counts[service][called] == times, (service, called, outcome, counts[service])
        assert counts[service]["total"] == outcome["recorded"], (service, outcome, counts[service])
        (shown,) = collector.get("/agents", since="3h", service=service)["agents"]
        assert shown["reports_lost"] == 0, shown
