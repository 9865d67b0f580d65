"""The metrics of `GET /metrics`, pushed to an OpenTelemetry collector (OTLP over HTTP) by OpenTelemetry's own exporter.

Imported only where `--otlp-endpoint` is given: it needs the extra [otlp]. What OpenTelemetry's SDK reads from the
environment holds here too: OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE,
OTEL_METRIC_EXPORT_INTERVAL (milliseconds, 60000 by default), OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.

Counters are cumulative, so an export that fails loses nothing: the next one says it all.
"""

import asyncio
import logging
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as ExportedMetric
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric, Sample

from aiocop_collector.errors import SettingsError
from aiocop_collector.log import Log
from aiocop_collector.scraping import Scraper
from aiocop_wire import __version__

_PATH: Final = "/v1/metrics"
_DEFAULT_INTERVAL_MS: Final = 60_000
_SHORTEST_INTERVAL_MS: Final = 100
_LAST_EXPORT_S: Final = 3.0
_UNITS: Final = {"seconds": "s", "bytes": "By"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


class OtlpExport:
    """One task that exports at an interval, and once more when it is stopped."""

    def __init__(self, scraper: Scraper, endpoint: str) -> None:
        """Connects to nothing yet. Raises SettingsError for an interval that cannot be used."""
        self._scraper = scraper
        self._interval_s = _interval_s()
        self._exporter = OTLPMetricExporter(endpoint=_with_path(endpoint))
        self._resource = Resource.create({SERVICE_VERSION: __version__, **_service_name()})
        self._started_ns = time.time_ns()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._log = Log("otlp")
        self._said = _LastSaid()
        exporter_log = logging.getLogger("opentelemetry.exporter")
        exporter_log.addHandler(self._said)
        exporter_log.propagate = False  # it says the same each minute; we say it once, and when it is over

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aiocop-collector-otlp")

    async def stop(self) -> None:
        """Export what the last interval brought, if the other side takes it at once; then end."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        last = asyncio.ensure_future(self._export())
        await asyncio.wait([last], timeout=_LAST_EXPORT_S)
        await asyncio.to_thread(self._exporter.shutdown, 0)
        await asyncio.wait([last])
        logging.getLogger("opentelemetry.exporter").removeHandler(self._said)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._export()

    async def _export(self) -> None:
        data = self._data(await self._scraper.families(), time.time_ns())
        result = await asyncio.to_thread(self._exporter.export, data)
        failed = result is not MetricExportResult.SUCCESS
        if failed and not self._failing:
            self._log.warning("metrics are not taken, will go on trying", reason=self._said.text)
        elif self._failing and not failed:
            self._log.info("metrics are taken again")
        self._failing = failed

    def _data(self, families: Iterable[Metric], now_ns: int) -> MetricsData:
        metrics = [metric for family in families for metric in _exported(family, self._started_ns, now_ns)]
        scope = ScopeMetrics(InstrumentationScope("aiocop_collector", __version__), metrics, schema_url="")
        return MetricsData([ResourceMetrics(self._resource, [scope], schema_url="")])


class _LastSaid(logging.Handler):
    """Why the exporter failed, in its own words."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = " ".join(record.getMessage().split())[:500]


def _exported(family: Metric, started_ns: int, now_ns: int) -> Iterable[ExportedMetric]:
    """A Prometheus family as OpenTelemetry's data model has it (its specification, "Prometheus and OpenMetrics")."""
    unit = next((unit for suffix, unit in _UNITS.items() if family.name.endswith(f"_{suffix}")), "1")
    data: Sum | Gauge | Histogram
    if family.type == "histogram":
        points = _histogram_points(family.samples, started_ns, now_ns)
        data = Histogram(points, _CUMULATIVE)
    else:
        numbers = [
            NumberDataPoint(dict(sample.labels), started_ns, now_ns, sample.value)
            for sample in family.samples
            if not sample.name.endswith("_created")
        ]
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if family.type == "counter" else Gauge(numbers)
    if data.data_points:
        yield ExportedMetric(family.name, family.documentation, unit, data)


def _histogram_points(samples: Sequence[Sample], started_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Prometheus's buckets count all that is not above their bound; OpenTelemetry's, what lies between two bounds."""
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = defaultdict(list)
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        if sample.name.endswith("_bucket"):
            buckets[labels].append((float(sample.labels["le"]), int(sample.value)))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    points = []
    for labels, cumulative in buckets.items():
        cumulative.sort()
        below = [0, *(count for _, count in cumulative)]
        points.append(
            HistogramDataPoint(
                attributes=dict(labels),
                start_time_unix_nano=started_ns,
                time_unix_nano=now_ns,
                count=below[-1],
                sum=sums.get(labels, 0.0),
                bucket_counts=[after - before for before, after in pairwise(below)],
                explicit_bounds=[bound for bound, _ in cumulative[:-1]],  # the last is infinity
                min=float("nan"),
                max=float("nan"),
            )
        )
    return points


def _with_path(endpoint: str) -> str:
    """As OTEL_EXPORTER_OTLP_ENDPOINT is understood: a base, to which the path of metrics is added."""
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(path=_PATH)) if parts.path in ("", "/") else endpoint


def _service_name() -> dict[str, str]:
    """Ours, unless the environment names one."""
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if named else {SERVICE_NAME: "aiocop-collector"}


def _interval_s() -> float:
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or str(_DEFAULT_INTERVAL_MS)
    if not text.isascii() or not text.isdigit() or int(text) < _SHORTEST_INTERVAL_MS:
        raise SettingsError(
            f"environment variable OTEL_METRIC_EXPORT_INTERVAL: {text!r:.40} is not a number of milliseconds from "
            f"{_SHORTEST_INTERVAL_MS} on"
        )
    return int(text) / 1000
