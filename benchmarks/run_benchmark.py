"""What the agent costs, beside nothing, the published aiocop 1.2.1 and asyncio's debug mode, interleaved in one run.

Each round measures every variant once, in a fresh process each, in an order that changes from round to round; what is
reported are ratios and differences within a round, as their median and range. All variants run on the same CPython, in
environments that this script makes under .cache/. The shipping variant reports to a real collector. Under load, the
server and the load generator (with the collector) each have a CPU of their own.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.agent_cost.report import (
    Rounds,
    at_rest_table,
    steps_tables,
    switching_table,
    tasks_tables,
    web_table,
)
from benchmarks.agent_cost.variants import (
    BARE,
    CALLBACK,
    COLLECTOR_VARIABLE,
    DEACTIVATED,
    DEBUG,
    PUBLISHED,
    SHIPPING,
    STOPPED,
)
from benchmarks.environments import OURS, environment, interpreter_of
from benchmarks.environments import PUBLISHED as PUBLISHED_RELEASE
from benchmarks.processes import cpu_seconds

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
LIBRARIES = ("fastapi", "httptools", "uvicorn", "uvloop")
LOOPS = ("asyncio", "uvloop")
THEIRS = (PUBLISHED, DEACTIVATED)
TASK_VARIANTS = (BARE, CALLBACK, SHIPPING, PUBLISHED, DEBUG, STOPPED, DEACTIVATED)
WEB_VARIANTS = (BARE, CALLBACK, SHIPPING, PUBLISHED, DEBUG)
REST_VARIANTS = (BARE, CALLBACK, SHIPPING, PUBLISHED)
CONNECTIONS = 16


class Bench:
    """The environments and the collector of one run."""

    def __init__(self, python: str, collector: str | None) -> None:
        self._ours = environment("benchmark-ours", (*OURS, *LIBRARIES), python)
        self._theirs = environment("benchmark-theirs", (PUBLISHED_RELEASE, *LIBRARIES), python)
        self.collector = collector
        self.environment = {name: text for name, text in os.environ.items() if not name.startswith("AIOCOP_")}
        self.environment[COLLECTOR_VARIABLE] = collector or ""

    def python(self, variant: str) -> str:
        return self._theirs if variant in THEIRS else self._ours

    def able(self, variants: tuple[str, ...]) -> list[str]:
        return [variant for variant in variants if variant != SHIPPING or self.collector]

    def probe(self, variant: str, loop: str, *arguments: str) -> dict[str, float]:
        return self._run(self.python(variant), "probe.py", variant, loop, *arguments)

    def steps(self) -> dict[str, dict[str, float]]:
        return self._run(self._ours, "steps.py")

    def _run(self, python: str, program: str, *arguments: str) -> Any:
        command = [python, str(ROOT / "benchmarks" / "agent_cost" / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment)
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        return json.loads(done.stdout)

    @contextmanager
    def _serving(self, python: str, program: str, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
        """A server of its own CPU and its URL; `{}` among the arguments stands for the socket that it gets."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.set_inheritable(True)
            given = [argument.format(listening.fileno()) for argument in arguments]
            command = [python, str(ROOT / "benchmarks" / "agent_cost" / program), *given]
            server = subprocess.Popen(
                ["taskset", "-c", pinned_apart()[0], *command],
                pass_fds=[listening.fileno()],
                env=self.environment,
                stdout=subprocess.PIPE,
            )
            try:
                yield server, f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.send_signal(signal.SIGTERM)
                server.communicate(timeout=30)

    def serve_and_load(self, variant: str, loop: str, seconds: int) -> dict[str, float]:
        """Requests per second, by handler."""
        with self._serving(self.python(variant), "web_app.py", variant, loop, "{}") as (server, url):
            with urllib.request.urlopen(f"{url}/nothing", timeout=60):  # until it serves
                pass
            load(url, "/nothing", 1)
            found = {}
            for path in ("/nothing", "/stat"):
                cpu_s = cpu_seconds(server.pid)
                rate = load(url, path, seconds)
                found[path.strip("/")] = rate
                # What other programs on the same CPU cannot change.
                found[f"{path.strip('/')}, per second of the server's CPU"] = (
                    rate * seconds / (cpu_seconds(server.pid) - cpu_s)
                )
            return found

    def switch_under_load(self, loop: str, pairs: int) -> dict[str, float]:
        """What a request costs more, from one process: see switching.py."""
        with self._serving(self._ours, "switching.py", loop, "{}", str(pairs)) as (server, url):
            loading = subprocess.Popen(wrk(f"{url}/nothing", 600), stdout=subprocess.DEVNULL)
            try:
                found: dict[str, float] = json.loads(server.stdout.readline() if server.stdout else b"")
                return found
            finally:
                loading.terminate()
                loading.wait()


def pinned_apart() -> tuple[str, str]:
    """One CPU for the server, one for the load generator."""
    cpus = sorted(os.sched_getaffinity(0))
    return str(cpus[0]), str(cpus[-1])


