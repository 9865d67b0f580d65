"""aiocop-run reaches every process that serves, however the server starts it, and none that does not."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from tests.support.collector import DEADLINE_S, CollectorProcess, collector_environment, run_collector
from tests.support.waiting import wait_until

SERVICES = Path(__file__).parent / "services"
SCRIPTS = Path(sys.executable).parent
FREEZE_LINE = (SERVICES / "freezer.py").read_text().splitlines().index("    time.sleep(0.05)") + 1
CLIENTS = 4

SERVERS = {
    "uvicorn": (1, "uvicorn freezer:app --uds SOCKET"),
    "uvicorn-workers": (2, "uvicorn freezer:app --uds SOCKET --workers 2"),
    "uvicorn-reload": (1, "uvicorn freezer:app --uds SOCKET --reload"),
    "uvicorn-asyncio": (1, "python -m uvicorn freezer:app --uds SOCKET --loop asyncio"),
    "gunicorn": (2, "gunicorn freezer:app --bind unix:SOCKET -k uvicorn_worker.UvicornWorker --workers 2"),
    "gunicorn-preload": (
        2,
        "gunicorn freezer:app --bind unix:SOCKET -k uvicorn_worker.UvicornWorker --workers 2 --preload",
    ),
    "hypercorn": (2, "hypercorn freezer:app --bind unix:SOCKET --workers 2"),
    "granian": (2, "granian freezer:app --uds SOCKET --interface asgi --workers 2"),
}


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("server", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Server:
    """A server's process group, asked over its socket."""

    def __init__(self, process: "subprocess.Popen[bytes]", socket_path: Path, log: Path) -> None:
        self.process = process
        self.log = log
        self._socket_path = socket_path

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self) -> int | None:
        """The pid of the process that answered, after a freeze; None while nobody does."""
        assert self.process.poll() is None, self.log.read_text()
        with closing(UnixConnection(self._socket_path)) as connection:
            try:
                connection.request("GET", "/")
                return int(connection.getresponse().read())
            except (OSError, HTTPException):
                return None

    def serving(self, expected: int) -> set[int]:
        """The pids of `expected` processes, each of which has answered."""
        seen: set[int | None] = set()

        def ask_at_once(clients: ThreadPoolExecutor) -> bool:
            # A frozen worker leaves the next connection to another one.
            seen.update(clients.map(lambda _: self.ask(), range(CLIENTS)))
            return len(seen - {None}) >= expected

        with ThreadPoolExecutor(CLIENTS) as clients:
            wait_until(lambda: ask_at_once(clients), f"{expected} processes answer: {self.log.read_text()}")
        return {pid for pid in seen if pid is not None}


@contextmanager
def running_server(command: str, folder: Path, **environment: str) -> Iterator[Server]:
    """`aiocop-run command`, with SOCKET in it replaced; ended by SIGTERM."""
    # Not in pytest's folder: a socket's path is at most 107 bytes.
    socket_path = folder / "s"
    log = folder / "server.txt"
    name, *arguments = command.replace("SOCKET", str(socket_path)).split()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [SCRIPTS / "aiocop-run", "--service", "freezer", SCRIPTS / name, *arguments],
            cwd=SERVICES,
            env=collector_environment() | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(process, socket_path, log)
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def frozen_by_all(collector: CollectorProcess, processes: int) -> dict | None:
    """The row of the known freeze, once so many processes have reported it."""
    rows = collector.get("/hotspots", since="1h")["hotspots"]
    call_site = f"freezer.py:{FREEZE_LINE}:freeze"
    return next((row for row in rows if row["call_site"] == call_site and row["processes"] == processes), None)


@pytest.mark.parametrize("server", SERVERS)
def test_every_serving_process_is_watched_and_no_other(server, tmp_path):
    processes, command = SERVERS[server]
    with run_collector(tmp_path) as collector:
        with running_server(command, tmp_path, AIOCOP_COLLECTOR=f"unix://{collector.socket_path}") as running:
            serving = running.serving(processes)
            row = wait_until(
                lambda: frozen_by_all(collector, processes),
                f"{processes} processes report the freeze: {running.log.read_text()}",
            )
            assert row["service"] == "freezer"
            assert [operation["name"] for operation in row["operations"]] == ["time.sleep"]
            agents = collector.get("/agents")["agents"]
            assert {agent["pid"] for agent in agents} == serving
            assert len(agents) == len(serving) == processes
            assert (running.pid in serving) == (server in ("uvicorn", "uvicorn-asyncio"))  # the command replaced us
        said = running.log.read_text()
        assert "Traceback" not in said
        assert "aiocop-run" not in said, said


def test_switched_off_nothing_happens(tmp_path):
    """The same start script, with AIOCOP_ENABLED=0: no agent, and no trace of us in the environment."""
    with run_collector(tmp_path) as collector:
        where = {"AIOCOP_COLLECTOR": f"unix://{collector.socket_path}", "AIOCOP_ENABLED": "0"}
        with running_server(SERVERS["uvicorn-workers"][1], tmp_path, **where) as running:
            for pid in [running.pid, *running.serving(2)]:
                assert b"aiocop/run" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert collector.get("/agents")["agents"] == []
