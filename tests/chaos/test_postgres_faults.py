"""Two collectors on a PostgreSQL that dies and comes back: every count of every agent is in it exactly once."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import make_url
from tests.chaos.fleet import expect_every_count_once, run_fleet
from tests.chaos.lossy_proxy import LossyProxy
from tests.support.collector import CollectorProcess, run_collector
from tests.support.postgres_server import PostgresServer, find_binaries, run_server
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.postgres, pytest.mark.timeout(1800)]


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("NOT TESTED: no PostgreSQL server is installed here")
    with run_server(binaries) as server:
        yield server


@pytest.fixture
def folders(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    return folders


def test_killed_and_started_again(server, folders, tmp_path, extent, chance):
    with (
        run_collector(folders[0], "--database", server.url) as first,
        run_collector(folders[1], "--database", server.url) as second,
        run_fleet(tmp_path, f"unix://{first.socket_path}", extent.agents, name="left") as left,
        run_fleet(tmp_path, f"unix://{second.socket_path}", extent.agents, name="right") as right,
    ):
        for death in range(extent.database_deaths):
            commits = [_commits(collector) for collector in (first, second)]
            time.sleep(chance.uniform(0, 1.5))
            (server.kill if death % 2 == 0 else server.stop_at_once)()
            for collector in (first, second):
                _expect_a_reason(collector)
            time.sleep(chance.uniform(0, 1))
            server.start()
            for collector, before in zip((first, second), commits, strict=True):
                wait_until(lambda c=collector, n=before: _is_ready(c) and _commits(c) > n, "it to commit again")
        expect_every_count_once(first, left)
        expect_every_count_once(second, right)
        for collector in (first, second):
            assert collector.stop() == 0
            log = collector.log.read_text()
            assert "Traceback" not in log, log
            assert "reports rejected" not in log, log


def test_a_commit_whose_answer_is_lost_is_not_applied_twice(server, tmp_path, extent):
    with LossyProxy(server.port, lose_each=5) as proxy:
        url = make_url(server.url).set(port=proxy.port).render_as_string(hide_password=False)
        with (
            run_collector(tmp_path, "--database", url) as collector,
            run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents,
        ):
            wait_until(lambda: proxy.lost >= extent.database_deaths, "answers to be lost", deadline_s=600)
            expect_every_count_once(collector, agents)
            shown = collector.get("/agents", since="3h")["agents"]
            assert any(agent["reports_duplicated"] for agent in shown), shown


def _expect_a_reason(collector: CollectorProcess) -> None:
    """While there is no server."""
    answer = collector.http.get("/readyz")
    assert answer.status_code == 503, answer.text
    assert answer.json()["database"]["error"], answer.text
    assert collector.http.get("/healthz").status_code == 200
    asked = collector.http.get("/hotspots")
    assert (asked.status_code, asked.json()["title"]) == (503, "Service Unavailable"), asked.text
    assert "aiocop_collector_database_up 0.0" in collector.http.get("/metrics").text
    wait_until(lambda: not any(collector.http.get("/readyz").json()["duties"].values()), "nobody to have a duty")


def _is_ready(collector: CollectorProcess) -> bool:
    return collector.http.get("/readyz").status_code == 200


def _commits(collector: CollectorProcess) -> int:
    return collector.counters().get("commits", 0)
