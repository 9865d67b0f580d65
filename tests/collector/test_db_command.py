"""`aiocop-collector db …` as people run it, on real databases, with and without a collector on them."""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from tests.chaos.test_full_disk import small_disk
from tests.support.collector import StreamPeer, make_identity, make_report, make_site, now_ms, run_collector
from tests.support.sql import make_database, run_sql
from tests.support.waiting import wait_until
from typer.testing import CliRunner

from aiocop_collector.commands.cli import app
from aiocop_collector.store.migrations import revisions, upgrade
from aiocop_wire import Define, SiteDelta

__all__ = ["small_disk"]

DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Commands send the log to the standard error of the time; here that is a test's."""
    logger = logging.getLogger("aiocop_collector")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = before


def db(*arguments: str | Path, code: int = 0) -> str:
    """What it says on stdout, or on stderr when it fails. In this process: a new one takes a second to start."""
    environment = {name: None for name in os.environ if name.startswith("AIOCOP_")}
    done = CliRunner().invoke(app, ["db", *map(str, arguments)], env=environment)
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stderr if code and not done.stdout else done.stdout


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request, tmp_path) -> str:
    if request.param == "postgres":
        return make_database(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/collector.sqlite3"


def report_days(collector, ages_days=(0, 2, 5, 20)) -> None:
    """Seven calls at one line on each of these days."""
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(make_identity())
        agent.send(Define((make_site(1),)))
        for sequence, age in enumerate(ages_days, start=1):
            agent.send(make_report(sequence, SiteDelta(1, 7, 0, 9, 9, (0, 7)), started_at_ms=now_ms() - age * DAY_MS))
        agent.wait_for_ack(len(ages_days))


def test_info_check_and_prune_while_a_collector_runs(url, tmp_path):
    with run_collector(tmp_path, "--database", url) as collector:
        wait_until(lambda: run_sql(url, "SELECT count(*) FROM horizons") == [(3,)], "the first pruning")
        report_days(collector)
        info = json.loads(db("info", "--database", url, "--json"))
        assert info["revision"] == info["newest_revision"] == revisions()[-1]
        assert info["collector_version"] == "0.1.0"
        assert info["rows"]["hotspots"] == info["rows"]["agents"] == 1
        assert info["rows"]["rollups_day"] == 4
        assert 0 < info["size"]["used_bytes"] <= info["size"]["files_bytes"]
        day = next(kept for kept in info["kept"] if kept["resolution"] == "day")
        assert day["newest_s"] - day["oldest_s"] == 20 * 86_400
        assert "rollups_day" in db("info", "--database", url)
        assert json.loads(db("check", "--database", url, "--json"))["ok"]

        # Of the 20th day all of 7 tables, of the 5th minutes; and what the collector has summed by then.
        prune = ("prune", "--database", url, "--older-than", "10d")
        assert int(db(*prune, "--dry-run").partition(" rows are older than 10 days")[0]) >= 9
        assert json.loads(db("info", "--database", url, "--json"))["rows"]["rollups_day"] == 4
        assert int(db(*prune).partition(" rows deleted")[0]) >= 9
        assert json.loads(db("info", "--database", url, "--json"))["rows"]["rollups_day"] == 3
        assert json.loads(db("check", "--database", url, "--json"))["ok"]
        assert collector.get("/hotspots", since="30d")["hotspots"][0]["count"] == 21

        run_sql(url, "UPDATE rollups_hour SET count = count + 2 WHERE bucket_s > :s", s=now_ms() // 1000 - 10_000)
        said = db("check", "--database", url, code=1)
        assert "wrong  minutes add up to hours" in said
        assert "2 calls too many" in said
        assert "wrong  hours add up to days" in said
        run_sql(url, "DELETE FROM hotspots")
        assert "wrong  sites.hotspot_id names a row of hotspots" in db("check", "--database", url, code=1)


@contextmanager
def reporting(collector, identity) -> Iterator[None]:
    """Reports without a pause, while the block lasts."""
    stop = threading.Event()

    def work() -> None:
        with StreamPeer(collector.socket_path) as agent:
            sequence = agent.greet(identity)
            agent.send(Define((make_site(1),)))
            while not stop.is_set():
                sequence += 1
                agent.send(make_report(sequence, SiteDelta(1, 1, 0, 9, 9)))
                agent.wait_for_ack(sequence)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


def test_a_backup_of_a_running_collector_is_of_one_moment_and_can_be_restored(tmp_path):
    backup = tmp_path / "saved.sqlite3"
    with run_collector(tmp_path) as collector:
        url = f"sqlite:///{collector.database}"
        report_days(collector, (0,))
        with reporting(collector, make_identity()):
            assert "is saved as" in db("backup", backup, "--database", url)
            db("backup", backup, "--database", url)  # one that is there is replaced
        said = db("restore", backup, "--database", url, code=1)
        assert "a collector uses it: stop that one first" in said
        later = collector.get("/hotspots", since="1h")["hotspots"][0]["count"]
        assert collector.stop() == 0
        assert json.loads(db("check", "--database", f"sqlite:///{backup}", "--json"))["ok"]
        with closing(sqlite3.connect(backup)) as copy:
            (saved,) = copy.execute("SELECT sum(count) FROM rollups_minute").fetchone()
        assert 7 <= saved <= later
        assert "what was there is" in db("restore", backup, "--database", url)
        (kept,) = tmp_path.glob("collector.sqlite3.before-restore-*")
        with closing(sqlite3.connect(kept)) as old:
            assert old.execute("SELECT sum(count) FROM rollups_minute").fetchone() == (later,)
        collector.start()
        assert collector.get("/hotspots", since="1h")["hotspots"][0]["count"] == saved
        assert list(tmp_path.glob("*unfinished*")) == []


def test_what_is_no_sound_backup_of_this_version_is_refused_and_nothing_changes(tmp_path):
    with run_collector(tmp_path) as collector:
        report_days(collector, (0,))
        assert collector.stop() == 0
    url = f"sqlite:///{collector.database}"
    before = collector.database.read_bytes()
    backup = tmp_path / "saved.sqlite3"
    db("backup", backup, "--database", url)

    newer = tmp_path / "newer.sqlite3"
    newer.write_bytes(backup.read_bytes())
    with closing(sqlite3.connect(newer, isolation_level=None)) as copy:
        copy.execute("UPDATE alembic_version SET version_num = '9999'")
        copy.execute("UPDATE about SET value = '7.8.9' WHERE name = 'collector_version'")
        copy.execute("UPDATE about SET value = '9998' WHERE name = 'oldest_revision'")
    assert "'aiocop-telemetry[collector]>=7.8.9'" in db("restore", newer, "--database", url, code=1)

    damaged = tmp_path / "damaged.sqlite3"
    pages = bytearray(backup.read_bytes())
    pages[-20 * 4096 :] = b"\xa5" * (20 * 4096)
    damaged.write_bytes(pages)
    assert "the file is damaged" in db("restore", damaged, "--database", url, code=1)
    assert db("check", "--database", f"sqlite:///{damaged}", code=1)
    text = tmp_path / "letter.txt"
    text.write_text("Dear database, " * 100)
    assert "not a database" in db("restore", text, "--database", url, code=1)
    assert "there is no backup" in db("restore", tmp_path / "nowhere", "--database", url, code=1)
    assert "the database itself" in db("restore", collector.database, "--database", url, code=1)
    assert collector.database.read_bytes() == before
    assert list(tmp_path.glob("*before-restore*")) == []


def test_a_copy_that_does_not_fit_is_not_begun(tmp_path, small_disk):
    with run_collector(tmp_path) as collector:
        said = db("backup", small_disk / "saved", "--database", f"sqlite:///{collector.database}", code=1)
    assert "MiB left" in said
    assert list(small_disk.iterdir()) == []


def _migrate_to(database: Path, revision: str) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with engine.begin() as connection:
        upgrade(connection, revision)
    engine.dispose()


def test_an_upgrade_saves_the_database_first(tmp_path):
    database = tmp_path / "collector.sqlite3"
    _migrate_to(database, "0007")
    (tmp_path / "collector.sqlite3.before-0007").touch()  # of the upgrade before
    assert "once, which upgrades it" in db("prune", "--database", f"sqlite:///{database}", code=1)
    assert json.loads(db("info", "--database", f"sqlite:///{database}", "--json"))["revision"] == "0007"
    with run_collector(tmp_path) as collector:
        assert "saving it first" in collector.log.read_text()
        assert collector.stop() == 0
        collector.start()
        assert collector.log.read_text().count("saving it first") == 1
    (saved,) = tmp_path.glob("collector.sqlite3.before-*")
    assert saved.name == f"collector.sqlite3.before-{revisions()[-1]}"
    with closing(sqlite3.connect(saved)) as copy:
        assert copy.execute("SELECT version_num FROM alembic_version").fetchone() == ("0007",)
    with closing(sqlite3.connect(database)) as upgraded:
        assert upgraded.execute("SELECT version_num FROM alembic_version").fetchone() == (revisions()[-1],)


def test_vacuum_makes_an_old_file_one_that_shrinks(tmp_path):
    database = tmp_path / "collector.sqlite3"
    _migrate_to(database, "head")
    with closing(sqlite3.connect(database)) as old:
        assert old.execute("PRAGMA auto_vacuum").fetchone() == (0,)
        rows = [(number, 1, "x" * 1000, 5) for number in range(5_000)]
        old.executemany("INSERT INTO traces (id, site_id, frames, last_seen_ms) VALUES (?, ?, ?, ?)", rows)
        old.commit()
    full_bytes = database.stat().st_size
    url = f"sqlite:///{database}"
    assert not json.loads(db("info", "--database", url, "--json"))["shrinks"]
    assert db("prune", "--database", url, "--vacuum").startswith("5000 rows deleted")
    assert database.stat().st_size < full_bytes / 4
    assert json.loads(db("info", "--database", url, "--json"))["shrinks"]


@pytest.mark.postgres
def test_postgresql_has_its_own_tools_for_copies(postgres_url, tmp_path):
    assert "pg_dump" in db("backup", tmp_path / "x", "--database", postgres_url, code=2)
    assert "pg_restore" in db("restore", tmp_path / "x", "--database", postgres_url, code=2)


def test_what_is_no_database_or_no_value_is_one_sentence(tmp_path):
    assert "unable to open" in db("info", "--database", f"sqlite:///{tmp_path}/nowhere", code=1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").touch()
    assert "none of a collector's tables" in db("check", "--database", f"sqlite:///{tmp_path}/empty", code=1)
    assert "--max-size" in db("prune", "--max-size", "much", code=2)
    assert "16MiB at least" in db("prune", "--max-size", "1MiB", code=2)
