"""What `import aiocop` adds to a process that has asyncio already. Prints milliseconds and the ratio to asyncio's own.

Each measurement is a fresh interpreter that times both imports itself, in CPU time: what else runs on the machine does
not count. The first runs, which fill the file cache and write the bytecode (`-I` ignores PYTHONDONTWRITEBYTECODE), are
thrown away; where there is no bytecode after them, nothing is measured. A machine is slow for seconds or hours, so each
process's two imports are compared with each other first. Aim: below 30 ms, and 0.55 of asyncio's own.
"""

import argparse
import os
import statistics
import subprocess
import sys

MEASURE = """
import time
before_ns = time.process_time_ns()
import asyncio
between_ns = time.process_time_ns()
import aiocop
after_ns = time.process_time_ns()
print(between_ns - before_ns, after_ns - between_ns, aiocop.__spec__.cached)
"""
WARM_UPS = 3


def measure() -> tuple[float, float]:
    """Milliseconds of importing asyncio, and of importing aiocop after it."""
    done = subprocess.run([sys.executable, "-I", "-c", MEASURE], check=True, capture_output=True, text=True)
    asyncio_ns, aiocop_ns, bytecode = done.stdout.split(maxsplit=2)
    if not os.path.exists(bytecode.strip()):
        sys.exit(f"{bytecode.strip()} cannot be written: without it, compiling would be measured")
    return int(asyncio_ns) / 1e6, int(aiocop_ns) / 1e6


def described(name: str, times_ms: list[float]) -> str:
    """Median, spread, and the fastest: what is left when nothing else runs."""
    low, *_, high = statistics.quantiles(times_ms, n=20)
    spread = f"(5 % to 95 %: {low:.1f} to {high:.1f}, fastest {min(times_ms):.1f})"
    return f"{name:22} {statistics.median(times_ms):6.1f} ms   {spread}"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=40)
    runs = parser.parse_args().runs
    times_ms = [measure() for _ in range(WARM_UPS + runs)][WARM_UPS:]
    asyncio_ms = [pair[0] for pair in times_ms]
    aiocop_ms = [pair[1] for pair in times_ms]
    print(f"Python {sys.version.split()[0]}, {runs} fresh interpreters")
    print(described("import asyncio", asyncio_ms))
    print(described("import aiocop after it", aiocop_ms))
    print(f"median of the ratios   {statistics.median(aiocop / asyncio for asyncio, aiocop in times_ms):6.2f}")
    print(f"ratio of the fastest   {min(aiocop_ms) / min(asyncio_ms):6.2f}")


if __name__ == "__main__":
    main()
