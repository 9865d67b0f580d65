"""How many blocking calls an agent can record, and what shipping them takes: `python benchmarks/recording.py`.

Each figure comes from a process of its own (this file with arguments), whose agent ships to a real collector.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.collector import collector_environment, run_collector

import aiocop

CALLS_PER_SLICE = 100
SLICES = 3_000
ROUNDS = 5
SITES = 100
STEADY_CALLS_PER_SECOND = 10_000
STEADY_S = 10.0


@dataclass(frozen=True)
class Recording:
    """The best of a few rounds: what disturbs one only adds."""

    calls: int
    per_second: float
    """Of CPU time of the loop's thread, with the agent on."""
    added_ns: float
    """What the agent added to a call."""


@dataclass(frozen=True)
class Shipper:
    calls_per_second: float
    sites: int
    shares: dict[str, float]
    """Of a core, by thread of the agent."""


def measure_recording() -> Recording:
    """Raises RuntimeError when a call did not arrive."""
    bare = _run("bare", None)
    with tempfile.TemporaryDirectory() as folder, run_collector(Path(folder)) as collector:
        ours = _run("recording", f"unix://{collector.socket_path}")
    calls = SLICES * CALLS_PER_SLICE * ROUNDS
    if ours["acknowledged"] != ours["recorded"] or ours["recorded"] < calls:
        raise RuntimeError(f"of {calls} calls {ours['recorded']} were recorded, {ours['acknowledged']} arrived")
    per_round = SLICES * CALLS_PER_SLICE
    return Recording(calls, per_round / ours["best_s"], (ours["best_s"] - bare["best_s"]) / per_round * 1e9)


def measure_shipper() -> Shipper:
    with tempfile.TemporaryDirectory() as folder, run_collector(Path(folder)) as collector:
        found = _run("steady", f"unix://{collector.socket_path}")
    shares = {name: cpu_s / found["wall_s"] for name, cpu_s in found["threads"].items()}
    return Shipper(found["calls"] / found["wall_s"], SITES, shares)


def _run(mode: str, collector: str | None) -> dict[str, Any]:
    command = [sys.executable, __file__, mode, *([collector] if collector else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=collector_environment())
    return json.loads(done.stdout)


async def call_in_slices() -> float:
    """CPU seconds of the fastest round."""
    best_s = float("inf")
    for _ in range(ROUNDS):
        started_s = time.thread_time()
        for _ in range(SLICES):
            for _ in range(CALLS_PER_SLICE):
                os.getcwd()
            await asyncio.sleep(0)
        best_s = min(best_s, time.thread_time() - started_s)
    return best_s


def thread_cpu_s() -> dict[str, float]:
    """CPU time of each of the agent's threads (the first number of schedstat: nanoseconds on a CPU)."""
    return {
        thread.name: int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9
        for thread in threading.enumerate()
        if thread.name.startswith("aiocop")
    }


def make_sites(count: int) -> list[Callable[[], None]]:
    """Functions on lines of their own."""
    source = "".join(f"def call_{n}():\n    os.getcwd()\n" for n in range(count))
    scope: dict[str, object] = {"os": os}
    exec(compile(source, str(Path(__file__).with_name("sites.py")), "exec"), scope)
    return [scope[f"call_{n}"] for n in range(count)]


async def call_steadily(sites: list[Callable[[], None]], seconds: float) -> int:
    """Each site once in each slice, so often that it comes to the rate wanted; how many calls it were."""
    loop = asyncio.get_running_loop()
    began_s, calls = loop.time(), 0
    while (passed_s := loop.time() - began_s) < seconds:
        while calls < passed_s * STEADY_CALLS_PER_SECOND:
            for site in sites:
                site()
            calls += len(sites)
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)
    return calls


async def run(mode: str, collector: str | None) -> dict[str, Any]:
    if collector is not None:
        aiocop.start(service="recording", collector=collector)
    if mode != "steady":
        best_s = await call_in_slices()
        await asyncio.sleep(0)
        if collector is None:
            return {"best_s": best_s}
        await asyncio.to_thread(aiocop.flush, 60.0)
        known = aiocop.statistics()
        return {"best_s": best_s, "recorded": known.recorded, "acknowledged": known.acknowledged}
    sites = make_sites(SITES)
    await call_steadily(sites, 2.0)  # each site is met for the first time
    before, started_s = thread_cpu_s(), time.perf_counter()
    calls = await call_steadily(sites, STEADY_S)
    wall_s = time.perf_counter() - started_s
    threads = {name: cpu_s - before.get(name, 0.0) for name, cpu_s in thread_cpu_s().items()}
    return {"calls": calls, "wall_s": wall_s, "threads": threads}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(run(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))))
        return
    print(measure_recording())
    print(measure_shipper())


if __name__ == "__main__":
    main()
