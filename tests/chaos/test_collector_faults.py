"""Whatever happens to the collector, every count of every living agent is in the store exactly once."""

import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.chaos.fleet import expect_every_count_once, run_fleet
from tests.chaos.shared_store import PostgresStore, SqliteStore
from tests.chaos.switch import Switch
from tests.support.collector import CollectorProcess, run_collector
from tests.support.postgres_server import find_binaries, run_postgres
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_killed_at_random_moments(collector, tmp_path, extent, chance):
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents:
        for _ in range(extent.kills):
            time.sleep(chance.uniform(0, 1.5))
            collector.kill()
            collector.start()
        expect_every_count_once(collector, agents)


def test_the_link_is_cut_in_the_middle_of_a_message(collector, tmp_path, extent, chance):
    """Half a report, or half an acknowledgement, has arrived."""
    with (
        Switch(tmp_path / "switch.sock", collector.socket_path) as switch,
        run_fleet(tmp_path, f"unix://{tmp_path}/switch.sock", extent.agents) as agents,
    ):
        for _ in range(extent.kills):
            before = collector.counters().get("connections", 0)
            time.sleep(chance.uniform(0, 1))
            switch.cut()
            wait_until(
                lambda before=before: collector.counters().get("connections", 0) >= before + extent.agents,
                "all agents have come back",
            )
        expect_every_count_once(collector, agents)


def test_stopped_and_going_on(collector, tmp_path, extent, chance):
    """As on a link that goes quiet without a word, and comes back."""
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents:
        for _ in range(3):
            time.sleep(chance.uniform(0, 1))
            collector.signal(signal.SIGSTOP)
            time.sleep(chance.uniform(0.5, 2))
            collector.signal(signal.SIGCONT)
        expect_every_count_once(collector, agents)


def test_its_socket_file_is_deleted(collector, tmp_path, extent):
    """The collector of the deleted file lives on, and agents come to the one that takes its place."""
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents:
        reports_before = collector.counters()["reports_unix"]
        Path(collector.socket_path).unlink()
        wait_until(lambda: collector.counters()["reports_unix"] > reports_before + extent.agents, "reports go on")
        assert collector.stop() == 0
        collector.start()
        expect_every_count_once(collector, agents)


def test_the_database_is_locked(collector, tmp_path, extent):
    with run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents:
        wait_until(lambda: collector.counters().get("commits", 0) > 2, "a first commit")
        with closing(sqlite3.connect(collector.database, isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(extent.lock_s)  # the length of the lock is what is tested
            wait_until(lambda: collector.http.get("/readyz").status_code == 503, "not ready")
            error = wait_until(lambda: collector.http.get("/readyz").json()["writer"]["error"], "a reason")
            assert "another process keeps it locked" in error
            other.execute("ROLLBACK")
        expect_every_count_once(collector, agents)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def shared_store(request, tmp_path) -> Iterator[SqliteStore | PostgresStore]:
    if request.param == "sqlite":
        yield SqliteStore(tmp_path / "shared.sqlite3")
        return
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("NOT TESTED: no PostgreSQL server is installed here")
    with run_postgres(binaries) as url:
        yield PostgresStore(url, binaries / "psql")


def test_agents_move_between_two_collectors_of_one_store(shared_store, tmp_path, extent, chance):
    """Each move happens while the collector that is left holds reports it could not commit yet."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with (
        run_collector(folders[0], "--database", shared_store.url) as first,
        run_collector(folders[1], "--database", shared_store.url) as second,
        Switch(tmp_path / "switch.sock", first.socket_path) as switch,
        run_fleet(tmp_path, f"unix://{tmp_path}/switch.sock", extent.agents) as agents,
    ):
        for move in range(extent.kills):
            left, taken = (first, second) if move % 2 == 0 else (second, first)
            before = taken.counters().get("connections", 0)
            with shared_store.held():
                wait_until(lambda left=left: _pending(left) > 0, "one is held")
                switch.move(taken.socket_path)
                time.sleep(chance.uniform(0, 0.5))
            everybody = before + extent.agents
            wait_until(
                lambda taken=taken, everybody=everybody: taken.counters().get("connections", 0) >= everybody,
                "all agents have come over",
            )
        expect_every_count_once(chance.choice([first, second]), agents)


def _pending(collector: CollectorProcess) -> int:
    return collector.http.get("/readyz").json()["writer"]["pending_reports"]
