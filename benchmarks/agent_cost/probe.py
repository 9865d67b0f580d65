"""Measures one variant in a fresh process: `python probe.py VARIANT LOOP tasks|idle|memory [TASKS]`. Prints JSON.

CPU time of the whole process, the variant's own threads included: on a machine that others use too, wall time measures
these.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.agent_cost.variants import DEBUG, activate, end_early, set_up

RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop.run}
BATCH = 100
WARM_UP = 500
SITES = 1000
IDLE_S = 5.0


async def sleep_zero(_path):
    await asyncio.sleep(0)


async def getcwd(_path):
    os.getcwd()


async def stat(path):
    os.stat(path)


async def read_file(path):
    with open(path) as file:
        file.read()


async def two_sleeps(path):
    await asyncio.sleep(0.001)
    os.path.exists(path)
    await asyncio.sleep(0.001)
    os.getcwd()


SCENARIOS = {
    "sleep(0)": sleep_zero,
    "os.getcwd": getcwd,
    "os.stat": stat,
    "file read": read_file,
    "two 1 ms sleeps": two_sleeps,
}


async def run_tasks(job, path: str, tasks: int) -> None:
    for _ in range(tasks // BATCH):
        await asyncio.gather(*(job(path) for _ in range(BATCH)))


async def measure_tasks(variant: str, tasks: int) -> dict[str, float]:
    """Microseconds of CPU per task, by scenario."""
    found = {}
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("a line of text\n" * 10)
        file.flush()
        activate(variant)
        await asyncio.sleep(0.01)
        for job in SCENARIOS.values():
            await run_tasks(job, file.name, WARM_UP)
        end_early(variant)
        for name, job in SCENARIOS.items():
            started = time.process_time()
            await run_tasks(job, file.name, tasks)
            found[name] = (time.process_time() - started) / tasks * 1e6
    return found


async def measure_idle(variant: str) -> dict[str, float]:
    """Milliseconds of CPU per second in which nothing happens."""
    activate(variant)
    await asyncio.sleep(1.5)
    started_cpu, started = time.process_time(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    return {"idle_ms_per_s": (time.process_time() - started_cpu) * 1000 / (time.monotonic() - started)}


async def measure_memory(variant: str) -> dict[str, float]:
    """MiB resident after blocking calls at many sites; the variant's own modules included."""
    lines = "".join(f"def f{number}():\n    os.stat('/')\n" for number in range(SITES))
    namespace = {"os": os, "__name__": "many_sites"}
    exec(compile(lines, str(Path(tempfile.gettempdir()) / "many_sites.py"), "exec"), namespace)
    activate(variant)
    for _ in range(5):
        for number in range(SITES):
            namespace[f"f{number}"]()
            await asyncio.sleep(0)
    await asyncio.sleep(2.5)
    return {"resident_mib": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20}


def main() -> None:
    """Measure what is asked for."""
    variant, loop, what, *rest = sys.argv[1:]
    set_up(variant)
    if what == "tasks":
        main_task = measure_tasks(variant, int(rest[0]))
    else:
        main_task = measure_idle(variant) if what == "idle" else measure_memory(variant)
    print(json.dumps(RUNNERS[loop](main_task, debug=variant == DEBUG)))


if __name__ == "__main__":
    main()
