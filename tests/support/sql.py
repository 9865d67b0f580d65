"""Statements on a collector's database from a test, and databases of a test's own on a shared server."""

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import Any

from sqlalchemy import text

from aiocop_collector.store.database import WRITES, open_engine


def run_sql(url: str, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Run one statement and commit it; its rows."""
    return asyncio.run(_run(url, statement, parameters))


async def _run(url: str, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    engine = open_engine(url)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                result = await connection.execute(text(statement), parameters)
                return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        await engine.dispose()


def make_database(server_url: str) -> str:
    """The URL of a new, empty database on a PostgreSQL server."""
    return asyncio.run(create_database(server_url))


async def create_database(server_url: str, *, like: str = "template1") -> str:
    """The same where an event loop runs; with all that is in the database of the name `like`, which nobody may use."""
    name = f"own_{uuid.uuid4().hex}"
    admin = open_engine(server_url)
    try:
        async with admin.connect() as connection:
            await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
                text(f"CREATE DATABASE {name} TEMPLATE {like}")
            )
    finally:
        await admin.dispose()
    return server_url.rpartition("/")[0] + f"/{name}"


async def copy_database(url: str, folder: Path) -> str:
    """The URL of a copy, on the same server or in a folder. Nobody may use the original meanwhile."""
    rest, _, name = url.rpartition("/")
    if url.startswith("postgresql"):
        return await create_database(f"{rest}/postgres", like=name)
    return f"sqlite:///{shutil.copy(url.removeprefix('sqlite:///'), folder)}"
