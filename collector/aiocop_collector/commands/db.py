"""`aiocop-collector db …`: look at a collector's database, check it, shrink it, save it and put a copy back."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from aiocop_collector.commands.db_tables import render_inventory
from aiocop_collector.commands.running import configure_logging, run
from aiocop_collector.errors import DatabaseError, SettingsError
from aiocop_collector.settings import Settings, load_settings
from aiocop_collector.store.backup import Progress, Telling, back_up
from aiocop_collector.store.checks import check_store
from aiocop_collector.store.database import check_file, open_engine, reason_of, shown
from aiocop_collector.store.inventory import take_inventory
from aiocop_collector.store.migrations import revisions, usable_revision
from aiocop_collector.store.pruning import Limits, Pruner
from aiocop_collector.store.restoring import restore
from aiocop_collector.store.retention import buckets_before, expired, horizon_s
from aiocop_collector.store.schema import RESOLUTIONS
from aiocop_collector.store.size import measure, rebuild
from aiocop_collector.store.snapshot import snapshot

db: Final = typer.Typer(
    help="Look at the collector's database, check it, shrink it, save it and put a copy back. All but `restore` may "
    "run while a collector does.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="As given to `serve`: `sqlite:///FILE` or `postgresql://…`. Default: the same as there. "
        "[env: AIOCOP_DATABASE]",
    ),
]
_Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The file given to `serve --config`. [env: AIOCOP_CONFIG]")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for scripts.")]


@db.command(name="info")
def _info(database: _Database = None, config: _Config = None, *, as_json: _Json = False) -> None:
    """Show version, size, rows of each table, and from when to when there is what.

    **Example**: `aiocop-collector db info --json`
    """

    async def look(settings: Settings) -> int:
        async with _opened(settings, any_revision=True) as engine, snapshot(engine) as connection:
            inventory = await take_inventory(connection)
            where = shown(engine.url)
        if as_json:
            typer.echo(json.dumps({"database": where} | asdict(inventory), indent=2))
        else:
            render_inventory(where, inventory, settings.max_size, Console())
        return 0

    _finish(look, database=database, config=config)


@db.command(name="check")
def _check(
    database: _Database = None,
    config: _Config = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Do not compare indexes with their tables.")] = False,
    as_json: _Json = False,
) -> None:
    """Check the file, its references, and that minutes add up to hours, hours to days, and buckets to spans.

    Exit codes: 0 all is well, 1 something is wrong (it is named), 2 usage. A store of gigabytes takes minutes.

    **Example**: `aiocop-collector db check || aiocop-collector db restore /backup/collector.sqlite3`
    """

    async def check(settings: Settings) -> int:
        found: dict[str, list[str]] = {}
        async with _opened(settings, any_revision=True) as engine, snapshot(engine) as connection:
            async for one in check_store(connection, int(time.time()), quick=quick):
                found[one.name] = list(one.problems)
                if not as_json:
                    typer.echo(f"{'wrong' if one.problems else 'ok   '}  {one.name}")
                    for problem in one.problems:
                        typer.echo(f"         {problem}")
        wrong = any(found.values())
        if as_json:
            typer.echo(json.dumps({"ok": not wrong, "checks": found}, indent=2))
        return 1 if wrong else 0

    _finish(check, database=database, config=config)


@db.command(name="prune")
def _prune(
    database: _Database = None,
    config: _Config = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Delete what is older, like `7d`. Default: the retention of `serve`."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Then delete the oldest minutes, hours and days until no more is stored, like `2GiB`; `0`: do not. "
            "Default: that of `serve`.",
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing; say what would be.")] = False,
    vacuum: Annotated[
        bool,
        typer.Option(
            "--vacuum",
            help="Then write the SQLite file anew, as small as it can be. Needs room for two copies, and reports wait "
            "meanwhile. Makes of a file of an old version one that shrinks by itself.",
        ),
    ] = False,
) -> None:
    """Delete what is too old or too much, as a collector does by itself each hour and each minute.

    What was decided (status, notes, owners) and when something was first seen is never deleted; nor are the last two
    hours of minutes and the last two days for the sake of size.

    **Examples**

    What would go: `aiocop-collector db prune --older-than 7d --dry-run`

    A smaller file: `aiocop-collector db prune --max-size 2GiB --vacuum`
    """

    async def prune(settings: Settings) -> int:
        limits = Limits(settings.retention, settings.max_size)
        async with _opened(settings) as engine:
            if vacuum and engine.dialect.name != "sqlite":
                raise SettingsError("--vacuum is for SQLite; PostgreSQL reuses the space by itself, or: VACUUM FULL")
            before = await _size_bytes(engine)
            if dry_run:
                rows = await _count_expired(engine, limits.retention)
                typer.echo(f"{rows} rows are older than {limits.retention.total_seconds() / 86_400:g} days")
                too_much = max(0, before - limits.max_bytes) if limits.max_bytes else 0
                typer.echo(f"{_mib(before)} are stored, {_mib(too_much)} too much")
                return 0
            pruner = Pruner(engine, limits)
            rows = 0
            for transactions in (pruner.by_age(), pruner.by_size()):
                async for deleted in transactions:
                    rows += deleted
            if vacuum:
                async with engine.connect() as connection:
                    await rebuild(connection)
            typer.echo(f"{rows} rows deleted; {_mib(await _size_bytes(engine))} are stored, {_mib(before)} were")
        return 0

    _finish(prune, database=database, config=config, retention=older_than, max_size=max_size)


@db.command(name="backup")
def _backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; one that is there is replaced.")],
    database: _Database = None,
    config: _Config = None,
) -> None:
    """Save a SQLite database while the collector runs: a copy of one moment, checked before it gets its name.

    For PostgreSQL use `pg_dump`.

    **Example**: `aiocop-collector db backup /backup/collector.sqlite3`
    """

    async def save(settings: Settings) -> int:
        source = _sqlite_path(settings, "pg_dump --format=custom --file=FILE URL")
        saved_bytes = await asyncio.to_thread(back_up, source, file, Telling(_tell("saving")))
        typer.echo(f"{source} is saved as {file} ({_mib(saved_bytes)})")
        return 0

    _finish(save, database=database, config=config)


@db.command(name="restore")
def _restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `db backup` made.")],
    database: _Database = None,
    config: _Config = None,
) -> None:
    """Put a copy in the place of the database. Refused while a collector runs on it; what was there is kept beside it.

    The copy is checked first: that it is sound, and not of a newer version. Agents that run go on where they are; what
    was counted between the copy and now is only in the file that is kept.

    **Example**: `aiocop-collector db restore /backup/collector.sqlite3`
    """

    async def put_back(settings: Settings) -> int:
        target = _sqlite_path(settings, "pg_restore --clean --dbname=URL FILE")
        kept = await asyncio.to_thread(restore, file, target, Telling(_tell("restoring")))
        typer.echo(f"{target} is {file} now" + (f"; what was there is {kept}" if kept is not None else ""))
        return 0

    _finish(put_back, database=database, config=config)


def _finish(work: Callable[[Settings], Coroutine[Any, Any, int]], **flags: object) -> None:
    """Run a command with its settings, and exit with its code."""
    configure_logging()
    given = {name: value for name, value in flags.items() if value is not None}
    raise typer.Exit(run(lambda: asyncio.run(work(load_settings(given)))))


@asynccontextmanager
async def _opened(settings: Settings, *, any_revision: bool = False) -> AsyncIterator[AsyncEngine]:
    """The database as it is: nothing is made, nothing is upgraded. What it raises becomes a DatabaseError."""
    engine = open_engine(settings.database)
    try:
        check_file(engine.url)
        async with engine.connect() as connection:
            revision = await connection.run_sync(usable_revision)
        if revision is None:
            raise DatabaseError(f"the database {shown(engine.url)} has none of a collector's tables")
        if revision in revisions()[:-1] and not any_revision:
            raise DatabaseError(
                f"the database {shown(engine.url)} is of an earlier version: start 'aiocop-collector serve' on it "
                "once, which upgrades it"
            )
        yield engine
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise DatabaseError(f"the database {shown(engine.url)} cannot be used: {reason_of(error)}") from error
    finally:
        await engine.dispose()


async def _size_bytes(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return (await measure(connection)).used_bytes


async def _count_expired(engine: AsyncEngine, retention: timedelta) -> int:
    now_ms = int(time.time() * 1000)
    old = list(expired(retention, now_ms))
    for resolution in RESOLUTIONS:
        old += buckets_before(resolution, horizon_s(retention, resolution, now_ms))
    async with engine.connect() as connection:
        counts = [
            (await connection.execute(select(func.count()).select_from(one.table).where(*one.conditions))).scalar_one()
            for one in old
        ]
    return sum(counts)


def _sqlite_path(settings: Settings, instead: str) -> Path:
    url = open_engine(settings.database).url
    if url.get_backend_name() != "sqlite":
        raise SettingsError(f"this is for SQLite; for {shown(url)} use PostgreSQL's own: {instead}")
    return Path(url.database or "")


def _tell(what: str) -> Progress:
    return lambda share: typer.echo(f"{what}: {share:.0%}", err=True)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"
