"""The shipper over UDP: self-contained datagrams, what counts as sent, and a collector that is not there."""

import logging
import socket

import pytest
from tests.support.counting_source import CountingSource
from tests.support.shipping import assert_balanced, make_shipper, open_descriptors, running_shipper, shipper_threads
from tests.support.waiting import wait_until
from tests.support.wire_peer import UdpPeer

from aiocop_wire import UdpAddress
from aiocop_wire.limits import LOOPBACK_DATAGRAM_BYTES


@pytest.fixture
def source():
    return CountingSource()


@pytest.fixture
def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_flush_says_true_once_everything_is_sent(source):
    with UdpPeer() as peer, running_shipper(source, UdpAddress("127.0.0.1", peer.port)) as shipper:
        source.count(1, times=5)
        source.slow_event(1)
        assert shipper.flush(30)
        statistics = shipper.statistics()
        assert (statistics.recorded, statistics.acknowledged, statistics.pending) == (5, 5, 0)
        assert_balanced(statistics)
        wait_until(lambda: peer.store.total == 5, "the datagram")
        assert peer.store.counts == source.totals
        assert len(peer.store.slow_events) == 1


def test_a_name_is_looked_up(source):
    with UdpPeer() as peer, running_shipper(source, UdpAddress("localhost", peer.port)) as shipper:
        source.count(1, times=5)
        # localhost may be ::1 first, where nobody listens: then it is not sent, and not counted as sent either.
        shipper.flush(2)
        assert_balanced(shipper.statistics())


def test_every_datagram_fits_and_has_the_next_sequence(source):
    with UdpPeer() as peer, running_shipper(source, UdpAddress("127.0.0.1", peer.port), interval_s=60) as shipper:
        for site in range(3000):
            source.count(site, times=2)
        for site in range(100):
            source.slow_event(site, context={"route": "/orders" * 50})
        assert shipper.flush(60)
        wait_until(lambda: peer.store.total == 6000, "all datagrams")
        assert peer.store.counts == source.totals
        wait_until(lambda: len(peer.store.slow_events) == 100, "all events")
        assert max(peer.sizes) <= LOOPBACK_DATAGRAM_BYTES
        assert peer.sequences == list(range(1, shipper.statistics().reports_sent + 1))
        assert len(peer.sequences) > 10


def test_a_definition_goes_along_with_the_first_three_uses(source):
    with UdpPeer() as peer, running_shipper(source, UdpAddress("127.0.0.1", peer.port)) as shipper:
        for _ in range(6):
            source.count(1)
            assert shipper.flush(30)
        wait_until(lambda: peer.store.total == 6, "all datagrams")
        assert len(peer.defined) == 3


def test_stop_says_farewell_three_times_and_leaves_nothing(source):
    before = open_descriptors()
    with UdpPeer() as peer:
        shipper = make_shipper(source, UdpAddress("127.0.0.1", peer.port))
        shipper.start()
        source.count(1, times=5)
        assert shipper.stop(30)
        wait_until(lambda: len(peer.farewells) == 3, "the farewells")
        assert {farewell.last_sequence for farewell in peer.farewells} == {peer.sequences[-1]}
        assert peer.store.total == 5
    assert shipper_threads() == []
    assert open_descriptors() == before


def test_where_nobody_listens_nothing_counts_as_sent_and_it_is_one_warning(source, free_port, caplog):
    with running_shipper(source, UdpAddress("127.0.0.1", free_port)) as shipper:
        source.count(1, times=5)
        assert shipper.flush(1) is False
        statistics = shipper.statistics()
        assert (statistics.acknowledged, statistics.pending) == (0, 5)
        assert_balanced(statistics)
        with UdpPeer(free_port) as peer:
            assert shipper.flush(30)
            wait_until(lambda: peer.store.total == 5, "the counts of the time before")
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_collector_that_restarts_is_found_again_and_what_is_lost_can_be_told(source, free_port):
    received = []
    with running_shipper(source, UdpAddress("127.0.0.1", free_port)) as shipper:
        for _ in range(3):
            with UdpPeer(free_port) as peer:
                for _ in range(5):
                    source.count(1)
                    assert shipper.flush(30)
                sent = shipper.statistics().reports_sent
                wait_until(lambda peer=peer, sent=sent: peer.sequences and max(peer.sequences) >= sent, "the last one")
            received += peer.sequences
            assert_balanced(shipper.statistics())
        assert sorted(set(received)) == sorted(received)
        lost = max(received) - len(received)
        assert 0 <= lost <= shipper.statistics().connection_failures


def test_a_name_nobody_knows_is_a_failure_that_is_counted(source, caplog):
    with running_shipper(source, UdpAddress("collector.invalid", 8718)) as shipper:
        source.count(1)
        wait_until(lambda: shipper.statistics().connection_failures, "the failure")
        assert "collector.invalid" in shipper.statistics().last_error
        assert_balanced(shipper.statistics())
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
