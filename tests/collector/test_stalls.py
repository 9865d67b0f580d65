"""Stalls through a real collector process, told by messages and by heartbeats that the test writes itself."""

import contextlib
import os

import pytest
from tests.support.collector import (
    DatagramPeer,
    StreamPeer,
    make_identity,
    make_report,
    make_site,
    now_ms,
    run_collector,
)
from tests.support.heartbeat_peer import HeartbeatPeer, greet_with
from tests.support.waiting import wait_until

from aiocop_wire import Datagram, Define, Farewell, SiteDelta, Stall, encode

SITE = make_site(42, "create_order")
CALL_SITE = "shop/orders.py:42:create_order"


@pytest.fixture
def collector(tmp_path):
    with run_collector(tmp_path, udp=True) as running:
        yield running


def a_stall(slice_ns: int = 123_456, **fields) -> Stall:
    given = {"started_at_ms": now_ms() - 2000, "blocked_us": 2_000_000, "site_id": 42, "frames": SITE.frames}
    return Stall(slice_ns, **{**given, **fields})


def the_stall(collector, state: str, **filters) -> dict:
    """The only stall there is, once it is in this state."""

    def find():
        stalls = collector.get("/stalls", **filters)["stalls"]
        assert len(stalls) <= 1
        return stalls[0] if stalls and stalls[0]["state"] == state else None

    return wait_until(find, f"a stall that is {state}")


def rows(collector) -> dict[str, tuple[int, float]]:
    """Count and blocked time by call site."""
    answer = collector.get("/hotspots", since="1h", status=["open", "regressed", "resolved", "ignored"])
    return {row["call_site"]: (row["count"], row["blocked_ms"]) for row in answer["hotspots"]}


