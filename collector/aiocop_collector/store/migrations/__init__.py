"""Alembic migrations, run in the process at start: the tables become what schema.py says, under a lock.

A migration is a file in versions/, named after its revision. What a released version has run is never edited again. A
migration must leave the version before it working: collectors that share a PostgreSQL are upgraded one by one.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from aiocop_collector.errors import NewerSchemaError
from aiocop_wire import __version__

_LOCK_KEY: Final = 0x6169_6F63_6F70  # "aiocop": any constant will do, as long as all collectors use the same


def migrate(connection: Connection) -> None:
    """Bring the database up to date inside the caller's transaction. Raises NewerSchemaError.

    On SQLite the caller's BEGIN IMMEDIATE is the lock; on PostgreSQL an advisory lock is held until it commits.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    for revision in MigrationContext.configure(connection).get_current_heads():
        if revision not in known:
            raise NewerSchemaError(
                f"the database has schema revision {revision!r}, unknown to this aiocop-collector {__version__}: "
                "a newer version wrote it; install that one (pip install --upgrade 'aiocop-telemetry[collector]') or "
                "name another --database"
            )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
