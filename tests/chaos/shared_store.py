"""A store that two collectors share, and that a test can hold so that neither commits."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url


@dataclass(frozen=True)
class SqliteStore:
    file: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else commits while the block lasts."""
        with closing(sqlite3.connect(self.file, isolation_level=None, timeout=30)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")


@dataclass(frozen=True)
class PostgresStore:
    url: str
    psql: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else takes a lock on an agent's row while the block lasts."""
        url = make_url(self.url)
        command = [str(self.psql), "-qAt", "-h", url.host, "-p", str(url.port), "-U", url.username, url.database]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            session.stdin.write("BEGIN; LOCK TABLE agents IN EXCLUSIVE MODE; SELECT 'locked';\n")
            session.stdin.flush()
            assert session.stdout.readline() == "locked\n"
            yield
