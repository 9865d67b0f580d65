"""Agents and a collector under load for some minutes: memory and descriptors must stay flat on both sides.

    scripts/soak.py [--seconds 300] [--agents 3]

After a warm-up of a quarter of the time the resident memory of each process is sampled once a second; the median of the
last third of the samples may be at most 5 % and 4 MiB above that of the first third. Then every count must be in the
store. Exit code 1 when something grows, a traceback when a count is missing.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.chaos.fleet import AgentProcess, expect_every_count_once, run_fleet
from tests.support.collector import CollectorProcess, run_collector

_ALLOWED_RATIO = 1.05
_ALLOWED_BYTES = 4 << 20


def _resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _watch(pids: dict[str, int], seconds: float) -> dict[str, list[tuple[int, int]]]:
    """Resident bytes and open descriptors of each process, once a second."""
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in pids}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, pid in pids.items():
            seen[name].append((_resident_bytes(pid), _descriptors(pid)))
        time.sleep(1)
    return seen


def _grows(name: str, samples: list[tuple[int, int]]) -> bool:
    """Whether the end is above the beginning; says what was measured."""
    quarter = max(1, len(samples) // 3)
    first = statistics.median(resident for resident, _ in samples[:quarter])
    last = statistics.median(resident for resident, _ in samples[-quarter:])
    descriptors = (min(count for _, count in samples), max(count for _, count in samples))
    grown = last > first * _ALLOWED_RATIO + _ALLOWED_BYTES or descriptors[1] > descriptors[0] + 3
    print(
        f"{name:10} {first / 2**20:7.1f} MiB -> {last / 2**20:7.1f} MiB, "
        f"descriptors {descriptors[0]} to {descriptors[1]}{'   GROWS' if grown else ''}",
        flush=True,
    )
    return grown


def _soak(folder: Path, *, seconds: float, agents: int) -> bool:
    grown = False
    with run_collector(folder, udp=True) as collector, contextlib.ExitStack() as stack:
        host, port = collector.udp
        addresses = {"unix": f"unix://{collector.socket_path}", "udp": f"udp://{host}:{port}"}
        fleets: dict[str, list[AgentProcess]] = {}
        for transport, address in addresses.items():
            place = folder / transport
            place.mkdir()
            fleets[transport] = stack.enter_context(run_fleet(place, address, agents, pause_s=0.005, name=transport))
        pids = {agent.service: agent.pid for fleet in fleets.values() for agent in fleet} | {"collector": collector.pid}
        time.sleep(seconds / 4)
        for name, samples in _watch(pids, seconds * 3 / 4).items():
            grown |= _grows(name, samples)
        for fleet in fleets.values():
            expect_every_count_once(collector, fleet)
        _say_totals(collector)
    return grown


def _say_totals(collector: CollectorProcess) -> None:
    counters = collector.counters()
    print(f"{counters['reports_unix']} reports over unix, {counters['reports_udp']} over udp, all counts are there")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--agents", type=int, default=3, help="on each transport")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aiocop-soak-") as folder:
        return int(_soak(Path(folder), seconds=given.seconds, agents=given.agents))


if __name__ == "__main__":
    sys.exit(main())
