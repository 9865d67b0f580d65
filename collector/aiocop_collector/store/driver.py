"""Rows past SQLAlchemy, where its part takes longer than the database's: the ten statements of a question, and the
twenty of a commit.

On SQLite each is one call in the driver's thread instead of three or four, and rows stay tuples: reading takes a fifth
of the CPU time. On PostgreSQL all rows are written in one execution, as an array for each column.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.deferred import load

if TYPE_CHECKING:
    import aiosqlite
    import asyncpg


class Statement(NamedTuple):
    """Something to execute for rows, in the driver's own text."""

    text: str
    column_types: tuple[type, ...] = ()
    """Where its parameters are arrays, one for each column of the rows: the Python types of their values. Else none:
    they are those of one row."""


async def fetch(connection: AsyncConnection, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
    """All rows of a statement in the driver's own text, read in the connection's transaction.

    Raises sqlite3.Error, or DBAPIError for another driver's errors.
    """
    if connection.dialect.name == "sqlite":
        return cast("Sequence[Any]", await _sqlite_driver(connection).execute_fetchall(statement, parameters))
    driver = _postgresql_driver(connection)
    if driver is None:
        return (await connection.exec_driver_sql(statement, tuple(parameters))).all()
    try:
        return cast("Sequence[Any]", await driver.fetch(statement, *parameters))
    except _postgresql_errors() as error:
        await _give_up(connection, driver, statement, error)


async def execute_rows(connection: AsyncConnection, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> None:
    """Execute it for all of these rows, in their order and in the connection's transaction; nothing for none.

    Raises as `fetch` does.
    """
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        await _sqlite_driver(connection).executemany(statement.text, rows)
        return
    driver = _postgresql_driver(connection)
    if driver is None:
        parameters = tuple(_arrays(statement, rows)) if statement.column_types else list(rows)
        await connection.exec_driver_sql(statement.text, parameters)
        return
    try:
        if statement.column_types:
            await driver.execute(statement.text, *_arrays(statement, rows))
        else:
            await driver.executemany(statement.text, rows)
    except _postgresql_errors() as error:
        await _give_up(connection, driver, statement.text, error)


def integer_array(values: Iterable[int | None]) -> str:
    """In PostgreSQL's notation."""
    return f"{{{repr(list(values))[1:-1].replace('None', 'NULL')}}}"


def _arrays(statement: Statement, rows: Sequence[tuple[Any, ...]]) -> Iterator[str | list[Any]]:
    """Integers as text in PostgreSQL's notation, which the statement casts: of an array's elements asyncpg asks one by
    one whether they are iterable, which was half of a commit's CPU time."""
    for kind, column in zip(statement.column_types, zip(*rows, strict=True), strict=True):
        yield integer_array(column) if kind is int else list(column)


def _sqlite_driver(connection: AsyncConnection) -> "aiosqlite.Connection":
    return cast("aiosqlite.Connection", _driver(connection))


def _postgresql_driver(connection: AsyncConnection) -> "asyncpg.Connection | None":
    """None before the first statement of a transaction: SQLAlchemy begins it on the server only with that."""
    driver = cast("asyncpg.Connection", _driver(connection))
    return driver if driver.is_in_transaction() else None


def _driver(connection: AsyncConnection) -> object:
    sync = connection.sync_connection
    return None if sync is None else sync.connection.driver_connection


def _postgresql_errors() -> tuple[type[Exception], ...]:
    asyncpg = load("asyncpg")
    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


async def _give_up(
    connection: AsyncConnection, driver: "asyncpg.Connection", statement: str, error: Exception
) -> NoReturn:
    """As SQLAlchemy would: a connection that broke is not used again."""
    broken = driver.is_closed()
    if broken:
        await connection.invalidate(error)
    raise DBAPIError(statement, None, error, connection_invalidated=broken) from error
