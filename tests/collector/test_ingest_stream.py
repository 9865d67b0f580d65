"""From a unix stream to rows, through a real collector process: exactly once, and nobody disturbs anybody."""

import signal
import struct

import pytest
from tests.support.collector import StreamPeer, make_identity, make_report, make_site, now_ms, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import (
    FEATURE_CONTROL,
    Control,
    Controlled,
    Define,
    Farewell,
    Hello,
    Refused,
    SiteDelta,
    SlowEvent,
    SlowSite,
    TraceDefinition,
    encode,
    frame,
)


@pytest.fixture
def collector(tmp_path):
    with run_collector(tmp_path) as running:
        yield running


def counts(collector, **filters) -> dict[str, int]:
    """Count by call site, as the API says."""
    rows = collector.get("/hotspots", since="1h", limit="1000", **filters)["hotspots"]
    return {row["call_site"]: row["count"] for row in rows}


def agent_of(collector, identity) -> dict:
    (found,) = [row for row in collector.get("/agents")["agents"] if row["id"] == identity.instance.hex()]
    return found


def test_a_report_becomes_rows_before_it_is_acknowledged(collector):
    identity = make_identity()
    site = make_site(42, "create_order")
    event = SlowEvent(now_ms(), 80_000, 30_000, "io", 10, (SlowSite(42, 3, 70_000, 5),), context={"route": "/orders"})
    report = make_report(
        1,
        SiteDelta(42, 3, 1, 75_000, 70_000, (3, 2, 29, 1)),
        slow_events=(event,),
        dropped={"queue_events": 4},
    )
    with StreamPeer(collector.socket_path) as peer:
        assert peer.greet(identity) == 0
        peer.send(Define((site,), (TraceDefinition(5, 42, site.frames),)), report)
        peer.wait_for_ack(1)
        (row,) = collector.get("/hotspots", since="1h")["hotspots"]
        detail = collector.get(f"/hotspots/{row['id']}")
    assert row["call_site"] == "shop/orders.py:42:create_order"
    assert row["entry_point"] == "pathlib.py:142:Path.open"
    assert (row["count"], row["slow_count"], row["blocked_ms"], row["max_ms"]) == (3, 1, 75.0, 70.0)
    assert (row["first_release"], row["last_release"], row["processes"]) == ("1.0", "1.0", 1)
    assert detail["slow_events"][0]["context"] == {"route": "/orders"}
    assert len(detail["traces"][0]["frames"]) == 2
    agent = agent_of(collector, identity)
    assert (agent["reports_received"], agent["reports_lost"], agent["reports_duplicated"]) == (1, 0, 0)
    assert agent["dropped"] == {"queue_events": 4}


def test_an_agent_is_known_from_its_hello_on(collector):
    identity = make_identity("quiet")
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        wait_until(lambda: collector.get("/agents")["agents"], "the agent's row")
    assert agent_of(collector, identity)["service"] == "quiet"


def test_what_is_sent_again_counts_once(collector):
    identity, site = make_identity(), make_site(1)
    first, second = (make_report(sequence, SiteDelta(1, 10, 0, 100, 50)) for sequence in (1, 2))
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        peer.send(Define((site,)), first, first, second)
        peer.wait_for_ack(2)
    with StreamPeer(collector.socket_path) as again:
        assert again.greet(identity) == 2
        again.send(Define((site,)), second, make_report(3, SiteDelta(1, 1, 0, 10, 10)))
        again.wait_for_ack(3)
    assert counts(collector) == {"shop/orders.py:1:function_1": 21}
    agent = agent_of(collector, identity)
    assert (agent["reports_received"], agent["reports_lost"], agent["reports_duplicated"]) == (3, 0, 2)


def test_a_killed_collector_starts_again_and_counts_once(tmp_path):
    identity, site = make_identity(), make_site(1)
    reports = [make_report(sequence, SiteDelta(1, 1, 0, 10, 10)) for sequence in range(1, 301)]
    with run_collector(tmp_path) as collector:
        acknowledged = 0
        for part in range(3):
            with StreamPeer(collector.socket_path) as peer:
                committed = peer.greet(identity)
                assert committed >= acknowledged, "an acknowledged report is gone"
                peer.send(Define((site,)), *reports[committed : 100 * (part + 1)])
                if part < 2:
                    acknowledged = peer.receive().sequence
                    collector.signal(signal.SIGKILL)
                    collector.wait()
                    collector.start()
                else:
                    peer.wait_for_ack(300)
        assert counts(collector) == {"shop/orders.py:1:function_1": 300}
        agent = agent_of(collector, identity)
        assert (agent["reports_received"], agent["reports_lost"]) == (300, 0)


