"""Metrics pushed by a real collector to a server that decodes them with OpenTelemetry's own messages."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from tests.support.collector import StreamPeer, make_identity, make_report, make_site, run_collector
from tests.support.waiting import wait_until

from aiocop_wire import Define, SiteDelta


class Receiver:
    """`requests` as they came; `statuses` are given to the next ones, then 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []
        self.requests: list[ExportMetricsServiceRequest] = []
        self.statuses: list[int] = []

    def latest(self) -> dict:
        """The metrics of the last request, by name."""
        if not self.requests:
            return {}
        (resource,) = self.requests[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def value(self, name: str, **labels: str) -> float | None:
        metric = self.latest().get(name)
        if metric is None:
            return None
        data = metric.sum if metric.HasField("sum") else metric.gauge
        for point in data.data_points:
            if labels.items() <= {one.key: one.value.string_value for one in point.attributes}.items():
                return getattr(point, point.WhichOneof("value"))
        return None


@contextmanager
def run_receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            if status == 200:
                receiver.paths.append(self.path)
                receiver.requests.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_arguments) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_pushed_is_what_is_scraped(tmp_path):
    with run_receiver() as receiver:
        options = {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
        with run_collector(tmp_path, "--otlp-endpoint", receiver.url, **options) as collector:
            with StreamPeer(collector.socket_path) as agent:
                agent.greet(make_identity("shop"))
                agent.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 5, 2, 1_500_000, 900_000)))
                agent.wait_for_ack(1)
            wait_until(lambda: receiver.value("aiocop_blocked_seconds", service="shop") == 1.5, "the blocked time")
            wait_until(lambda: receiver.value("aiocop_agents", service="shop") == 1, "the agent")
            latest = receiver.latest()
            scraped = collector.http.get("/metrics").text
            # Enough is committed and asked by now for a later export to say it all again.
            assert collector.stop() == 0
        blocked = latest["aiocop_blocked_seconds"]
        assert (blocked.unit, blocked.sum.is_monotonic) == ("s", True)
        assert blocked.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
        names = {line.split()[2].removesuffix("_total") for line in scraped.splitlines() if line.startswith("# TYPE")}
        assert latest.keys() <= names
        assert {"aiocop_collector_commits", "aiocop_call_site_blocked_seconds", "aiocop_collector_database_up"} <= set(
            latest
        )
        (commits,) = receiver.latest()["aiocop_collector_commit_seconds"].histogram.data_points
        assert commits.count == sum(commits.bucket_counts) >= 1
        assert len(commits.bucket_counts) == len(commits.explicit_bounds) + 1
        assert commits.sum > 0
        (resource,) = receiver.requests[-1].resource_metrics
        attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
        assert attributes["service.name"] == "aiocop-collector"
        assert set(receiver.paths) == {"/v1/metrics"}


def test_a_receiver_that_refuses_is_one_warning_and_loses_nothing(tmp_path):
    with run_receiver() as receiver:
        receiver.statuses = [400] * 3
        options = {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
        with run_collector(tmp_path, "--otlp-endpoint", f"{receiver.url}/", **options) as collector:
            wait_until(lambda: "metrics are taken again" in collector.log.read_text(), "the recovery")
            assert collector.log.read_text().count("metrics are not taken") == 1
            assert "400" in collector.log.read_text()
            assert collector.stop() == 0


def test_nobody_there_holds_nothing_up(tmp_path):
    options = {"OTEL_METRIC_EXPORT_INTERVAL": "100"}
    with run_collector(tmp_path, "--otlp-endpoint", "http://127.0.0.1:1", **options) as collector:
        assert collector.get("/readyz")["status"] == "ready"
        assert collector.stop() == 0


@pytest.mark.parametrize(
    ("endpoint", "variables", "complaint"),
    [
        ("localhost:4318", {}, "--otlp-endpoint localhost:4318: an OTLP endpoint is a URL"),
        ("http://a", {"OTEL_METRIC_EXPORT_INTERVAL": "1m"}, "OTEL_METRIC_EXPORT_INTERVAL: '1m' is not a number"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path, endpoint, variables, complaint):
    with (
        pytest.raises(AssertionError, match=complaint),
        run_collector(tmp_path, "--otlp-endpoint", endpoint, **variables),
    ):
        pass
