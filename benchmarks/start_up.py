"""How long `aiocop-collector serve` takes until it is ready: `python benchmarks/start_up.py [--runs N] [--database …]`.

From the start of the process to its line "listening on http…", in wall time and in CPU time of the process: on a
database that it has to make, on one that is there already, and on a given one (as `serve --database` takes it; it is
upgraded where it is old, and kept up as by any collector). The first run of each kind is thrown away; like an installed
package, it leaves bytecode for the others. Wall time means something on an idle machine only. Aim: below one second.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.import_time import described
from benchmarks.processes import cpu_seconds

AIM_S = 1.0
WARM_UPS = 1


def start(folder: Path, database: str) -> tuple[float, float]:
    """Milliseconds of wall time and of CPU time until a collector is ready; it is stopped again."""
    options = ["--listen", f"unix://{folder}/collector.sock", "--http", "127.0.0.1:0", "--database", database]
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("AIOCOP_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    began_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "aiocop_collector", "serve", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as collector:
        ready = any(line.startswith(b"listening on http") for line in collector.stdout or ())
        took_s, used_s = time.perf_counter() - began_s, cpu_seconds(collector.pid)
        collector.terminate()
    if not ready:
        raise RuntimeError(f"the collector did not start on {database}")
    return took_s * 1000, used_s * 1000


def measure(name: str, databases: list[str], folder: Path) -> None:
    """One start on each of the databases; prints."""
    times_ms = [start(folder, database) for database in databases][WARM_UPS:]
    wall_ms, cpu_ms = zip(*times_ms, strict=True)
    print(described(f"{name}, wall", list(wall_ms)))
    print(described(f"{name}, CPU", list(cpu_ms)), flush=True)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15, help="starts of each kind")
    parser.add_argument("--database", metavar="URL", help="one to start on, instead of those made here")
    options = parser.parse_args()
    starts = WARM_UPS + options.runs
    load = os.getloadavg()[0]
    print(f"Python {sys.version.split()[0]}, {options.runs} starts each, load {load:.1f}, aim {AIM_S * 1000:.0f} ms")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.database:
            measure("given database", [options.database] * starts, folder)
            return
        measure("new database", [f"sqlite:///{folder}/{number}.sqlite3" for number in range(starts)], folder)
        measure("its own database", [f"sqlite:///{folder}/again.sqlite3"] * starts, folder)


if __name__ == "__main__":
    main()
