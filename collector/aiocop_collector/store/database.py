"""Opening the database: from the URL a person writes to an engine that is migrated and safe to acknowledge from."""

import asyncio
import contextlib
import importlib.util
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, DisconnectionError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from aiocop_collector.errors import DatabaseError, SettingsError
from aiocop_collector.log import Log
from aiocop_collector.settings import default_database
from aiocop_collector.store.backup import Telling, back_up
from aiocop_collector.store.migrations import migrate, revisions, usable_revision

WRITES: Final = "aiocop_writes"
"""Execution option of connections that will write: on SQLite their transactions take the write lock at BEGIN."""

_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

_BUSY_TIMEOUT_S: Final = 5.0

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # with WAL: every commit is fsynced, so what was acknowledged survives a power cut
    "PRAGMA temp_store = MEMORY",
)

_CACHE_KIB: Final = {True: 32_768, False: 2_048}
"""Of a connection, while it writes and while it reads. What it keeps is thrown away as soon as another one has written,
so a cache is of use within a transaction only: to a commit, which comes back to its pages. Questions measured as fast
with 2 MiB as with 32, and a pool of connections held 30 MiB each."""


_DAMAGED: Final = (
    "the file is damaged; stop the collector, look at it with 'aiocop-collector db check', and put a backup back with "
    "'aiocop-collector db restore FILE'"
)
_ADVICE: Final = {
    "database is locked": "another process keeps it locked; what arrives waits",
    "database or disk is full": "free space on its volume; what arrives waits",
    "malformed": _DAMAGED,
    "file is not a database": _DAMAGED,
    "disk I/O error": "its volume fails; the system's log says more",
    "unable to open database file": "the file or its folder is missing, or must not be used by this user",
    "attempt to write a readonly database": "its file, folder or volume must not be written by this user",
}
"""What to do about what SQLite says, in its own words (sqlite3.c, sqlite3ErrStr)."""


def open_engine(url: str) -> AsyncEngine:
    """An engine for a URL as users write it. Connects to nothing yet. Raises SettingsError."""
    target = _normalise(url or default_database())
    if target.get_backend_name() != "sqlite":
        # The connection that was used last is used next: it has the statements prepared.
        engine = create_async_engine(target, pool_use_lifo=True)
        event.listen(engine.sync_engine, "checkout", _see_that_it_is_open)
        return engine
    # The connection that was used last is used next, so that there are no more than are needed at once.
    engine = create_async_engine(target, connect_args={"timeout": _BUSY_TIMEOUT_S}, pool_use_lifo=True)
    event.listen(engine.sync_engine, "do_connect", _open_only)
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


@contextlib.asynccontextmanager
async def writing(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that may write from its begin on, committed at the end."""
    async with engine.connect() as connection:
        await connection.execution_options(**{WRITES: True})
        async with connection.begin():
            yield connection


async def prepare(engine: AsyncEngine) -> None:
    """Make what is missing of directory and tables, and see that the database can be written. Raises DatabaseError."""
    url = engine.url
    try:
        if url.get_backend_name() == "sqlite" and url.database is not None:
            _try_file(Path(url.database))
        async with writing(engine) as connection:
            await _save_before_upgrade(connection)
            await connection.run_sync(migrate)
    except (SQLAlchemyError, OSError, sqlite3.Error) as error:
        raise DatabaseError(f"the database {shown(url)} cannot be used: {reason_of(error)}") from error


def shown(url: URL) -> str:
    """The URL as a person may see it: without a password, without our driver."""
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def reason_of(error: BaseException) -> str:
    """What a driver said, on one line and without its statement and parameters."""
    cause: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return f"{cause.strerror} ({cause.filename})" if cause.filename else cause.strerror
    text = " ".join(str(cause).split())
    text = text.rpartition(">: ")[2] or type(error).__name__  # SQLAlchemy puts "<class …>: " before asyncpg's text
    advice = next((advice for words, advice in _ADVICE.items() if words in text), None)
    return f"{text}: {advice}" if advice else text


def blames_values(error: BaseException) -> bool:
    """Whether the database said that the values are impossible: trying the same ones again is no use.

    OverflowError is sqlite3's, for integers past 64 bits; SQLSTATE classes 22 and 23 are data exceptions and
    violated constraints (PostgreSQL, appendix A).
    """
    if isinstance(error, (OverflowError, DataError, IntegrityError, sqlite3.DataError, sqlite3.IntegrityError)):
        return True
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return isinstance(state, str) and state[:2] in ("22", "23")


def _normalise(url: str) -> URL:
    try:
        target = make_url(url)
    except ArgumentError:
        raise SettingsError(
            f"--database {url!r}: a database is sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None
    driver = _DRIVERS.get(target.drivername)
    if driver is None:
        raise SettingsError(
            f"--database: {target.drivername!r} is not supported: use sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    target = target.set(drivername=driver)
    if driver == "sqlite+aiosqlite":
        if not target.database or target.database == ":memory:":
            raise SettingsError("--database: sqlite needs a file, like sqlite:////var/lib/aiocop/collector.sqlite3")
    elif importlib.util.find_spec("asyncpg") is None:
        raise SettingsError("--database: PostgreSQL needs an extra: pip install 'aiocop-telemetry[postgres]'")
    return target


def check_file(url: URL) -> None:
    """See that a SQLite file is there and is one. Raises sqlite3.Error.

    Without aiosqlite, whose thread outlives an event loop that ends over a failed connection.
    """
    if url.get_backend_name() == "sqlite":
        uri = f"{Path(url.database or '').absolute().as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA schema_version")


def _try_file(path: Path) -> None:
    """Make the file where it is missing, and see that it can be written. Without aiosqlite, as above."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S)) as connection:
        if path.stat().st_size == 0:
            # Only before the first page is written; it is what lets the file shrink again (see size.py).
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for pragma in _PRAGMAS:
            connection.execute(pragma)


async def _save_before_upgrade(connection: AsyncConnection) -> None:
    """A copy beside a SQLite file, before its tables are changed; the copy of the upgrade before goes.

    In the transaction of the upgrade: of several collectors that start at once, one saves and upgrades.
    """
    if connection.dialect.name != "sqlite":
        return
    revision, known = await connection.run_sync(usable_revision), revisions()
    if revision not in known[:-1]:
        return
    path = Path(connection.engine.url.database or "")
    log = Log("store")
    copy = path.with_name(f"{path.name}.before-{known[-1]}")
    log.info("upgrading the database; saving it first", revision=revision, to=known[-1], copy=str(copy))
    tell = Telling(lambda share: log.info("saving the database", done=f"{share:.0%}"))
    await asyncio.to_thread(back_up, path, copy, tell)
    for older in known[:-1]:
        path.with_name(f"{path.name}.before-{older}").unlink(missing_ok=True)


def _see_that_it_is_open(connection: Any, _record: object, _proxy: object) -> None:
    """A connection idle since the server was restarted is noticed before it is used: that has closed its end. Asking
    the server (pool_pre_ping) takes three round trips, a tenth of a question about one service."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _open_only(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> None:
    """Connections make no file, only `prepare` does: where one was deleted, no empty one must take its place."""
    arguments[0] = f"{Path(arguments[0]).absolute().as_uri()}?mode=rw"
    options["uri"] = True


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would take a read lock first and fail when it has to upgrade.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    if connection.info.get(WRITES) is not writes:
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB[writes]}")
        connection.info[WRITES] = writes
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
