"""The operations that block: their names, weights, causes, advice, and how each one is seen.

An operation is seen by Python's audit hook (every call, also through early-bound names, but only its start), by a
wrapper around a public function (its duration too, but only calls made through the public name), or by both: then the
wrapper measures and the hook catches what goes past it. The names are those of the published aiocop where it has one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from aiocop.severity import WEIGHT_HEAVY, WEIGHT_LIGHT, WEIGHT_MODERATE, WEIGHT_TRIVIAL
from aiocop_wire.light_typing import NamedTuple

Advice = str
OperationCause = Literal["io", "wait", "cpu", "gc", "gil", "loop"]
OPERATION_CAUSES: Final = ("io", "wait", "cpu")
"""Causes of what can be called; the others are only observed."""

_HTTP: Final = "Use an asynchronous HTTP client (httpx.AsyncClient, aiohttp), or asyncio.to_thread()."
_DNS: Final = "Use await loop.getaddrinfo(), or a client that resolves asynchronously."
_SOCKET: Final = "Use asyncio streams or an asynchronous client library, or asyncio.to_thread()."
_SLEEP: Final = "Use await asyncio.sleep()."
_FILE: Final = "Use asyncio.to_thread() or aiofiles, or read it once at start and keep it."
_METADATA: Final = "Keep the answer, or use asyncio.to_thread(): the file system may be slow or remote."
_SUBPROCESS: Final = "Use asyncio.create_subprocess_exec()."
_DATABASE: Final = "Use an asynchronous driver (aiosqlite, asyncpg), or asyncio.to_thread()."
_LOCK: Final = "Use the asyncio counterpart (asyncio.Lock, Event, Queue), or wait in asyncio.to_thread()."
_IMPORT: Final = "Import at the top of the module, so that it happens before the loop runs."
_CPU: Final = "Move it to a process pool or a thread, split it with await asyncio.sleep(0), or do less of it."
_COLLECT: Final = "Collect between requests or in another process, or leave it to the interpreter."
_TLS: Final = "Make the client or SSLContext once, before the loop runs, and use it again."
_MAIL: Final = "Use an asynchronous client (aiosmtplib, aioimaplib), or asyncio.to_thread()."


class Operation(NamedTuple):
    """One entry of the catalogue."""

    name: str
    weight: int
    cause: OperationCause
    advice: Advice
    targets: tuple[str, ...] = ()
    """Dotted names to wrap; empty for an operation that only the audit hook sees."""
    audit_events: frozenset[str] = frozenset()
    """Audit events that mean this operation; inside its wrapper they are the same call and not counted again."""
    counts_from_ns: int = 0
    """A shorter call did not block (a free queue, a set event) and is nothing to report."""
    socket: bool = False
    """The first argument is a socket; with a timeout of 0 it does not block."""
    modules: tuple[str, ...] = ()
    """Modules that must be imported by somebody else before the targets can be wrapped."""


_NOT_BLOCKED_NS: Final = 200_000


def _wrapped(weight: int, cause: OperationCause, advice: Advice, *names: str) -> Iterator[Operation]:
    """Functions without an audit event of their own."""
    for name in names:
        yield Operation(name, weight, cause, advice, targets=(name,))


def _audited(weight: int, cause: OperationCause, advice: Advice, *names: str) -> Iterator[Operation]:
    """Functions whose start only the audit hook can tell."""
    for name in names:
        yield Operation(name, weight, cause, advice, audit_events=frozenset((name,)))


def _both(weight: int, cause: OperationCause, advice: Advice, *names: str) -> Iterator[Operation]:
    """Functions with an audit event of the same name."""
    for name in names:
        yield Operation(name, weight, cause, advice, targets=(name,), audit_events=frozenset((name,)))


def _waits(*names: str, modules: tuple[str, ...] = ()) -> Iterator[Operation]:
    """Functions that block only if they have to wait."""
    for name in names:
        yield Operation(
            name, WEIGHT_HEAVY, "wait", _LOCK, targets=(name,), counts_from_ns=_NOT_BLOCKED_NS, modules=modules
        )


def _sockets(weight: int, *names: str, events: Mapping[str, str] | None = None) -> Iterator[Operation]:
    for name in names:
        event = (events or {}).get(name)
        audit_events = frozenset((event,)) if event else frozenset()
        yield Operation(name, weight, "io", _SOCKET, targets=(name,), audit_events=audit_events, socket=True)


_SLEEP_EVENTS: Final = frozenset(("time.sleep",)) if sys.version_info >= (3, 13) else frozenset[str]()


def standard_operations() -> tuple[Operation, ...]:
    """The catalogue as it comes, in no particular order; names are unique."""
    heavy, moderate, light, trivial = WEIGHT_HEAVY, WEIGHT_MODERATE, WEIGHT_LIGHT, WEIGHT_TRIVIAL
    return (
        Operation("time.sleep", heavy, "wait", _SLEEP, targets=("time.sleep",), audit_events=_SLEEP_EVENTS),
        # Names
        *_both(heavy, "io", _DNS, "socket.getaddrinfo", "socket.getnameinfo", "socket.gethostbyaddr"),
        Operation(
            "socket.gethostbyname",
            heavy,
            "io",
            _DNS,
            targets=("socket.gethostbyname", "socket.gethostbyname_ex"),
            audit_events=frozenset(("socket.gethostbyname",)),
        ),
        # Sockets: the audit hook has only connect, bind, sendto and sendmsg, and cannot see whether they may block.
        *_sockets(heavy, "socket.socket.connect", "socket.socket.connect_ex", "socket.socket.accept"),
        *_sockets(trivial, "socket.socket.bind"),
        *_sockets(
            moderate,
            "socket.socket.send",
            "socket.socket.sendto",
            "socket.socket.sendmsg",
            "socket.socket.sendall",
            "socket.socket.recv",
            "socket.socket.recv_into",
            "socket.socket.recvfrom",
            "socket.socket.recvfrom_into",
            "socket.socket.recvmsg",
            "ssl.SSLSocket.write",
            "ssl.SSLSocket.send",
            "ssl.SSLSocket.read",
            "ssl.SSLSocket.recv",
        ),
        *_sockets(heavy, "ssl.SSLSocket.do_handshake"),
        *_wrapped(moderate, "io", _TLS, "ssl.SSLContext.load_verify_locations"),
        # Files
        Operation(
            "open",
            moderate,
            "io",
            _FILE,
            targets=("builtins.open", "io.open", "os.open"),
            audit_events=frozenset(("open",)),
        ),
        *_audited(moderate, "io", _FILE, "tempfile.mkdtemp", "tempfile.mkstemp"),
        *_both(moderate, "io", _FILE, "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.link", "os.symlink"),
        *_both(moderate, "io", _FILE, "os.truncate"),
        Operation(
            "os.remove",
            moderate,
            "io",
            _FILE,
            targets=("os.remove", "os.unlink"),
            audit_events=frozenset(("os.remove",)),
        ),
        Operation("os.rename", moderate, "io", _FILE, targets=("os.rename",), audit_events=frozenset(("os.rename",))),
        Operation("os.replace", moderate, "io", _FILE, targets=("os.replace",), audit_events=frozenset(("os.rename",))),
        *_wrapped(moderate, "io", _FILE, "os.sendfile", "os.fsync", "os.fdatasync", "os.read", "os.write"),
        *_audited(heavy, "io", _FILE, "os.walk", "os.fwalk", "glob.glob", "pathlib.Path.glob", "pathlib.Path.rglob"),
        *_audited(moderate, "io", _FILE, "shutil.copyfile", "shutil.copymode", "shutil.copystat", "shutil.move"),
        *_audited(heavy, "io", _FILE, "shutil.copytree", "shutil.rmtree"),
        *_wrapped(trivial, "io", _METADATA, "os.getcwd", "os.path.abspath", "os.path.islink"),
        *_wrapped(light, "io", _METADATA, "os.stat", "os.lstat", "os.access", "os.readlink", "os.statvfs"),
        *_wrapped(light, "io", _METADATA, "os.path.ismount", "os.path.samestat", "os.path.sameopenfile"),
        *_both(light, "wait", _LOCK, "fcntl.flock", "fcntl.lockf"),
        # Other processes
        *_both(heavy, "io", _SUBPROCESS, "os.system", "os.posix_spawn"),
        Operation(
            "subprocess.Popen",
            heavy,
            "io",
            _SUBPROCESS,
            targets=("subprocess.Popen.__init__",),
            audit_events=frozenset(("subprocess.Popen",)),
        ),
        *(
            Operation(name, heavy, "wait", _SUBPROCESS, targets=(name,), counts_from_ns=_NOT_BLOCKED_NS)
            for name in ("subprocess.Popen.wait", "subprocess.Popen.communicate", "os.waitpid")
        ),
        *_audited(heavy, "io", _SUBPROCESS, "os.exec", "os.fork"),
        # Audited on Windows alone; elsewhere Python code around os.fork and os.waitpid. os.spawnl calls os.spawnv.
        Operation(
            "os.spawn",
            heavy,
            "io",
            _SUBPROCESS,
            targets=("os.spawnv", "os.spawnve", "os.spawnvp", "os.spawnvpe"),
            audit_events=frozenset(("os.spawn",)),
        ),
        *_audited(light, "io", _SUBPROCESS, "os.kill"),
        # Protocols of the standard library
        *_audited(heavy, "io", _HTTP, "http.client.connect", "urllib.Request"),
        *_audited(heavy, "io", _MAIL, "smtplib.connect", "poplib.connect", "imaplib.open", "nntplib.connect"),
        *_audited(heavy, "io", _SOCKET, "ftplib.connect"),
        # Databases
        Operation(
            "sqlite3.connect",
            moderate,
            "io",
            _DATABASE,
            targets=("sqlite3.connect", "sqlite3.dbapi2.connect"),
            audit_events=frozenset(("sqlite3.connect",)),
            modules=("sqlite3", "sqlite3.dbapi2"),
        ),
        # Measured by sqlite_queries.py, the classes being built in
        *(
            Operation(name, moderate, "io", _DATABASE)
            for name in (
                "sqlite3.Cursor.execute",
                "sqlite3.Cursor.executemany",
                "sqlite3.Cursor.executescript",
                "sqlite3.Cursor.fetchall",
                "sqlite3.Connection.commit",
            )
        ),
        # Waiting for other threads
        *_waits("threading.Condition.wait", "threading.Event.wait", "threading.Thread.join", "select.select"),
        # Starting a thread waits until it runs, a fraction of a millisecond unless the GIL or the host is busy.
        Operation(
            "threading.Thread.start",
            heavy,
            "wait",
            "Start threads before the loop runs, or keep a pool of them.",
            targets=("threading.Thread.start",),
            counts_from_ns=10_000_000,
        ),
        *_waits("queue.Queue.get", "queue.Queue.put", modules=("queue",)),
        *_waits(
            "concurrent.futures.Future.result",
            "concurrent.futures.Future.exception",
            "concurrent.futures.wait",
            modules=("concurrent.futures",),
        ),
        # The rest
        Operation("gc.collect", heavy, "gc", _COLLECT, targets=("gc.collect",)),
        *_audited(heavy, "wait", _SLEEP, "builtins.input"),
        *_audited(heavy, "io", _IMPORT, "import"),
        *_audited(light, "io", _FILE, "syslog.syslog", "syslog.openlog"),
    )


CPU: Final = Operation("cpu", WEIGHT_HEAVY, "cpu", _CPU)
"""Time nobody announced and the thread's CPU clock confirms."""
GC: Final = Operation(
    "gc",
    WEIGHT_HEAVY,
    "gc",
    "Make fewer long-lived objects, call gc.freeze() after start-up, or raise the thresholds with gc.set_threshold().",
)
"""A pause of the garbage collector that nobody asked for."""
GIL: Final = Operation(
    "gil",
    WEIGHT_HEAVY,
    "gil",
    "Move this work to a process pool, or to code that releases the GIL: the loops waited while this thread held it.",
)
"""Time in which a loop was ready and another thread held the GIL."""
OTHER: Final = Operation("other", 0, "io", "More sites than the agent keeps apart were seen by one process.")
"""Whatever one process had too many different sites to keep apart."""
OWN: Final = Operation("aiocop", 0, "wait", "", counts_from_ns=1)
"""What the agent itself does on a loop's thread, around a fork: waits in it are not the service's. Never counted."""
TURN: Final = Operation(
    "loop",
    WEIGHT_HEAVY,
    "loop",
    "Too many callbacks were ready at once: limit concurrency, batch them, or spread the work.",
)
"""A long turn of a loop made of short callbacks."""
WAIT: Final = Operation("wait", WEIGHT_HEAVY, "wait", _LOCK)
"""Time nobody announced in which the thread had no CPU: a lock, or a call that no hook or wrapper sees."""