def wrk(url: str, seconds: int) -> list[str]:
    """The load generator, on the other CPU."""
    return ["taskset", "-c", pinned_apart()[1], "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]


def load(url: str, path: str, seconds: int) -> float:
    """Requests per second that wrk counted."""
    text = subprocess.run(wrk(url + path, seconds), check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{path} failed under load:\n{text}")
    (line,) = [line for line in text.splitlines() if line.startswith("Requests/sec:")]
    return float(line.split()[1])


@contextmanager
def running_collector() -> Iterator[str | None]:
    """The address of a real collector, from the environment of this interpreter; None, said loudly, without one."""
    if subprocess.run([sys.executable, "-c", "import aiocop_collector"], check=False, capture_output=True).returncode:
        print(f"SKIPPED: nothing ships: no aiocop_collector for {sys.executable}", file=sys.stderr)
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix://{folder}/collector.sock"
        options = ["--listen", address, "--http", "127.0.0.1:0", "--database", f"sqlite:///{folder}/collector.sqlite3"]
        program = [sys.executable, "-m", "aiocop_collector", "serve", *options]
        pinned = ["taskset", "-c", pinned_apart()[1]] if shutil.which("taskset") else []
        with subprocess.Popen([*pinned, *program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as collector:
            ready = any(b"listening on http" in line for line in collector.stdout or ())
            if not ready:
                raise RuntimeError("the collector did not start")
            try:
                yield address
            finally:
                collector.terminate()


def shuffled(variants: list[str]) -> list[str]:
    return random.sample(variants, len(variants))


def measure(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, by kind, loop and variant, round after round."""
    tasks: dict[str, dict[str, Rounds]] = {loop: {one: [] for one in bench.able(TASK_VARIANTS)} for loop in LOOPS}
    web: dict[str, dict[str, Rounds]] = {loop: {one: [] for one in bench.able(WEB_VARIANTS)} for loop in LOOPS}
    idle: dict[str, Rounds] = {one: [] for one in bench.able(REST_VARIANTS)}
    memory: dict[str, Rounds] = {one: [] for one in bench.able(REST_VARIANTS)}
    steps: list[dict[str, dict[str, float]]] = []
    loaded = all(shutil.which(program) for program in ("wrk", "taskset")) and len(os.sched_getaffinity(0)) > 1
    if not loaded:
        print("SKIPPED: no load: needs wrk (apt-get install wrk), taskset and two CPUs", file=sys.stderr)
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds} …", file=sys.stderr)
        for loop in LOOPS:
            for variant in shuffled(list(tasks[loop])):
                tasks[loop][variant].append(bench.probe(variant, loop, "tasks", str(options.tasks)))
            for variant in shuffled(list(web[loop])) if loaded else ():
                web[loop][variant].append(bench.serve_and_load(variant, loop, options.load_s))
        steps.append(bench.steps())
        if number < options.rest_rounds:
            for variant in shuffled(list(idle)):
                idle[variant].append(bench.probe(variant, "asyncio", "idle"))
                memory[variant].append(bench.probe(variant, "asyncio", "memory"))
    return {"tasks": tasks, "web": web if loaded else {}, "idle": idle, "memory": memory, "steps": steps}


def measure_switching(bench: Bench, options: argparse.Namespace) -> dict[str, Rounds]:
    """By loop, a few times each."""
    if not bench.collector or not shutil.which("wrk"):
        return {}
    print("switching on and off under load …", file=sys.stderr)
    times = range(options.rest_rounds)
    return {loop: [bench.switch_under_load(loop, options.pairs) for _ in times] for loop in LOOPS}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rest-rounds", type=int, default=3, help="rounds that also measure idle CPU and memory")
    parser.add_argument("--tasks", type=int, default=10_000, help="per scenario")
    parser.add_argument("--load-s", type=int, default=5, help="seconds of load per handler")
    parser.add_argument("--pairs", type=int, default=60, help="of switching the agent off and on, per loop and time")
    parser.add_argument(
        "--quick", action="store_true", help="2 rounds of 2000 tasks and 2 s of load: a look, no result"
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter to make the environments with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the measurements")
    parser.add_argument(
        "--reuse", type=Path, metavar="FILE", help="those kept before; only what is not there is measured"
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.rest_rounds, options.tasks, options.load_s, options.pairs = 2, 1, 2000, 2, 20
    measured = json.loads(options.reuse.read_text()) if options.reuse else {}
    with running_collector() as collector:
        bench = Bench(options.python, collector)
        if "tasks" not in measured:
            measured |= measure(bench, options)
        if "switching" not in measured:
            measured["switching"] = measure_switching(bench, options)
    version, _ = interpreter_of(options.python)
    lines = [*tasks_tables(measured["tasks"])]
    lines += web_table(measured["web"]) if measured["web"] else []
    lines += switching_table(measured["switching"]) if measured["switching"] else []
    lines += at_rest_table(measured["idle"], measured["memory"])
    lines += steps_tables(measured["steps"])
    print("\n".join(lines))
    if options.json:
        options.json.write_text(json.dumps({**measured, "python": version, "rounds": options.rounds}, indent=1))
    if options.write:
        PAGE.write_text("\n".join([_introduction(version, options), *lines]))


def _introduction(version: str, options: argparse.Namespace) -> str:
    return f"""\
# What the agent costs

Made by `make bench ARGS=--write` on {time.strftime("%Y-%m-%d")}: CPython {version}, {os.cpu_count()} CPUs,
{options.rounds} rounds, {options.tasks} tasks per scenario, {options.load_s} s of load. Load average at the end:
{os.getloadavg()[1]:.1f} (what requests per second mean above 3 or so is little). Don't edit: run it again.

Every variant runs in a fresh process per round, interleaved with the others; differences and ratios are taken within a
round. Shown is the median over the rounds, and in brackets the range, which says how busy the machine was. Times are
CPU time of the whole process, the variant's own threads included. *shipping* sends to a real collector over a Unix
socket. Tasks run in batches of 100 by `asyncio.gather`, whose own callbacks are slices too.
"""


if __name__ == "__main__":
    main()
