"""A real `aiocop-collector serve` in a process of its own, and peers that speak the wire to it from the test."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from aiocop_wire import (
    Ack,
    Datagram,
    Define,
    Farewell,
    Frame,
    FrameReader,
    Hello,
    Identity,
    Message,
    Report,
    SiteDefinition,
    SiteDelta,
    Welcome,
    decode,
    encode,
    frame,
)

DEADLINE_S = 60.0


def collector_environment() -> dict[str, str]:
    """This process's environment without settings that a developer may have made for a collector of their own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AIOCOP_")}


class CollectorProcess:
    """Made by `run_collector`. `socket_path`, `udp` and `url` are what it said it is listening on."""

    def __init__(self, folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self.database = folder / "collector.sqlite3"
        self.log = folder / "stderr.txt"
        self._arguments = arguments
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.announced: list[str] = []
        self.http: httpx.Client | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "aiocop_collector", "serve", *self._arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
                cwd=self.folder,
            )
        self.announced = []
        said = b""
        deadline = time.monotonic() + DEADLINE_S
        while b"listening on http" not in said or not said.endswith(b"\n"):
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._process.stdout.fileno(), 4096) if readable else b""
            if not data:
                self.kill()
                raise AssertionError(f"the collector did not start: {self.log.read_text()}")
            said += data
        self.announced = said.decode().splitlines()
        url = self.url.replace("0.0.0.0", "127.0.0.1")
        self.http = httpx.Client(base_url=url, timeout=DEADLINE_S, trust_env=False, verify=False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _address(self, scheme: str) -> str:
        return next(line for line in self.announced if f"on {scheme}://" in line).removeprefix("listening on ")

    @property
    def url(self) -> str:
        return self._address("http")

    @property
    def socket_path(self) -> str:
        return self._address("unix").removeprefix("unix://")

    @property
    def udp(self) -> tuple[str, int]:
        host, _, port = self._address("udp").removeprefix("udp://").rpartition(":")
        return host, int(port)

    def get(self, path: str, **parameters) -> dict:
        """The JSON of an answer that must be 200."""
        answer = self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def counters(self) -> dict[str, int]:
        return self.http.get("/readyz").json()["counters"]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """The exit code."""
        code = self._process.wait(timeout=DEADLINE_S)
        self._process.stdout.close()
        if self.http is not None:
            self.http.close()
            self.http = None
        return code

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            self.wait()


@contextmanager
def run_collector(folder: Path, *arguments: str, udp: bool = False, **environment: str) -> Iterator[CollectorProcess]:
    """A ready collector with a socket, a port and a database of its own; killed at the end if it still runs."""
    given = ["--listen", f"unix://{folder}/collector.sock", "--http", "127.0.0.1:0"]
    given += ["--listen", "udp://127.0.0.1:0"] if udp else []
    if "--database" not in arguments:
        given += ["--database", f"sqlite:///{folder}/collector.sqlite3"]
    collector = CollectorProcess(folder, [*given, *arguments], collector_environment() | environment)
    try:
        collector.start()
        yield collector
    finally:
        collector.kill()


class StreamPeer:
    """An agent's end of a stream, with blocking calls that give up after DEADLINE_S."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(path)
        self._frames = FrameReader()
        self._received: list[Message] = []

    def __enter__(self) -> "StreamPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send(self, *messages: Message) -> None:
        self.send_bytes(b"".join(frame(encode(message)) for message in messages))

    def receive(self) -> Message | None:
        """The next message; None when the collector has ended the stream."""
        while not self._received:
            try:
                data = self._socket.recv(65_536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._received += [decode(raw) for raw in self._frames.feed(data)]
        return self._received.pop(0)

    def has_answer(self) -> bool:
        """Whether something can be received without waiting."""
        return bool(self._received or select.select([self._socket], [], [], 0)[0])

    def greet(self, identity: Identity) -> int:
        """Say hello; the committed sequence of the welcome."""
        self.send(Hello(identity))
        welcome = self.receive()
        assert isinstance(welcome, Welcome), welcome
        return welcome.committed_sequence

    def wait_for_ack(self, sequence: int) -> None:
        """Until everything up to `sequence` is acknowledged."""
        while True:
            message = self.receive()
            assert isinstance(message, Ack), message
            if message.sequence >= sequence:
                assert message.sequence == sequence
                return


class DatagramPeer:
    """An agent's datagram socket."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(address)

    def __enter__(self) -> "DatagramPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send_bytes(self, data: bytes) -> None:
        self._socket.send(data)

    def send(
        self, identity: Identity, report: Report | None = None, *sites: SiteDefinition, farewell: int | None = None
    ) -> None:
        end = Farewell(farewell) if farewell is not None else None
        self.send_bytes(encode(Datagram(identity, report, Define(tuple(sites)), end)))


def make_identity(service: str = "shop", *, release: str = "1.0", environment: str = "test") -> Identity:
    """A process that has just started."""
    return Identity(
        os.urandom(16), 4711, "host-1", service, environment, release, "3.12.1", "asyncio", "0.1.0", now_ms()
    )


def make_site(number: int, function: str = "", *, operation: str = "open") -> SiteDefinition:
    """A site of its own hotspot, `shop/orders.py:NUMBER:function_NUMBER` unless `function` says otherwise."""
    call = Frame("pathlib.py", 100 + number, "Path.open", 2)
    line = Frame("shop/orders.py", number, function or f"function_{number}", 0)
    return SiteDefinition(number, operation, number * 7, "io", "io_blocking", 10, (call, line), 1, "Use a thread.")


def make_report(sequence: int, *deltas: SiteDelta, started_at_ms: int | None = None, **fields) -> Report:
    return Report(sequence, now_ms() if started_at_ms is None else started_at_ms, 1000, deltas, **fields)


def now_ms() -> int:
    return int(time.time() * 1000)
