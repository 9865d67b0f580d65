"""Alembic migrations, run in the process at start: the tables become what schema.py says, under a lock.

A migration is a file in versions/, named after its revision. What a released version has run is never edited again. A
migration must leave the version before it working, also when it is started again: collectors that share a PostgreSQL
are upgraded one by one. So it only adds: tables, indexes, and columns that may be left out; a test compares. One that
cannot raises OLDEST_REVISION, and from then on collectors that know less refuse the database.

Nearly every start finds nothing to do, and sees it here without Alembic; upgrading.py has that, and is loaded for it.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from sqlalchemy import column, inspect, select, table, text
from sqlalchemy.engine import Connection

from aiocop_collector.deferred import load
from aiocop_collector.errors import NewerSchemaError
from aiocop_collector.log import Log
from aiocop_collector.store.locks import COUNTS, MIGRATION
from aiocop_collector.store.schema import about
from aiocop_wire import __version__

OLDEST_REVISION: Final = "0008"
"""The first one whose collectors can work on what all migrations together make. Those before it cannot ask."""

_VERSION: Final = table("alembic_version", column("version_num"))
"""Alembic's own: one row with the database's revision."""


def migrate(connection: Connection) -> None:
    """Bring the database up to date inside the caller's transaction. Raises NewerSchemaError.

    On SQLite the caller's BEGIN IMMEDIATE is the lock; on PostgreSQL advisory locks are held until it commits.
    """
    _lock(connection, MIGRATION)
    known = revisions()
    found = _current(connection)
    if found == known[-1]:
        return
    if found is not None and found not in known:
        _see_that_we_may_work(connection, found, known)
        return
    _lock(connection, COUNTS)  # collectors of the version before are between two commits, and wait
    upgrade(connection, "head")
    for name, value in (("oldest_revision", OLDEST_REVISION), ("collector_version", __version__)):
        connection.execute(about.delete().where(about.c.name == name))
        connection.execute(about.insert().values(name=name, value=value))


def upgrade(connection: Connection, revision: str) -> None:
    """To this revision, as long as nobody else does the same."""
    load("aiocop_collector.store.migrations.upgrading").upgrade(connection, revision)


def usable_revision(connection: Connection) -> str | None:
    """The database's revision; None when it is empty. Raises NewerSchemaError when this version cannot work on it."""
    known = revisions()
    found = _current(connection)
    if found is not None and found not in known:
        _see_that_we_may_work(connection, found, known)
    return found


def written_by(connection: Connection) -> str | None:
    """The version of the collector that migrated the database last; None for those that did not say."""
    if not inspect(connection).has_table(about.name):
        return None
    version: str | None = connection.execute(select(about.c.value).where(about.c.name == "collector_version")).scalar()
    return version


def revisions() -> list[str]:
    """All there are, oldest first: the numbers that the files' names begin with."""
    files = (Path(__file__).parent / "versions").glob("[0-9]*_*.py")
    return sorted(file.name.partition("_")[0] for file in files)


def _current(connection: Connection) -> str | None:
    """The revision that the database is at; None for one that nobody has migrated."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    revision: str | None = connection.execute(select(_VERSION.c.version_num)).scalar()
    return revision


def _lock(connection: Connection, key: int) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def _see_that_we_may_work(connection: Connection, found: str, known: Collection[str]) -> None:
    """A newer collector migrated the database, which is at revision `found`."""
    facts: dict[str, str] = {}
    if inspect(connection).has_table(about.name):
        facts = {fact.name: fact.value for fact in connection.execute(select(about))}
    version = facts.get("collector_version")
    if facts.get("oldest_revision") in known:
        Log("store").warning(
            "a newer collector migrated the database; working on it as before", revision=found, version=version
        )
        return
    wanted = f"'aiocop-telemetry[collector]>={version}'" if version else "--upgrade 'aiocop-telemetry[collector]'"
    raise NewerSchemaError(
        f"the database has schema revision {found!r}, and this aiocop-collector {__version__} cannot work on it: "
        f"a newer version wrote it; install that one (pip install {wanted}) or name another --database"
    )
