"""What the shipper makes of freezes: told while they go on, to those who understand; ends are delivered like counts."""

from collections import deque

import pytest
from tests.support.counting_source import CountingSource
from tests.support.shipping import running_shipper
from tests.support.waiting import wait_until
from tests.support.wire_peer import Manner, UdpPeer, UnixPeer

from aiocop_wire import FEATURE_STALLS, Frame, Stall, UdpAddress

TAKES_STALLS = Manner(features=(FEATURE_STALLS, "something newer"))


class Stalls:
    """Freezes as the watchdog would tell them."""

    def __init__(self) -> None:
        self.ended: deque[Stall] = deque()
        self.now: list[Stall] = []

    def going_on(self) -> list[Stall]:
        return list(self.now)


@pytest.fixture
def source():
    counting = CountingSource()
    counting.count()
    return counting


@pytest.fixture
def stall(source):
    frames = tuple(Frame("p" * 5000, number, "f" * 5000) for number in range(200))  # far past every limit
    return Stall(77, 1_700_000_000_000, 1_500_000, site_id=source.definition(0).site_id, frames=frames)


def test_what_is_frozen_is_told_once_per_look_and_again_after_a_reconnect(tmp_path, source, stall):
    stalls = Stalls()
    with (
        UnixPeer(tmp_path / "c.sock", manner=TAKES_STALLS) as peer,
        running_shipper(source, peer.path, stalls=stalls) as shipper,
    ):
        wait_until(lambda: peer.connections, "the hello")
        stalls.now = [stall]
        shipper.wake()
        wait_until(lambda: peer.stalls, "the stall")
        assert shipper.flush(30)
        source.count()
        assert shipper.flush(30)
        assert [told.blocked_us for told in peer.stalls] == [1_500_000]
        stalls.now = [stall._replace(blocked_us=2_500_000)]
        shipper.wake()
        wait_until(lambda: len(peer.stalls) == 2, "its age grows")
        peer.drop_connections()
        wait_until(lambda: len(peer.stalls) == 3, "the next connection is told too")
        assert {told.slice_ns for told in peer.stalls} == {77}
        assert len(peer.stalls[0].frames) == 64
        assert not peer.store.undefined


def test_an_older_collector_is_told_only_of_the_end_which_it_ignores(tmp_path, source, stall):
    stalls = Stalls()
    with UnixPeer(tmp_path / "c.sock") as peer, running_shipper(source, peer.path, stalls=stalls) as shipper:
        stalls.now = [stall]
        shipper.wake()
        assert shipper.flush(30)
        stalls.now = []
        stalls.ended.append(stall._replace(state="ended"))
        shipper.wake()
        wait_until(lambda: any(report.stalls for report in peer.store.reports), "the end")
        assert peer.stalls == []


def test_ends_are_delivered_although_the_collector_is_away_and_then_drops_the_connection(tmp_path, source, stall):
    stalls = Stalls()
    stalls.ended.extend(stall._replace(slice_ns=number, state="ended") for number in range(1, 21))
    path = tmp_path / "c.sock"
    with running_shipper(source, path, stalls=stalls):
        with UnixPeer(path, manner=Manner(closes_after_reports=1)) as first:
            wait_until(lambda: first.connections > 1, "it came back after the connection was dropped")
            store = first.store
        with UnixPeer(path, store=store):
            wait_until(lambda: len([one for report in store.reports for one in report.stalls]) == 20, "every end")
    told = [one.slice_ns for report in store.reports for one in report.stalls]
    assert sorted(told) == list(range(1, 21))
    assert store.total == source.totals[source.definition(0).site_id]


def test_over_udp_each_goes_in_a_datagram_that_fits(source, stall):
    stalls = Stalls()
    with UdpPeer() as peer, running_shipper(source, UdpAddress("127.0.0.1", peer.port), stalls=stalls) as shipper:
        assert shipper.flush(30)
        stalls.now = [stall]
        shipper.wake()
        wait_until(lambda: peer.stalls, "the stall")
        stalls.now = []
        stalls.ended.append(stall._replace(state="ended"))
        shipper.wake()
        wait_until(lambda: [told.state for told in peer.stalls].count("ended") == 3, "its end, three times")
    assert {told.slice_ns for told in peer.stalls} == {77}
    assert max(peer.sizes) <= 8192
