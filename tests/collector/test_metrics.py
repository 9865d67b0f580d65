"""`GET /metrics` of a real collector: what it says grew by what was reported, and only grows."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.collector import DatagramPeer, StreamPeer, make_identity, make_report, make_site, run_collector
from tests.support.waiting import wait_until

from aiocop_collector.metrics import MAX_SERVICES, OTHER, Metrics, Scrape
from aiocop_collector.store.activity import Activity, Cost
from aiocop_collector.store.loops import LoopTotals
from aiocop_collector.store.transaction import Outcome
from aiocop_collector.store.writer import StoreStatus
from aiocop_wire import Define, Health, Overhead, SiteDelta


def scrape(collector) -> dict[tuple, float]:
    answer = collector.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.text)


def samples(text: str) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: dict[tuple, float], name: str, **labels: str) -> float | None:
    matching = [value for key, value in found.items() if key[0] == name and set(labels.items()) <= set(key[1:])]
    return sum(matching) if matching else None


def test_metrics_say_what_was_reported_and_only_grow(tmp_path):
    with run_collector(tmp_path, udp=True) as collector:
        first = scrape(collector)
        identity, other = make_identity(), make_identity("mail", environment="prod")
        with StreamPeer(collector.socket_path) as agent:
            agent.greet(identity)
            agent.send(
                Define((make_site(1), make_site(2))),
                make_report(
                    1, SiteDelta(1, 5, 2, 1_500_000, 900_000), SiteDelta(2, 7, 0, 4_000, 900), dropped={"full": 3}
                ),
            )
            agent.wait_for_ack(1)
            second = scrape(collector)
            reduced = Health(overhead=Overhead(level=1, share_ppm=20_000, budget_ppm=10_000))
            agent.send(
                make_report(2, SiteDelta(1, 1, 1, 500_000, 500_000), dropped={"full": 4, "late": 1}, health=reduced)
            )
            agent.wait_for_ack(2)
        with DatagramPeer(collector.udp) as agent:
            report = make_report(2, SiteDelta(3, 4, 0, 9_000, 900))
            agent.send(other, report, make_site(3))
            agent.send(other, report)
            agent.send_bytes(b"nonsense")
        wait_until(
            lambda: of(scrape(collector), "aiocop_reports_duplicated_total", service="mail") == 1,
            "the duplicate to be counted",
        )
        # What comes from the store is read a moment before the counters: it may not have been there yet.
        third = scrape(collector)
    shop = {"service": "shop", "environment": "test"}
    assert of(first, "aiocop_blocked_seconds_total") is None
    assert of(second, "aiocop_blocked_seconds_total", **shop) == 1.504
    assert of(third, "aiocop_blocked_seconds_total", **shop) == 2.004
    assert of(third, "aiocop_blocking_calls_total", **shop) == 13
    assert of(third, "aiocop_slow_slices_total", **shop) == 3
    assert of(third, "aiocop_blocking_calls_total", service="mail", environment="prod") == 4
    line = "shop/orders.py:function_1"
    assert of(third, "aiocop_call_site_blocked_seconds_total", call_site=line, **shop) == 2.0
    assert of(third, "aiocop_call_site_blocking_calls_total", call_site=line, **shop) == 6
    assert of(second, "aiocop_dropped_total", reason="full", **shop) == 3
    assert of(third, "aiocop_dropped_total", reason="full", **shop) == 4
    assert of(third, "aiocop_dropped_total", reason="late", **shop) == 1
    assert of(third, "aiocop_agents", **shop) == 1
    assert (of(second, "aiocop_agents_reduced", **shop), of(third, "aiocop_agents_reduced", **shop)) == (0, 1)
    assert of(third, "aiocop_agents_reduced", service="mail") == 0
    assert of(third, "aiocop_reports_lost", service="mail") == 1
    assert of(third, "aiocop_collector_reports_total", transport="unix") == 2
    assert of(third, "aiocop_collector_reports_total", transport="udp") == 2
    assert of(third, "aiocop_collector_refused_total") == 1
    assert of(third, "aiocop_collector_bytes_received_total") > of(second, "aiocop_collector_bytes_received_total") > 0
    assert of(third, "aiocop_collector_commit_seconds_count") >= 2
    assert of(third, "aiocop_collector_query_seconds_count", endpoint="/metrics") >= 2
    assert of(third, "aiocop_collector_pending_reports") == 0
    assert of(third, "aiocop_collector_database_up") == 1
    assert 0 < of(third, "aiocop_collector_database_used_bytes") < of(third, "aiocop_collector_database_files_bytes")
    for earlier, later in ((first, second), (second, third)):
        for key, value in earlier.items():
            if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert later[key] >= value, key


def outcome(**activity) -> Outcome:
    parts = {"services": {}, "hotspots": {}, "dropped": {}, "duplicated": {}, "loops": {}} | activity
    return Outcome({}, {}, frozenset(), 0, 0, Activity(**parts))


def page(metrics: Metrics) -> dict[tuple, float]:
    names = {one: ("shop", "", f"line {one}", str(one)) for one in metrics.costliest()}
    status = StoreStatus("idle", None, 0, 0, None)
    return samples(metrics.page(Scrape({}, status, None, names, {})).decode())


def test_cardinality_is_bounded_whatever_is_sent():
    metrics = Metrics(call_sites=3)
    for service_id in range(MAX_SERVICES + 50):
        metrics.count_commit(
            outcome(
                services={service_id: (f"service-{service_id}", "")},
                hotspots={service_id: Cost(service_id, 1, 0, service_id)},
                dropped={(service_id, f"reason-{service_id}"): 1},
                loops={service_id: LoopTotals([1_000_000, 250_000, 1_000, 1, 7, 7, 33_000, 17_000], {3: 2, 20: 1})},
            ),
            0.1,
        )
    found = page(metrics)
    by_service = [key for key in found if key[0] == "aiocop_blocking_calls_total"]
    assert len(by_service) == MAX_SERVICES + 1
    assert of(found, "aiocop_blocking_calls_total", service=OTHER) == 50
    assert of(found, "aiocop_blocking_calls_total") == MAX_SERVICES + 50
    assert of(found, "aiocop_loop_seconds_total") == MAX_SERVICES + 50
    assert of(found, "aiocop_loop_blocked_seconds_total", service=OTHER) == 0.25 * 50
    lag = {le: of(found, "aiocop_loop_lag_seconds_bucket", service=OTHER, le=le) for le in ("0.001", "0.016", "+Inf")}
    assert lag == {"0.001": 100, "0.016": 150, "+Inf": 150}
    assert of(found, "aiocop_loop_lag_seconds_bucket", service=OTHER, le="0.008") == 100
    assert of(found, "aiocop_loop_lag_seconds_sum", service=OTHER) == pytest.approx(0.033 * 50)
    assert len([key for key in found if key[0] == "aiocop_loop_lag_seconds_bucket"]) == 15 * (MAX_SERVICES + 1)
    call_sites = {dict(key[1:])["hotspot"] for key in found if key[0] == "aiocop_call_site_blocking_calls_total"}
    assert call_sites == {"1049", "1048", "1047"}
    assert len({dict(key[1:])["reason"] for key in found if key[0] == "aiocop_dropped_total"}) == 51
    assert of(found, "aiocop_collector_database_up") == 0


def test_a_death_that_is_taken_back_lowers_no_counter():
    """Alone in its commit: what the agent counts itself may come in another one."""
    metrics = Metrics()
    for cost in (Cost(1, 1, 1, 5_000_000), Cost(1, -1, -1, -5_000_000)):
        metrics.count_commit(outcome(services={1: ("shop", "")}, hotspots={7: cost}), 0.1)
    found = page(metrics)
    assert of(found, "aiocop_blocking_calls_total", service="shop") == 1
    assert of(found, "aiocop_blocked_seconds_total", service="shop") == 5
    assert of(found, "aiocop_slow_slices_total", service="shop") == 1


def test_two_collectors_share_no_registry():
    one, other = Metrics(), Metrics()
    one.count_commit(outcome(services={1: ("shop", "")}, hotspots={1: Cost(1, 5, 0, 9)}), 0.1)
    assert of(page(one), "aiocop_blocking_calls_total") == 5
    assert of(page(other), "aiocop_blocking_calls_total") is None
