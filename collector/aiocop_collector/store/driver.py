"""Rows past SQLAlchemy, where its part takes longer than the database's: the ten statements of a question, and the
twenty of a commit.

On SQLite each is one call in the driver's thread instead of three or four, and rows stay tuples: reading takes a fifth
of the CPU time. On PostgreSQL all rows are written in one execution, as an array for each column.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    import aiosqlite


class Statement(NamedTuple):
    """Something to execute for rows, in the driver's own text."""

    text: str
    by_column: bool = False
    """Whether its parameters are arrays, one for each column of the rows; else they are those of one row."""


async def fetch(connection: AsyncConnection, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
    """All rows of a statement in the driver's own text, read in the connection's transaction.

    Raises sqlite3.Error, or what SQLAlchemy makes of another driver's errors.
    """
    driver = _sqlite_driver(connection)
    if driver is None:
        return (await connection.exec_driver_sql(statement, tuple(parameters))).all()
    return cast("Sequence[Any]", await driver.execute_fetchall(statement, parameters))


async def execute_rows(connection: AsyncConnection, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> None:
    """Execute it for all of these rows, in their order and in the connection's transaction; nothing for none.

    Raises as `fetch` does.
    """
    if not rows:
        return
    driver = _sqlite_driver(connection)
    if driver is not None:
        await driver.executemany(statement.text, rows)
    elif statement.by_column:
        await connection.exec_driver_sql(statement.text, tuple(map(list, zip(*rows, strict=True))))
    else:
        await connection.exec_driver_sql(statement.text, list(rows))


def _sqlite_driver(connection: AsyncConnection) -> "aiosqlite.Connection | None":
    sync = connection.sync_connection
    if sync is None or connection.dialect.name != "sqlite":
        return None
    return cast("aiosqlite.Connection", sync.connection.driver_connection)
