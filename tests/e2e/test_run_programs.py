"""Programs without a server under aiocop-run: a script, a package, its spawned workers; seen in GET /hotspots."""

import sys

import pytest
from tests.support.collector import run_collector
from tests.support.running import AIOCOP_RUN, clean_environment, run, write_program

FREEZES = """\
import asyncio
import multiprocessing
import time


async def main():
    time.sleep(0.05)
    await asyncio.sleep(0)


def work():
    asyncio.run(main())


def start():
    work()
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()


if __name__ == "__main__":
    start()
"""
STARTS = "from shop.web import start; start()"


@pytest.mark.parametrize(
    ("files", "command", "service"),
    [
        ({"shop.py": FREEZES}, "shop.py", "shop"),
        ({"shop/web.py": FREEZES}, "-m shop.web", "shop.web"),
        ({"shop/web.py": FREEZES, "shop/__main__.py": STARTS}, "-m shop", "shop"),
    ],
)
def test_programs_and_the_processes_they_spawn(tmp_path, files, command, service):
    for path, text in files.items():
        write_program(tmp_path / path, text)
    with run_collector(tmp_path) as collector:
        environment = clean_environment(AIOCOP_COLLECTOR=f"unix://{collector.socket_path}")
        ended = run(AIOCOP_RUN, sys.executable, *command.split(), environment=environment, cwd=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        rows = [row for row in collector.get("/hotspots")["hotspots"] if row["call_site"].endswith(":7:main")]
        assert sum(row["count"] for row in rows) == 2
        agents = collector.get("/agents")["agents"]
        assert len({agent["pid"] for agent in agents}) == len(agents) == 2
        assert {agent["service"] for agent in agents} == {service}


def test_a_program_without_a_loop_is_nobody_to_the_collector(tmp_path):
    program = write_program(tmp_path / "shop.py", "import asyncio, time; time.sleep(0.05)")
    with run_collector(tmp_path) as collector:
        environment = clean_environment(AIOCOP_COLLECTOR=f"unix://{collector.socket_path}")
        ended = run(AIOCOP_RUN, sys.executable, program, environment=environment)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        assert collector.get("/agents")["agents"] == []
