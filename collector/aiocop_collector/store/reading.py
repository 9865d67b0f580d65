"""Reading rows past SQLAlchemy where its part takes longer than the database's: a question of ten statements.

On SQLite each is one call in the driver's thread instead of four, and rows stay tuples: a fifth of the CPU time.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.asyncio import AsyncConnection

if TYPE_CHECKING:
    import aiosqlite


async def fetch(connection: AsyncConnection, statement: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
    """All rows of a statement in the driver's own text, read in the connection's transaction.

    Raises sqlite3.Error, or what SQLAlchemy makes of another driver's errors.
    """
    sync = connection.sync_connection
    if sync is None or connection.dialect.name != "sqlite":
        return (await connection.exec_driver_sql(statement, tuple(parameters))).all()
    driver = cast("aiosqlite.Connection", sync.connection.driver_connection)
    return cast("Sequence[Any]", await driver.execute_fetchall(statement, parameters))
