"""Putting a copy in the place of a store that no collector uses; the file that was there is kept beside it."""

import contextlib
import sqlite3
import time
from pathlib import Path

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from aiocop_collector.errors import DatabaseError
from aiocop_collector.store.backup import Progress, back_up
from aiocop_collector.store.database import reason_of
from aiocop_collector.store.migrations import usable_revision
from aiocop_collector.store.sqlite_file import in_use


def restore(backup: Path, database: Path, progress: Progress) -> Path | None:
    """Make `database` what `backup` is. Where the file that was there is now; None when there was none.

    Raises DatabaseError, and NewerSchemaError for a copy of a newer version; then `database` is as it was.
    """
    if not backup.is_file():
        raise DatabaseError(f"there is no backup at {backup}")
    if database.exists() and backup.samefile(database):
        raise DatabaseError(f"{backup} is the database itself")
    with in_use(database, alone=True):
        incoming = database.with_name(f"{database.name}.restoring")
        try:
            check_backup(backup)
            back_up(backup, incoming, progress)
            kept = _set_aside(database)
            incoming.replace(database)
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            raise DatabaseError(f"{backup} cannot be restored to {database}: {reason_of(error)}") from error
        finally:
            incoming.unlink(missing_ok=True)
    return kept


def check_backup(backup: Path) -> None:
    """That this version can use it. Raises DatabaseError, NewerSchemaError, SQLAlchemyError."""
    engine = create_engine(make_url(f"sqlite:///{backup.absolute()}"), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if usable_revision(connection) is None:
                raise DatabaseError(f"{backup} is not a backup of a collector's database: it has none of its tables")
    finally:
        engine.dispose()


def _set_aside(database: Path) -> Path | None:
    if not database.exists():
        return None
    kept = database.with_name(f"{database.name}.before-restore-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    # A sound file takes its log in, which must not be taken for the next one's; a damaged one keeps it by its side.
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for ending in ("-wal", "-shm"):
        beside = Path(f"{database}{ending}")
        if beside.exists():
            beside.rename(f"{kept}{ending}")
    database.rename(kept)
    return kept
