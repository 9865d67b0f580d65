"""Copies of a SQLite store, made while it is in use: of one moment, checked, and under their name only then.

SQLite's own backup, in steps: reports are committed between them. A read transaction holds the moment that is copied;
without it the copy would begin again with every commit, and never end.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiocop_collector.errors import DatabaseError

PAGES_PER_STEP: Final = 1_000
TELLING_INTERVAL_S: Final = 2.0

_SPARE_BYTES: Final = 16 << 20
"""Room that must be left on a volume after a copy."""

Progress = Callable[[float], None]
"""Told what share of the work is done."""


class Telling:
    """Progress for a person: nothing for the first two seconds, then every two seconds."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._next_s = time.monotonic() + TELLING_INTERVAL_S

    def __call__(self, share: float) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + TELLING_INTERVAL_S
            self._tell(share)


def back_up(source: Path, target: Path, progress: Progress) -> int:
    """Copy the store at `source` to `target`, which is replaced if it is there. The copy's bytes.

    Raises DatabaseError; then there is no new `target`, and an old one is left alone.
    """
    if not source.exists():
        raise DatabaseError(f"there is no database at {source}")
    unfinished = target.with_name(f"{target.name}.unfinished-{os.getpid()}")
    try:
        _make_room(source, target)
        _copy(source, unfinished, progress)
        problems = quick_problems(unfinished)
        if problems:
            raise DatabaseError(f"the copy of {source} is not sound, and was thrown away: {problems[0]}")
        _sync(unfinished)
        unfinished.replace(target)
        _sync(target.parent)
        return target.stat().st_size
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(f"{source} cannot be copied to {target}: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def quick_problems(path: Path) -> list[str]:
    """What SQLite finds wrong with a file that nobody else uses; nothing is changed but that it stands alone, without
    a log. Raises sqlite3.Error when it is no database."""
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        found = connection.execute("PRAGMA quick_check(10)").fetchall()
    return [text for (text,) in found if text != "ok"]


def _make_room(source: Path, target: Path) -> None:
    log = Path(f"{source}-wal")
    wanted_bytes = source.stat().st_size + (log.stat().st_size if log.exists() else 0) + _SPARE_BYTES
    free_bytes = shutil.disk_usage(target.parent).free
    if free_bytes < wanted_bytes:
        raise DatabaseError(
            f"{source} cannot be copied to {target}: that takes {wanted_bytes >> 20} MiB and its volume has "
            f"{free_bytes >> 20} MiB left"
        )


def _copy(source: Path, target: Path, progress: Progress) -> None:
    target.unlink(missing_ok=True)
    target.touch(mode=0o640)
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as origin,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        origin.isolation_level = None
        origin.execute("BEGIN")
        origin.execute("SELECT count(*) FROM sqlite_master").fetchone()
        origin.backup(
            copy,
            pages=PAGES_PER_STEP,
            sleep=0.0,
            progress=lambda _status, remaining, total: progress(1 - remaining / total if total else 1.0),
        )
        origin.execute("ROLLBACK")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
