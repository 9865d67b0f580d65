"""The file of a SQLite store: whether it is still there, and what to do when it is not.

A process goes on writing into a file that was deleted, and nobody would ever see what it was told is kept. So the
writer looks before and after each commit whether the path still leads to the file that it opened. If nothing is there,
the store is copied back from the connection that still holds it; if another file is, that one is used from then on.

Nothing here opens the database but through SQLite: closing any other descriptor of it would release SQLite's locks
(sqlite.org/howtocorrupt.html, section 2.2).
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from aiocop_collector.errors import DatabaseError
from aiocop_collector.log import Log
from aiocop_collector.store.database import prepare, reason_of

PAGES_PER_COPY_STEP: Final = 1_000

_PAUSE_S: Final = 0.05
_PATIENCE: Final = 600
"""So many pauses queries that still read the old file are waited for: half a minute."""

_DAMAGE: Final = ("malformed", "not a database", "disk i/o error")


_Identity = tuple[int, int]


def _identity_of(path: Path) -> _Identity | None:
    """Which file the path leads to; None when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


class SqliteFile:
    """Used by the writer's task only. Of a database on a server there is no file, and never any trouble with it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.path = Path(engine.url.database or "")
        self._is_file = engine.dialect.name == "sqlite"
        self._identity: _Identity | None = None
        self._log_files: dict[Path, _Identity] = {}
        self._damage: str | None = None
        self._anchor: sqlite3.Connection | None = None
        self._log = Log("store")

    def open(self) -> None:
        """Remember which file it is, and hold it. Raises DatabaseError."""
        if not self._is_file:
            return
        self._let_go()
        try:
            uri = f"{self.path.absolute().as_uri()}?mode=rw"
            self._anchor = sqlite3.connect(uri, uri=True, check_same_thread=False)
            # Only reading opens the write-ahead log, which must be held too.
            self._anchor.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"the database file {self.path} cannot be opened: {reason_of(error)}") from error
        self._identity = _identity_of(self.path)
        beside = [Path(f"{self.path}{ending}") for ending in ("-wal", "-shm")]
        self._log_files = {path: identity for path in beside if (identity := _identity_of(path)) is not None}
        self._damage = None

    def close(self) -> None:
        """Hold it no longer. Repeated calls are harmless."""
        self._let_go()
        self._identity = self._damage = None

    def suspect(self, error: BaseException) -> None:
        """Something failed. What SQLite's connections remember of a damaged file must not be used again."""
        if self._is_file and is_damage(error):
            self._damage = reason_of(error)

    def trouble(self) -> str | None:
        """Why the file must be opened anew before anything is written."""
        if self._damage is not None or self._identity is None:
            return self._damage
        found = _identity_of(self.path)
        if found is None:
            return f"the database file {self.path} is gone"
        if found != self._identity:
            return f"the database file {self.path} was replaced by another one"
        return None

    def check(self) -> None:
        """Raises DatabaseError when there is trouble."""
        trouble = self.trouble()
        if trouble is not None:
            raise DatabaseError(trouble)

    async def reopen(self) -> bool:
        """Give every connection up, and use what is at the path from then on; a deleted file is put back first.

        Whether it is another store now, which knows nothing of what was said before it came. Raises DatabaseError: then
        nothing is used, and it must be called again.
        """
        trouble, identity = self.trouble(), self._identity
        copy = None
        if not self.path.exists():
            copy = await asyncio.to_thread(self._copy, trouble)
        self._damage = trouble or "the database file is opened anew"
        # A log may belong to one file only: nobody may write the old one any more when another is opened.
        pool = self._engine.sync_engine.pool
        await self._engine.dispose()
        for _ in range(_PATIENCE):
            if not pool.checkedout():  # type: ignore[attr-defined]
                break
            await asyncio.sleep(_PAUSE_S)
        await greenlet_spawn(pool.dispose)
        self._let_go()
        if self._identity is not None and _identity_of(self.path) != self._identity:
            self._remove_old_log()
        put_back = copy is not None and self._put_back(copy)
        await prepare(self._engine)
        self.open()
        return not put_back and self._identity != identity

    def _copy(self, trouble: str | None) -> Path:
        """The whole store in a file beside where it was."""
        if self._anchor is None:
            raise DatabaseError(f"{trouble}: put it back; or start the collector anew, with an empty one")
        copy = self.path.with_name(f"{self.path.name}.saved-{os.getpid()}")
        try:
            copy.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(copy)) as target:
                self._anchor.backup(target, pages=PAGES_PER_COPY_STEP)
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(f"{trouble}, and cannot be put back: {reason_of(error)}") from error
        return copy

    def _put_back(self, copy: Path) -> bool:
        try:
            self.path.hardlink_to(copy)  # never over another file
        except FileExistsError:
            self._log.error("the database was deleted, and another one is there now", saved=str(copy))
            return False
        except OSError as error:
            raise DatabaseError(f"{copy} cannot become {self.path} again: {error.strerror}") from error
        copy.unlink()
        self._log.warning("the database file was deleted; it is there again", file=str(self.path))
        return True

    def _remove_old_log(self) -> None:
        """SQLite leaves the log of a file that was moved where it is, and would take it for that of the next file."""
        for path, identity in self._log_files.items():
            if _identity_of(path) == identity:
                path.unlink()

    def _let_go(self) -> None:
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()


def is_damage(error: BaseException) -> bool:
    """Whether SQLite said that what it read cannot be: what its connections remember must not be used again."""
    text = str(getattr(error, "orig", error)).lower()
    return any(words in text for words in _DAMAGE)


@contextlib.contextmanager
def in_use(path: Path, *, alone: bool = False) -> Iterator[None]:
    """While the block lasts, others know that the database is in use: `FILE.lock` is locked, which the kernel undoes
    when a process dies. Collectors share it, whoever exchanges the file wants it `alone`. Raises DatabaseError.
    """
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise DatabaseError(f"the lock {path}.lock cannot be made: {error.strerror}") from error
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            who = "a collector uses it: stop that one first" if alone else "its file is being exchanged: try again soon"
            raise DatabaseError(f"the database {path} is in use; {who}") from None
        yield
    finally:
        os.close(handle)
