"""A throw-away PostgreSQL, from Debian's binaries or from a package, for tests marked `postgres`."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


def find_binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, newest version first; None where there is no server."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True)
    on_path = shutil.which("initdb")
    return found[0].parent if found else Path(on_path).parent if on_path else None


class PostgresServer:
    """Made by `run_server`. Keeps its data and its port when it is killed and started again."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._data = folder / "data"
        self._as_user = {}
        if os.geteuid() == 0:  # it refuses to run as root, so root becomes postgres
            self._as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/postgres"
        if not self._data.exists():
            self._run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it, after a kill too, and wait until it takes connections."""
        # Without fsync: what a process has written survives its death, only a power cut would lose it.
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-w", "-t", "120", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop_at_once(self) -> None:
        """As an administrator in a hurry does: no checkpoint, connections are cut with a word."""
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def cpu_seconds(self) -> float:
        """Used so far by its processes, those that have ended included."""
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        total = _ticks(main, including_ended=True)
        for process in Path(f"/proc/{main}/task/{main}/children").read_text().split():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                total += _ticks(int(process))
        return total / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """SIGKILL to all of its processes, and wait until they are gone."""
        lock_file = self._data / "postmaster.pid"
        main = int(lock_file.read_text().split()[0])
        processes = [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_until(lambda: not any(map(_runs, processes)), "PostgreSQL's processes to end")
        lock_file.unlink()  # where nobody collects zombies, the next one would take the dead one to be alive

    def _run(self, program: str, *arguments: str) -> None:
        # Output to a file: the server inherits it, and a pipe would stay open as long as it lives.
        command = [str(self._binaries / program), "-D", str(self._data), *arguments]
        with (self._folder / "output").open("ab") as output:
            ended = subprocess.run(command, stdout=output, stderr=output, cwd=self._folder, **self._as_user)
        logs = [file.read_text()[-2000:] for name in ("output", "log") if (file := self._folder / name).exists()]
        assert ended.returncode == 0, "\n".join([program, *logs])


def _ticks(process: int, *, including_ended: bool = False) -> int:
    """Clock ticks of CPU time of a process, and of its children that have ended (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11 : 15 if including_ended else 13]))


def _runs(process: int) -> bool:
    """Whether it is neither gone nor a zombie, which holds nothing any more."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@contextmanager
def run_server(binaries: Path, kept: Path | None = None) -> Iterator[PostgresServer]:
    """A server that lives as long as the block; its data are gone then, unless they are in a folder that is `kept`."""
    with contextlib.ExitStack() as stack:
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiocop-pg-", dir="/tmp")))
        server = PostgresServer(binaries, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop_at_once()


@contextmanager
def run_postgres(binaries: Path, kept: Path | None = None) -> Iterator[str]:
    """The URL of a server that lives as long as the block, as `run_server` does."""
    with run_server(binaries, kept) as server:
        yield server.url