def targets_of(pid: int) -> set[str]:
    """What the descriptors of a process refer to, as far as they are not closed while we look."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def test_the_collector_says_that_it_takes_stalls(collector):
    with StreamPeer(collector.socket_path) as peer:
        assert "stalls" in greet_with(peer, make_identity()).features


def test_a_stall_that_is_told_grows_and_ends_and_adds_nothing_to_the_counts(collector):
    identity = make_identity()
    stall = a_stall()
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        peer.send(Define((SITE,)), stall)
        frozen = the_stall(collector, "frozen", service="shop")
        peer.send(stall._replace(blocked_us=3_000_000))
        wait_until(lambda: the_stall(collector, "frozen")["blocked_ms"] == 3000, "it grows")
        assert rows(collector) == {}
        ended = stall._replace(state="ended", blocked_us=3_500_000)
        peer.send(make_report(1, SiteDelta(42, 1, 1, 3_499_000, 3_499_000)), make_report(2, stalls=(ended,)))
        peer.wait_for_ack(2)
        # What was on its way before the end changes nothing any more.
        peer.send(stall._replace(blocked_us=3_100_000), make_report(3))
        peer.wait_for_ack(3)
    after = the_stall(collector, "ended")
    assert (frozen["call_site"], frozen["operation"], frozen["blocked_ms"]) == (CALL_SITE, "open", 2000.0)
    assert [frame["function"] for frame in frozen["trace"]] == ["Path.open", "create_order"]
    assert (after["id"], after["blocked_ms"]) == (frozen["id"], 3500.0)
    assert (after["agent"], after["pid"], after["host"]) == (identity.instance.hex(), 4711, "host-1")
    assert rows(collector) == {CALL_SITE: (1, 3499.0)}


def test_without_a_heartbeat_nothing_proves_a_death(collector):
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(make_identity())
        peer.send(Define((SITE,)), a_stall())
        seen = the_stall(collector, "frozen")
    with StreamPeer(collector.socket_path) as another:
        another.greet(make_identity("other"))
        another.send(make_report(1))
        another.wait_for_ack(1)
    later = the_stall(collector, "frozen")
    assert (later["last_seen"], later["blocked_ms"]) == (seen["last_seen"], 2000.0)
    assert rows(collector) == {}


def test_a_heartbeat_alone_shows_a_stall_and_its_end(collector):
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        heartbeat.greet(peer, make_identity())
        slice_ns = heartbeat.begin(site=SITE)
        seen = the_stall(collector, "frozen")
        wait_until(lambda: the_stall(collector, "frozen")["gil_held"], "the watchdog is overdue")
        assert (seen["call_site"], seen["operation"], seen["trace"]) == (CALL_SITE, None, [])
        (agent,) = collector.get("/agents")["agents"]
        assert [stall["id"] for stall in agent["stalls"]] == [seen["id"]]
        heartbeat.end(slice_ns)
        ended = the_stall(collector, "ended")
        assert collector.get("/agents")["agents"][0]["stalls"] == []
        heartbeat.begin(watchdog_looks=True)
        wait_until(lambda: collector.get("/stalls")["total"] == 2, "the next slice is another stall")
        heartbeat.end(heartbeat.begin())
    assert ended["id"] == seen["id"]
    assert rows(collector) == {}


def test_a_death_known_from_the_heartbeat_alone_counts_as_cpu_at_the_site_entered_last(collector):
    """The socket stays open, as a forked child would keep it."""
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        heartbeat.greet(peer, make_identity())
        heartbeat.begin(site=SITE)
        the_stall(collector, "frozen")
        heartbeat.die()
        died = the_stall(collector, "died")
        assert (died["call_site"], died["operation"]) == (CALL_SITE, "cpu")
        assert rows(collector) == {CALL_SITE: (1, died["blocked_ms"])}
        assert not peer.has_answer()


def test_a_death_where_nobody_knows_the_site_is_counted_all_the_same(collector):
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        heartbeat.greet(peer, make_identity())
        heartbeat.begin()
        assert the_stall(collector, "frozen")["call_site"] is None
        heartbeat.die()
        died = the_stall(collector, "died")
    assert died["call_site"] == "<unknown>"
    assert rows(collector) == {"<unknown>": (1, died["blocked_ms"])}


@pytest.mark.parametrize(("counted", "added"), [(False, 1), (True, 0)])
def test_a_death_adds_what_the_agent_had_not_counted_yet(collector, counted, added):
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        identity = make_identity()
        heartbeat.greet(peer, identity)
        slice_ns = heartbeat.begin(watchdog_looks=True)
        peer.send(Define((SITE,)), make_report(1, SiteDelta(42, 5, 0, 1000, 1000)))
        peer.wait_for_ack(1)
        peer.send(a_stall(slice_ns, counted=counted))
        wait_until(lambda: the_stall(collector, "frozen")["operation"] == "open", "the agent's own word")
        heartbeat.die()
        died = the_stall(collector, "died")
        assert (died["call_site"], died["operation"]) == (CALL_SITE, "open")
        assert rows(collector) == {CALL_SITE: (5 + added, pytest.approx(1 + died["blocked_ms"]))}


def test_an_agent_that_lives_after_all_takes_its_death_back(collector):
    """Its lock was lost by accident (a program that closes every descriptor): it counts its call itself."""
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        heartbeat.greet(peer, make_identity())
        slice_ns = heartbeat.begin(watchdog_looks=True)
        peer.send(Define((SITE,)), a_stall(slice_ns))
        the_stall(collector, "frozen")
        heartbeat.die()
        the_stall(collector, "died")
        ended = a_stall(slice_ns, state="ended", blocked_us=60_000_000)
        peer.send(make_report(1, SiteDelta(42, 1, 1, 60_000_000, 60_000_000)), make_report(2, stalls=(ended,)))
        peer.wait_for_ack(2)
    assert the_stall(collector, "ended")["blocked_ms"] == 60_000
    assert rows(collector) == {CALL_SITE: (1, pytest.approx(60_000))}


def test_a_death_between_two_slices_or_in_a_short_one_is_no_stall(collector):
    for age_s in (None, 0.0):
        with HeartbeatPeer(stall_after_s=3600) as heartbeat, StreamPeer(collector.socket_path) as peer:
            heartbeat.greet(peer, make_identity())
            if age_s is not None:
                heartbeat.begin(age_s=age_s)
    wait_until(lambda: collector.counters().get("agents_died") == 2, "both deaths")
    assert collector.get("/stalls")["total"] == 0


def test_a_farewell_is_no_death(collector):
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        heartbeat.greet(peer, make_identity())
        heartbeat.begin()
        the_stall(collector, "frozen")
        peer.send(Farewell(0))
        the_stall(collector, "ended")
    assert "agents_died" not in collector.counters()


def test_saying_hello_again_ends_what_does_not_run_any_more(collector):
    identity = make_identity()
    with HeartbeatPeer() as heartbeat:
        with StreamPeer(collector.socket_path) as peer:
            heartbeat.greet(peer, identity)
            slice_ns = heartbeat.begin()
            the_stall(collector, "frozen")
            collector.kill()
        heartbeat.end(slice_ns)
        collector.start()
        assert the_stall(collector, "frozen")["state"] == "frozen"
        with StreamPeer(collector.socket_path) as peer:
            heartbeat.greet(peer, identity)
            the_stall(collector, "ended")


def test_what_else_is_passed_is_closed_and_does_no_harm(collector, tmp_path):
    """A pipe that nobody writes to would block a reader for ever."""
    wait_end, write_end = os.pipe()
    with (
        (tmp_path / "file").open("wb") as file,
        HeartbeatPeer(seals=0) as unsealed,
        HeartbeatPeer(locked=False) as unlocked,
        HeartbeatPeer() as good,
    ):
        for passed in (
            [wait_end],
            [file.fileno()],
            [unsealed.descriptor],
            [unlocked.descriptor],
            [wait_end] * 200,
            [wait_end, good.descriptor, good.descriptor],
        ):
            with StreamPeer(collector.socket_path) as peer:
                identity = make_identity()
                greet_with(peer, identity, *passed)
                peer.send(make_report(1))
                peer.wait_for_ack(1)
        passed_on = {os.readlink(f"/proc/self/fd/{number}") for number in (wait_end, file.fileno(), good.descriptor)}
    os.close(wait_end)
    os.close(write_end)
    assert collector.counters()["heartbeats_unusable"] == 1
    wait_until(lambda: not passed_on & targets_of(collector.pid), "every descriptor is closed")


def test_a_hostile_page_is_read_with_care(collector):
    with HeartbeatPeer() as heartbeat, StreamPeer(collector.socket_path) as peer:
        heartbeat.greet(peer, make_identity())
        os.pwrite(heartbeat.descriptor, b"\xff" * 4096, 64)
        os.pwrite(heartbeat.descriptor, os.urandom(60_000), 4096 + 64)
        peer.send(make_report(1))
        peer.wait_for_ack(1)
        heartbeat.begin(age_s=1)
        wait_until(lambda: collector.get("/stalls")["total"] == 1, "what makes sense is shown")


def test_stalls_over_udp(collector):
    with DatagramPeer(collector.udp) as peer:
        identity = make_identity()
        peer.send_bytes(encode(Datagram(identity, define=Define((SITE,)), stall=a_stall())))
        frozen = the_stall(collector, "frozen")
        assert frozen["call_site"] == CALL_SITE
        ended = a_stall(state="ended", blocked_us=4_000_000)
        for _ in range(3):
            peer.send_bytes(encode(Datagram(identity, stall=ended)))
        assert the_stall(collector, "ended")["blocked_ms"] == 4000


def test_filters_and_their_mistakes(collector):
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(make_identity("shop", environment="prod"))
        peer.send(Define((SITE,)), a_stall())
        the_stall(collector, "frozen")
    for parameters, found in (
        ({"service": "shop"}, 1),
        ({"service": "other"}, 0),
        ({"environment": "prod"}, 1),
        ({"environment": "test"}, 0),
        ({"state": ["frozen", "died"]}, 1),
        ({"state": "ended"}, 0),
        ({"until": "1h"}, 0),
        ({"since": "1s", "state": "frozen"}, 1),
    ):
        assert collector.get("/stalls", **parameters)["total"] == found, parameters
    for parameters, named in (
        ({"state": "molten"}, "state"),
        ({"since": "1h", "until": "2h"}, "since"),
        ({"sevice": "shop"}, "sevice"),
    ):
        answer = collector.http.get("/stalls", params=parameters)
        assert answer.status_code == 422
        assert named in answer.text
