"""Who reads the store sees every datagram the collector had received by then, and what it acknowledged on streams."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
from tests.support.collector import DatagramPeer, make_identity, make_report, make_site, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import SiteDelta


@pytest.fixture
def collector(tmp_path):
    with run_collector(tmp_path, udp=True) as running:
        yield running


def count_of(collector) -> int:
    return sum(row["count"] for row in collector.get("/hotspots", since="1h")["hotspots"])


def test_an_answer_holds_what_was_sent_just_before(collector):
    identity, site = make_identity(), make_site(1)
    with DatagramPeer(collector.udp) as peer:
        sequence = 0
        for _ in range(10):
            for _ in range(100):
                sequence += 1
                peer.send(identity, make_report(sequence, SiteDelta(1, 3, 0, 10, 5)), site)
            assert count_of(collector) == 3 * sequence
            (agent,) = collector.get("/agents")["agents"]
            assert (agent["reports_received"], agent["reports_lost"]) == (sequence, 0)


def test_many_questions_share_a_commit_and_idle_ones_cause_none(collector):
    identity, site = make_identity(), make_site(1)
    with DatagramPeer(collector.udp) as peer, ThreadPoolExecutor(20) as pool:
        peer.send(identity, make_report(1, SiteDelta(1, 1, 0, 10, 5)), site)
        assert count_of(collector) == 1
        before = collector.counters()["commits"]
        peer.send(identity, make_report(2, SiteDelta(1, 1, 0, 10, 5)), site)
        assert list(pool.map(lambda _: count_of(collector), range(20))) == [2] * 20
        assert collector.counters()["commits"] == before + 1
        assert count_of(collector) == 2
        assert collector.counters()["commits"] == before + 1


def test_an_answer_waits_for_a_slow_commit(collector):
    identity, site = make_identity(), make_site(1)
    with DatagramPeer(collector.udp) as peer, ThreadPoolExecutor(1) as pool:
        peer.send(identity, make_report(1, SiteDelta(1, 1, 0, 10, 5)), site)
        assert count_of(collector) == 1
        with closing(sqlite3.connect(collector.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            peer.send(identity, make_report(2, SiteDelta(1, 1, 0, 10, 5)), site)
            answer = pool.submit(count_of, collector)
            done, _ = wait([answer], timeout=2.0)  # longer than a commit takes on a busy disk
            assert not done
            other.execute("ROLLBACK")
        assert answer.result() == 2


def test_a_database_that_cannot_commit_does_not_hold_answers_up(collector):
    identity, site = make_identity(), make_site(1)
    with DatagramPeer(collector.udp) as peer:
        peer.send(identity, make_report(1, SiteDelta(1, 1, 0, 10, 5)), site)
        assert count_of(collector) == 1
        with closing(sqlite3.connect(collector.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            peer.send(identity, make_report(2, SiteDelta(1, 1, 0, 10, 5)), site)
            assert [count_of(collector) for _ in range(3)] == [1, 1, 1]
            other.execute("ROLLBACK")
        wait_until(lambda: count_of(collector) == 2, "the commit after the lock")
