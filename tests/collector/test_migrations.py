"""Migrations end in exactly the tables that the code reads and writes."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from aiocop_collector.store import schema
from aiocop_collector.store.database import open_engine, prepare


def differences(connection) -> list:
    return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), schema.metadata)


async def test_migrations_make_the_schema(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/made/for/it/c.sqlite3")
    await prepare(engine)
    await prepare(engine)  # nothing left to do
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


@pytest.mark.postgres
async def test_migrations_make_the_schema_on_postgresql(postgres_url):
    admin = open_engine(postgres_url)
    async with admin.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
            text("CREATE DATABASE migrated")
        )
    await admin.dispose()
    engine = open_engine(postgres_url.rpartition("/")[0] + "/migrated")
    await prepare(engine)
    await prepare(engine)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_tables_are_stored_as_the_schema_says(tmp_path):
    """What Alembic does not compare: keys in order, no hidden row id."""
    migrated, created = tmp_path / "migrated.sqlite3", tmp_path / "created.sqlite3"
    engine = open_engine(f"sqlite:///{migrated}")
    await prepare(engine)
    await engine.dispose()
    created.touch()
    engine = open_engine(f"sqlite:///{created}")
    async with engine.begin() as connection:
        await connection.run_sync(schema.metadata.create_all)
    await engine.dispose()

    def described(path) -> set[str]:
        database = sqlite3.connect(path)
        found = database.execute("SELECT sql FROM sqlite_master WHERE sql NOT LIKE '%alembic_version%'").fetchall()
        database.close()
        return {"".join(sql.split()) for (sql,) in found}

    assert described(migrated) == described(created)


async def test_acknowledged_means_durable(tmp_path):
    (tmp_path / "c.sqlite3").touch()
    engine = open_engine(f"sqlite:///{tmp_path}/c.sqlite3")
    async with engine.connect() as connection:
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == 2
    await engine.dispose()
