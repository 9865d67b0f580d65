"""From datagrams to rows, through a real collector process: what came, what came twice, what never came."""

import random
import signal

import pytest
from tests.support.collector import DatagramPeer, make_identity, make_report, make_site, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import SiteDelta, encode


@pytest.fixture
def collector(tmp_path):
    with run_collector(tmp_path, udp=True) as running:
        yield running


def delivery(collector, identity) -> tuple[int, int, int] | None:
    """Received, lost, duplicated."""
    for row in collector.get("/agents")["agents"]:
        if row["id"] == identity.instance.hex():
            return row["reports_received"], row["reports_lost"], row["reports_duplicated"]
    return None


def total(collector) -> int:
    return sum(row["count"] for row in collector.get("/hotspots", since="1h")["hotspots"])


def test_reordering_and_duplicates_are_told_from_loss(collector):
    identity, site = make_identity(), make_site(1)
    sequences = list(range(1, 101))
    missing = {7, 8, 50, 99}
    sent = [sequence for sequence in sequences if sequence not in missing]
    twice = sent[::10]
    order = sent + twice
    random.Random(5).shuffle(order)
    with DatagramPeer(collector.udp) as peer:
        for sequence in order:
            peer.send(identity, make_report(sequence, SiteDelta(1, 1, 0, 10, 10)), site)
        wait_until(lambda: delivery(collector, identity) == (96, 4, len(twice)), "the accounting")
        assert total(collector) == 96
        # Late, not lost.
        peer.send(identity, make_report(50, SiteDelta(1, 1, 0, 10, 10)), site)
        wait_until(lambda: delivery(collector, identity) == (97, 3, len(twice)), "the accounting")
    assert total(collector) == 97


def test_a_farewell_tells_what_was_lost_at_the_end(collector):
    identity = make_identity()
    with DatagramPeer(collector.udp) as peer:
        peer.send(identity, make_report(1, SiteDelta(1, 1, 0, 10, 10)), make_site(1))
        for _ in range(3):
            peer.send(identity, farewell=5)
        wait_until(lambda: delivery(collector, identity) == (1, 4, 0), "the accounting")


def test_the_accounting_survives_a_kill(tmp_path):
    identity, site = make_identity(), make_site(1)
    with run_collector(tmp_path, udp=True) as collector:
        with DatagramPeer(collector.udp) as peer:
            for sequence in (1, 2, 4):
                peer.send(identity, make_report(sequence, SiteDelta(1, 1, 0, 10, 10)), site)
            wait_until(lambda: delivery(collector, identity) == (3, 1, 0), "the accounting")
        collector.signal(signal.SIGKILL)
        collector.wait()
        collector.start()
        with DatagramPeer(collector.udp) as peer:
            for sequence in (2, 3, 6):
                peer.send(identity, make_report(sequence, SiteDelta(1, 1, 0, 10, 10)), site)
            wait_until(lambda: delivery(collector, identity) == (5, 1, 1), "the accounting")
        assert total(collector) == 5


def test_a_lost_definition_heals(collector):
    identity = make_identity()
    with DatagramPeer(collector.udp) as peer:
        peer.send(identity, make_report(1, SiteDelta(3, 2, 0, 10, 10)))
        wait_until(lambda: total(collector) == 2, "the counts")
        peer.send(identity, make_report(2, SiteDelta(3, 2, 0, 10, 10)), make_site(3, "late"))
        wait_until(lambda: total(collector) == 4, "the counts")
    (row,) = collector.get("/hotspots", since="1h")["hotspots"]
    assert (row["call_site"], row["count"]) == ("shop/orders.py:3:late", 4)


def test_bad_datagrams_are_counted_and_harm_nobody(collector):
    identity = make_identity()
    with DatagramPeer(collector.udp) as peer:
        peer.send_bytes(b"\x92")
        peer.send_bytes(b"")
        peer.send_bytes(encode(make_report(1)))
        peer.send(identity, make_report(1, SiteDelta(1, 1, 0, 10, 10)), make_site(1))
        wait_until(lambda: delivery(collector, identity) == (1, 0, 0), "the accounting")
    counters = collector.counters()
    assert (counters["refused_malformed"], counters["refused_unexpected"]) == (2, 1)


def test_what_the_kernel_holds_at_sigterm_is_committed(tmp_path):
    identity, site = make_identity(), make_site(1)
    with run_collector(tmp_path, udp=True) as collector:
        collector.signal(signal.SIGSTOP)
        with DatagramPeer(collector.udp) as peer:
            for sequence in range(1, 401):
                peer.send(identity, make_report(sequence, SiteDelta(1, 1, 0, 10, 10)), site)
        collector.signal(signal.SIGTERM)
        collector.signal(signal.SIGCONT)
        assert collector.wait() == 0
        collector.start()
        assert delivery(collector, identity) == (400, 0, 0)
        assert total(collector) == 400
