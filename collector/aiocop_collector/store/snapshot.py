"""One consistent view for the several statements that make up an answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection whose statements all see the store as it was at the first one, while ingest goes on."""
    async with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        await connection.begin()
        if engine.dialect.name == "sqlite":
            # Python's sqlite3 opens no transaction for a SELECT, unless the engine was told to: without one, each
            # statement would see a later store than the one before.
            driver_connection = (await connection.get_raw_connection()).driver_connection
            if driver_connection is not None and not driver_connection.in_transaction:
                await connection.exec_driver_sql("BEGIN")
        yield connection
