"""Migrations end in exactly the tables that the code reads and writes."""

import asyncio
import re
import sqlite3
from itertools import pairwise
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, insert, select
from sqlalchemy.engine import Connection
from tests.support.sql import create_database

from aiocop_collector.store import migrations, schema
from aiocop_collector.store.database import open_engine, prepare
from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.migrations import OLDEST_REVISION, revisions, upgrade
from aiocop_collector.store.statements import REPLACE, Statements

BREAKING: frozenset[str] = frozenset()
"""Revisions that do more than add. Each of them raised OLDEST_REVISION."""

WRITTEN_BY_TRIGGERS = frozenset({"facts_changed", "presence_changed"})
"""Tables that no collector writes by itself."""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def empty_url(request, tmp_path) -> str:
    """Of a database of the test's own that nobody has migrated."""
    if request.param == "sqlite":
        (tmp_path / "c.sqlite3").touch()  # only `prepare` makes a file
        return f"sqlite:///{tmp_path}/c.sqlite3"
    return await create_database(request.getfixturevalue("postgres_url"))


def is_whole(name: str) -> bool:
    """Whether a table is none of the partitions that PostgreSQL lists beside the table they are of."""
    return re.search(r"_(before|other|from_\d+)$", name) is None


def differences(connection) -> list:
    options = {"compare_type": True, "include_name": lambda name, kind, _: kind != "table" or is_whole(name)}
    return compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata)


async def test_migrations_make_the_schema(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/made/for/it/c.sqlite3")
    await prepare(engine)
    await prepare(engine)  # nothing left to do
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


@pytest.mark.postgres
async def test_migrations_make_the_schema_on_postgresql(postgres_url):
    engine = open_engine(await create_database(postgres_url))
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


def reflect(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name != "alembic_version" and is_whole(name))
    return found


def described(table: Table) -> dict[str, object]:
    """What must stay as it is."""
    uniques = {tuple(index.columns.keys()) for index in table.indexes if index.unique}
    return {
        "columns": {column.name: (str(column.type), column.nullable) for column in table.columns},
        "key": [column.name for column in table.primary_key.columns],
        "unique": uniques,
    }


async def migrate_step_by_step(engine) -> dict[str, MetaData]:
    """To the newest revision; the tables as they were at each."""
    tables: dict[str, MetaData] = {}
    for revision in revisions():
        async with engine.begin() as connection:
            await connection.run_sync(upgrade, revision)
            tables[revision] = await connection.run_sync(reflect)
    return tables


def test_files_are_named_after_their_revisions_in_order():
    """`revisions` reads the names only; Alembic follows what is written in the files."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    newest_first = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert newest_first[::-1] == revisions()


async def test_migrations_only_add(empty_url):
    engine = open_engine(empty_url)
    history = await migrate_step_by_step(engine)
    await engine.dispose()
    assert all(revision <= OLDEST_REVISION for revision in BREAKING)
    for (_, before), (revision, after) in pairwise(history.items()):
        for name, table in before.tables.items() if revision not in BREAKING else ():
            was, now = described(table), described(after.tables[name])
            for added in now["columns"].keys() - was["columns"].keys():
                column = after.tables[name].columns[added]
                assert column.nullable or column.server_default is not None, (revision, column)
                del now["columns"][added]
            assert now == was, (revision, name)


async def test_what_earlier_versions_write_and_read_still_can_be(empty_url):
    """A collector inserts whole rows as its version knows them, merges them by their key, reads, and deletes."""
    engine = open_engine(empty_url)
    history = await migrate_step_by_step(engine)
    async with engine.begin() as connection:
        statements = Statements(connection.dialect)
        for revision, known in history.items():
            for table in known.sorted_tables if revision >= max(BREAKING, default="") else ():
                if table.name in WRITTEN_BY_TRIGGERS:
                    continue
                row = tuple(_VALUES[column.type.python_type] for column in table.columns)
                merge = {column.name: REPLACE for column in table.columns if not column.primary_key}
                for _ in range(2):
                    await execute_rows(connection, statements.upsert(table, merge), [row])
                assert [tuple(found) for found in await connection.execute(select(table))] == [row], (revision, table)
                await connection.execute(table.delete())
    await engine.dispose()


_VALUES = {int: 1_700_000_000, str: "x", bytes: b"x"}


@pytest.mark.parametrize("at_first", [None, "0001"])
async def test_collectors_that_start_at_once_migrate_once(empty_url, at_first):
    engines = [open_engine(empty_url) for _ in range(4)]
    if at_first is not None:
        async with engines[0].begin() as connection:
            await connection.run_sync(upgrade, at_first)
            hotspots = (await connection.run_sync(reflect)).tables["hotspots"]
            row = {column.name: _VALUES[column.type.python_type] for column in hotspots.columns}
            await connection.execute(insert(hotspots).values(row | {"status": "resolved"}))
    await asyncio.gather(*[prepare(engine) for engine in engines])
    async with engines[0].connect() as connection:
        assert await connection.run_sync(differences) == []
        decisions = (await connection.execute(select(schema.decisions.c.hotspot_id))).all()
        assert len(decisions) == (0 if at_first is None else 1)
    for engine in engines:
        await engine.dispose()