def test_two_agents_at_once_are_kept_apart_and_added_up(collector):
    one, two = make_identity(), make_identity()
    with StreamPeer(collector.socket_path) as first, StreamPeer(collector.socket_path) as second:
        for peer, identity in ((first, one), (second, two)):
            peer.greet(identity)
            peer.send(Define((make_site(1),)))
        for sequence in range(1, 51):
            first.send(make_report(sequence, SiteDelta(1, 1, 0, 10, 10)))
            second.send(make_report(sequence, SiteDelta(1, 100, 0, 10, 10)))
        first.wait_for_ack(50)
        second.wait_for_ack(50)
    (row,) = collector.get("/hotspots", since="1h")["hotspots"]
    assert (row["count"], row["processes"]) == (5050, 2)
    assert {agent_of(collector, identity)["reports_received"] for identity in (one, two)} == {50}


def test_a_late_report_lands_in_its_own_minute(collector):
    identity, at_ms = make_identity(), now_ms() - 45 * 60_000
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        peer.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 5, 0, 10, 10), started_at_ms=at_ms))
        peer.wait_for_ack(1)
    assert counts(collector, until="30m") == {"shop/orders.py:1:function_1": 5}


def test_a_clock_far_ahead_counts_as_now(collector):
    identity, ahead_ms = make_identity(), now_ms() + 40 * 86_400_000
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        peer.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 5, 0, 10, 10), started_at_ms=ahead_ms))
        peer.wait_for_ack(1)
    assert counts(collector) == {"shop/orders.py:1:function_1": 5}
    assert collector.counters()["clocks_clamped"] >= 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(frame(b"\xc1garbage"), "malformed", id="not msgpack"),
        pytest.param(struct.pack(">I", 1 << 30), "oversized", id="a giant length"),
        pytest.param(
            frame(encode(Hello(make_identity(), version=99))),
            "unknown_version",
            id="another version",
        ),
        pytest.param(frame(encode(make_report(1))), "unexpected", id="a report before hello"),
    ],
)
def test_bad_bytes_end_their_own_stream_only(collector, data, reason):
    with StreamPeer(collector.socket_path) as good, StreamPeer(collector.socket_path) as bad:
        good.greet(make_identity())
        bad.send_bytes(data)
        answer = bad.receive()
        assert isinstance(answer, Refused)
        assert answer.reason == reason
        assert bad.receive() is None
        good.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 5, 0, 10, 10)))
        good.wait_for_ack(1)
    assert collector.counters()[f"refused_{reason}"] == 1
    assert counts(collector) == {"shop/orders.py:1:function_1": 5}


def test_bad_bytes_after_good_reports_lose_none_of_them(collector):
    identity = make_identity()
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        peer.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 5, 0, 10, 10)))
        peer.send_bytes(frame(b"\xc1"))
        while peer.receive() is not None:
            pass
    wait_until(lambda: counts(collector) == {"shop/orders.py:1:function_1": 5}, "the report's count")


def test_a_farewell_and_an_end_commit_what_was_sent(collector):
    identity = make_identity()
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        peer.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 5, 0, 10, 10)), Farewell(1))
    wait_until(lambda: counts(collector) == {"shop/orders.py:1:function_1": 5}, "the report's count")


def test_a_site_counted_before_its_definition_heals(collector):
    identity = make_identity()
    with StreamPeer(collector.socket_path) as peer:
        peer.greet(identity)
        event = SlowEvent(now_ms(), 80_000, 30_000, "io", 10, (SlowSite(9, 3, 70_000),))
        peer.send(make_report(1, SiteDelta(9, 7, 0, 10, 10), slow_events=(event,)))
        peer.wait_for_ack(1)
        assert counts(collector) == {"<unknown>": 7}
        peer.send(Define((make_site(9, "found"),)), make_report(2, SiteDelta(9, 1, 0, 10, 10)))
        peer.wait_for_ack(2)
    assert counts(collector) == {"shop/orders.py:9:found": 8}
    (row,) = collector.get("/hotspots", since="1h")["hotspots"]
    assert len(collector.get(f"/hotspots/{row['id']}")["slow_events"]) == 1


def test_control_goes_to_agents_that_name_it_and_to_no_other(collector):
    knows, older = make_identity(), make_identity()
    with StreamPeer(collector.socket_path) as new_peer, StreamPeer(collector.socket_path) as old_peer:
        new_peer.send(Hello(knows, features=(FEATURE_CONTROL, "something newer")))
        assert FEATURE_CONTROL in new_peer.receive().features
        assert new_peer.receive() == Control(0)
        old_peer.greet(older)
        assert collector.http.patch("/services/shop", json={"threshold_ms": 5}).status_code == 200
        assert new_peer.receive() == Control(1, threshold_us=5_000)
        new_peer.send(Controlled(1, active=True, threshold_us=5_000, trace_depth=32, refused="nul \0"))
        old_peer.send(make_report(1))
        old_peer.wait_for_ack(1)  # the first thing it hears: it would end the stream over a message it does not know
        assert not old_peer.has_answer()
        control = agent_of(collector, knows)["control"]
        assert (control["reachable"], control["revision"]) == (True, 1)
        assert (control["in_force"]["revision"], control["in_force"]["refused"]) == (1, "nul \0")
        assert agent_of(collector, older)["control"]["unreachable"] == "not_allowed"
