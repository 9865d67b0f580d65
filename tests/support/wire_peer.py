"""A tiny collector for the shipper's tests: it speaks the wire, keeps a store in memory, and misbehaves on request.

It applies reports as the real one promises to: once per (instance, sequence), in order, acknowledged afterwards. What
cannot be had from the real collector (silence, garbage, refusals, no acknowledgements) is a Manner.
"""

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

from aiocop_wire import (
    Ack,
    Controlled,
    Datagram,
    Define,
    Farewell,
    FrameReader,
    Hello,
    Message,
    Refused,
    Report,
    SlowEvent,
    Stall,
    TraceDefinition,
    Welcome,
    WireError,
    decode,
    encode,
    frame,
)


@dataclass
class Store:
    """What was committed; survives the peer, as a database does."""

    committed: dict[bytes, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    minutes: dict[int, int] = field(default_factory=dict)
    slow_events: list[SlowEvent] = field(default_factory=list)
    undefined: set[int] = field(default_factory=set)
    reports: list[Report] = field(default_factory=list)
    farewells: list[Farewell] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def apply(self, report: Report) -> None:
        self.reports.append(report)
        minute = report.started_at_ms // 60_000
        for delta in report.deltas:
            self.counts[delta.site_id] = self.counts.get(delta.site_id, 0) + delta.count
            self.minutes[minute] = self.minutes.get(minute, 0) + delta.count
        self.slow_events += report.slow_events


@dataclass(frozen=True)
class Manner:
    """How a peer behaves. The default is well."""

    welcomes: bool = True
    refuses: bool = False
    acknowledges: bool = True
    answers_with: bytes | None = None
    """These bytes instead of a welcome."""
    closes_after_reports: int = -1
    """Close the connection after so many reports, before they are committed."""
    reads: bool = True
    features: tuple[str, ...] = ()
    """What it says in its welcome that it takes."""
    refuses_unreadable: bool = False
    """Answer what cannot be decoded with a refusal, as the real collector does, and not with a failed test."""


class UnixPeer:
    """Listens on `path` until `close`. Each connection is served by a thread."""

    def __init__(self, path: Path, *, store: Store | None = None, manner: Manner | None = None) -> None:
        self.path = path
        self.store = store if store is not None else Store()
        self.manner = manner if manner is not None else Manner()
        self.hellos: list[Hello] = []
        self.received_frames: list[bytes] = []
        self.stalls: list[Stall] = []
        self.controlled: list[Controlled] = []
        self.traces: list[TraceDefinition] = []
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._accepting = self._start(self._accept)

    def __enter__(self) -> "UnixPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert not self.errors, self.errors

    def close(self) -> None:
        """Gone at once, as after SIGKILL; the socket's file is removed."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(30)  # before the connections are dropped, so that none comes after
        self._listener.close()
        self.path.unlink(missing_ok=True)
        self.drop_connections()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def drop_connections(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def send(self, message: Message) -> None:
        """Say this to every agent that is connected."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.sendall(frame(encode(message)))

    @property
    def connections(self) -> int:
        return len(self.hellos)

    def _start(self, target: object, *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=self._guard, args=(target, *arguments), name="unix-peer", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _guard(self, target: object, *arguments: object) -> None:
        try:
            target(*arguments)
        except (ConnectionError, BrokenPipeError):
            pass
        except BaseException as error:  # noqa: BLE001 - shown where the thread is joined
            self.errors.append(error)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        manner, reader, state = self.manner, FrameReader(), _Connection()
        with connection:
            while True:
                if not manner.reads:
                    self._closed.wait()
                    return
                data = connection.recv(65536)
                if not data:
                    return
                for message in reader.feed(data):
                    self.received_frames.append(message)
                    try:
                        decoded = decode(message)
                    except WireError as error:
                        if not manner.refuses_unreadable:
                            raise
                        connection.sendall(frame(encode(Refused(error.reason, str(error)))))
                        return
                    if not self._handle(connection, state, decoded):
                        return

    def _handle(self, connection: socket.socket, state: "_Connection", message: Message) -> bool:
        manner = self.manner
        if isinstance(message, Hello):
            self.hellos.append(message)
            state.instance = message.identity.instance
            if manner.answers_with is not None:
                connection.sendall(manner.answers_with)
            elif manner.refuses:
                connection.sendall(frame(encode(Refused("unknown_version", "too old"))))
                return False
            elif manner.welcomes:
                committed = self.store.committed.get(state.instance, 0)
                connection.sendall(frame(encode(Welcome(committed, features=manner.features))))
        elif isinstance(message, Define):
            state.defined |= {site.site_id for site in message.sites}
            self.traces += message.traces
        elif isinstance(message, Report):
            state.reports += 1
            if 0 <= manner.closes_after_reports < state.reports:
                return False
            if manner.acknowledges:
                self._commit(state, message)
                connection.sendall(frame(encode(Ack(message.sequence))))
        elif isinstance(message, Stall):
            self.stalls.append(message)
            self.store.undefined |= {message.site_id} - state.defined - {0}
        elif isinstance(message, Controlled):
            self.controlled.append(message)
        elif isinstance(message, Farewell):
            self.store.farewells.append(message)
        return True

    def _commit(self, state: "_Connection", report: Report) -> None:
        with self._lock:
            if report.sequence <= self.store.committed.get(state.instance, 0):
                return
            self.store.committed[state.instance] = report.sequence
            self.store.undefined |= {delta.site_id for delta in report.deltas} - state.defined
            self.store.apply(report)


@dataclass
class _Connection:
    instance: bytes = b""
    defined: set[int] = field(default_factory=set)
    reports: int = 0


class UdpPeer:
    """Receives datagrams on a loopback port until `close`."""

    def __init__(self, port: int = 0, *, store: Store | None = None) -> None:
        self.store = store if store is not None else Store()
        self.sizes: list[int] = []
        self.sequences: list[int] = []
        self.defined: list[int] = []
        self.stalls: list[Stall] = []
        self.farewells: list[Farewell] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._closing = False
        self._thread = threading.Thread(target=self._receive, name="udp-peer", daemon=True)
        self._thread.start()

    def __enter__(self) -> "UdpPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", ("127.0.0.1", self.port))
            self._thread.join(30)
            self._socket.close()

    def _receive(self) -> None:
        while True:
            data = self._socket.recv(65536)
            if self._closing and not data:
                return
            message = decode(data)
            assert isinstance(message, Datagram)
            self.sizes.append(len(data))
            self.defined += [site.site_id for site in message.define.sites]
            if message.report is not None:
                self.sequences.append(message.report.sequence)
                self.store.apply(message.report)
            if message.stall is not None:
                self.stalls.append(message.stall)
            if message.farewell is not None:
                self.farewells.append(message.farewell)
