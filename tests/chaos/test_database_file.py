"""A SQLite file that is deleted, damaged or exchanged while the collector runs: it says so, and loses nothing."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.chaos.fleet import expect_every_count_once, run_fleet
from tests.support.collector import CollectorProcess, StreamPeer, make_identity, make_report, make_site, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import Define, SiteDelta

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


def _commits(collector: CollectorProcess) -> int:
    return collector.counters().get("commits", 0)


def _wait_for_commits(collector: CollectorProcess, more: int = 3) -> None:
    enough = _commits(collector) + more
    wait_until(lambda: _commits(collector) >= enough, "commits")


@pytest.mark.parametrize("endings", [("",), ("", "-wal", "-shm")], ids=["file", "file-and-log"])
def test_deleted(collector, tmp_path, extent, endings):
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents:
        _wait_for_commits(collector)
        for ending in endings:
            Path(f"{collector.database}{ending}").unlink()
        wait_until(collector.database.exists, "the file to be put back")
        _wait_for_commits(collector)
        assert collector.http.get("/readyz").status_code == 200
        assert "it is there again" in collector.log.read_text()
        expect_every_count_once(collector, agents)
        # It is all in the file that is there, not in one that nobody can open any more.
        collector.kill()
        collector.start()
        assert collector.get("/hotspots", since="3h")["total"] > 0
        assert list(tmp_path.glob("*.saved*")) == []


def test_deleted_with_its_folder(tmp_path, extent):
    """Nothing can be put back until there is a place for it again."""
    folder = tmp_path / "data"
    folder.mkdir()
    database = folder / "c.sqlite3"
    with (
        run_collector(tmp_path, "--database", f"sqlite:///{database}") as collector,
        run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents,
    ):
        _wait_for_commits(collector)
        shutil.rmtree(folder)
        folder.write_text("in the way")
        wait_until(lambda: collector.http.get("/readyz").status_code == 503, "not ready")
        error = wait_until(lambda: collector.http.get("/readyz").json()["writer"]["error"], "a reason")
        assert f"{database} is gone" in error
        folder.unlink()
        folder.mkdir()
        wait_until(lambda: collector.http.get("/readyz").status_code == 200, "ready again")
        expect_every_count_once(collector, agents)


def test_damaged_and_healed(collector, tmp_path, extent):
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents:
        _wait_for_commits(collector)
        healthy = _damage(collector.database)
        wait_until(lambda: collector.http.get("/readyz").status_code == 503, "not ready")
        error = wait_until(lambda: collector.http.get("/readyz").json()["writer"]["error"], "a reason")
        assert "the file is damaged" in error
        assert "aiocop-collector db restore" in error
        with open(collector.database, "r+b") as file:
            for offset, data in healthy.items():
                file.seek(offset)
                file.write(data)
        wait_until(lambda: collector.http.get("/readyz").status_code == 200, "ready again")
        expect_every_count_once(collector, agents)
    with closing(sqlite3.connect(collector.database)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_exchanged(collector):
    """Another store, to which agents tell again what their sites are."""
    identity, site = make_identity(), make_site(1)
    with closing(sqlite3.connect(collector.database)) as database:
        other = collector.database.with_name("other.sqlite3")
        with closing(sqlite3.connect(other)) as target:
            database.backup(target)
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(identity)
        agent.send(Define((site,)), make_report(1, SiteDelta(1, 5, 0, 9, 9)))
        agent.wait_for_ack(1)
        other.replace(collector.database)
        agent.send(make_report(2, SiteDelta(1, 7, 0, 9, 9)))
        while agent.receive() is not None:
            pass
    with StreamPeer(collector.socket_path) as agent:
        assert agent.greet(identity) in (0, 2)  # what is in the other store
        agent.send(Define((site,)), make_report(2, SiteDelta(1, 7, 0, 9, 9)), make_report(3, SiteDelta(1, 9, 0, 9, 9)))
        agent.wait_for_ack(3)
    (row,) = collector.get("/hotspots", since="1h")["hotspots"]
    assert row["count"] == 16
    assert row["call_site"] == "shop/orders.py:1:function_1"
    assert collector.http.get("/readyz").status_code == 200


def _damage(database: Path) -> dict[int, bytes]:
    """Overwrite every page but the first while nobody can write, and have others notice. What was there."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as holder:
        while holder.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            pass
        # Under the write lock nothing comes between: the file is all there is.
        holder.execute("BEGIN IMMEDIATE")
        (page_bytes,) = holder.execute("PRAGMA page_size").fetchone()
        (version,) = holder.execute("PRAGMA user_version").fetchone()
        healthy = _overwrite(database, page_bytes)
        holder.execute(f"PRAGMA user_version = {version + 1}")
        holder.execute("COMMIT")
    return healthy


def _overwrite(database: Path, page_bytes: int) -> dict[int, bytes]:
    """In a process of its own: closing a descriptor of the file here would release the locks that SQLite holds here."""
    saved = database.with_suffix(".saved-pages")
    program = (
        "import sys; from pathlib import Path; database, saved, first = sys.argv[1:]; first = int(first); "
        "data = Path(database).read_bytes(); Path(saved).write_bytes(data[first:]); file = open(database, 'r+b'); "
        "file.seek(first); file.write(b'\\xa5' * (len(data) - first)); file.close()"
    )
    subprocess.run([sys.executable, "-c", program, database, saved, str(page_bytes)], check=True, timeout=60)
    return {page_bytes: saved.read_bytes()}
