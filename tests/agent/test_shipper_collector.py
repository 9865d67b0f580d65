"""The shipper against the real collector in a process of its own, killed with SIGKILL while counting goes on."""

import random
import threading
import time
from pathlib import Path

from tests.support.collector import run_collector
from tests.support.counting_source import CountingSource
from tests.support.shipping import assert_balanced, running_shipper
from tests.support.waiting import wait_until

from aiocop_wire import UdpAddress


def _stored(collector) -> int:
    """Blocking calls in the store, as /hotspots tells."""
    return sum(hotspot["count"] for hotspot in collector.get("/hotspots", limit=1000)["hotspots"])


def test_what_flush_says_is_acknowledged_is_in_hotspots(tmp_path):
    source = CountingSource()
    with (
        run_collector(tmp_path) as collector,
        running_shipper(source, Path(collector.socket_path), interval_s=1.0) as shipper,
    ):
        for site in range(10):
            source.count(site, times=site + 1)
        source.slow_event(1)
        assert shipper.flush(60)
        assert _stored(collector) == 55
        assert_balanced(shipper.statistics())
        (agent,) = collector.get("/agents")["agents"]
        assert (agent["service"], agent["reports_lost"], agent["reports_duplicated"]) == ("shop", 0, 0)


def test_a_collector_killed_again_and_again_has_every_count_exactly_once(tmp_path):
    source = CountingSource()
    dice = random.Random(7)
    counting = threading.Event()
    counting.set()

    def count() -> None:
        while counting.is_set():
            source.count(dice.randrange(30), times=dice.randrange(1, 4))
            time.sleep(0.0005)

    with (
        run_collector(tmp_path) as collector,
        running_shipper(source, Path(collector.socket_path), interval_s=0.05) as shipper,
    ):
        thread = threading.Thread(target=count)
        thread.start()
        for _ in range(6):
            shipper.flush(dice.random() * 0.5)
            assert_balanced(shipper.statistics())
            collector.kill()
            assert_balanced(shipper.statistics())
            collector.start()
        counting.clear()
        thread.join()
        assert shipper.flush(120)
        statistics = shipper.statistics()
        assert_balanced(statistics)
        assert statistics.acknowledged == source.recorded()
        assert _stored(collector) == source.recorded()
        assert statistics.connection_failures > 0


def test_everything_sent_over_udp_is_received_and_nothing_is_missing(tmp_path):
    source = CountingSource()
    with run_collector(tmp_path, udp=True) as collector:
        with running_shipper(source, UdpAddress(*collector.udp)) as shipper:
            for site in range(500):
                source.count(site, times=3)
            assert shipper.flush(60)
            assert shipper.stop(60)
            sent = shipper.statistics().reports_sent
        wait_until(lambda: _stored(collector) == 1500, "the counts in the store")
        agent = wait_until(
            lambda: next((a for a in collector.get("/agents")["agents"] if a["reports_received"] == sent), None),
            "the agent's account",
        )
        assert agent["reports_lost"] == 0
