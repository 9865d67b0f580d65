"""Prometheus metrics of one collector: what it committed, how it fares, and what it finds in the store.

Counters are this process's own: they start at zero with it and only grow, which is what `rate()` expects; the sums of
several collectors on one store are right, because each report is committed by one of them. What `_total` cannot say
(agents, lost reports, which a late datagram may take back) is read from the store at each scrape.

Cardinality is bounded whatever agents send: the call sites shown are the costliest `call_sites` of this process,
services beyond MAX_SERVICES and drop reasons beyond MAX_REASONS are counted as `<other>`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as MetricSource

from aiocop_collector.store.activity import Cost
from aiocop_collector.store.loops import LoopTotals
from aiocop_collector.store.size import Size
from aiocop_collector.store.transaction import Outcome
from aiocop_collector.store.writer import StoreStatus
from aiocop_wire import BIN_COUNT, UPPER_EDGES_NS

CALL_SITES: Final = 50
MAX_SERVICES: Final = 1_000
MAX_REASONS: Final = 50
MAX_TRACKED: Final = 50_000
"""Hotspots whose totals are kept, so that the costliest can be told; the first ones seen."""

OTHER: Final = "<other>"

_SERVICE: Final = ("service", "environment")
_CALL_SITE: Final = ("service", "environment", "call_site", "hotspot")
_LAG_EDGE_BINS: Final = range(4, 60, 4)
"""Bins whose upper edges are the buckets of lag: 1 ms, 2 ms, 4 ms, … 8.192 s."""
_COMMIT_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_QUERY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """One service, as the store has it."""

    service: str
    environment: str
    agents: int
    reduced: int
    """Of these, how many have given up detail to keep within their budget."""
    reports_lost: int


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a scrape reads besides the counters kept here."""

    counters: Mapping[str, int]
    status: StoreStatus
    fleet: Sequence[FleetCounts] | None
    """None when the database did not answer."""
    names: Mapping[int, tuple[str, str, str, str]]
    """Labels of `costliest()` by hotspot: service, environment, call site, id."""
    duties: Mapping[str, bool]
    """Which ones this collector stands for, and whether it is elected."""
    size: Size | None = None
    """None when the database did not answer."""


@dataclass(slots=True)
class _Lag:
    """How late the timers of one service ran, since this process started."""

    bins: list[int]
    seconds: float = 0.0


class Metrics:
    """Owns a registry of its own. Used on the event loop's thread only."""

    def __init__(self, *, call_sites: int = CALL_SITES) -> None:
        self._call_sites = call_sites
        self._registry = CollectorRegistry(auto_describe=False)
        self._latest: Scrape | None = None
        self._services: dict[int, tuple[str, str]] = {}
        self._reasons: set[str] = set()
        self._hotspots: dict[int, list[int]] = {}
        self._blocked_s = self._counter("aiocop_blocked_seconds", "Loop time frozen, as committed.", _SERVICE)
        self._calls = self._counter("aiocop_blocking_calls", "Blocking calls counted.", _SERVICE)
        self._slow = self._counter("aiocop_slow_slices", "Over-threshold slices, by each site in them.", _SERVICE)
        self._dropped = self._counter("aiocop_dropped", "What agents had to drop, as they said.", (*_SERVICE, "reason"))
        self._duplicated = self._counter(
            "aiocop_reports_duplicated", "Reports that came again after they were stored.", _SERVICE
        )
        self._loop_s = self._counter("aiocop_loop_seconds", "How long loops were watched.", _SERVICE)
        self._loop_blocked_s = self._counter(
            "aiocop_loop_blocked_seconds", "Of that, in slices over the threshold.", _SERVICE
        )
        self._loop_starved_s = self._counter(
            "aiocop_loop_starved_seconds", "Of that, without a CPU because the host gave none.", _SERVICE
        )
        self._lag: dict[tuple[str, str], _Lag] = {}
        self._commit_s = Histogram(
            "aiocop_collector_commit_seconds",
            "Time of successful commits.",
            buckets=_COMMIT_BUCKETS_S,
            registry=self._registry,
        )
        self._query_s = Histogram(
            "aiocop_collector_query_seconds",
            "Time of answers, by endpoint.",
            ("endpoint",),
            buckets=_QUERY_BUCKETS_S,
            registry=self._registry,
        )
        self._registry.register(_Source(self))

    def count_commit(self, outcome: Outcome, seconds: float) -> None:
        """Call after each commit."""
        self._commit_s.observe(seconds)
        activity = outcome.activity
        for service_id, names in activity.services.items():
            if service_id not in self._services and len(self._services) < MAX_SERVICES:
                self._services[service_id] = names
        by_service: dict[tuple[str, str], Cost] = {}
        for hotspot_id, cost in activity.hotspots.items():
            summed = by_service.setdefault(self._service(cost.service_id), Cost(cost.service_id))
            summed.count += cost.count
            summed.slow_count += cost.slow_count
            summed.blocked_us += cost.blocked_us
            totals = self._hotspots.get(hotspot_id)
            if totals is not None:
                totals[0] += cost.blocked_us
                totals[1] += cost.count
            elif len(self._hotspots) < MAX_TRACKED:
                self._hotspots[hotspot_id] = [cost.blocked_us, cost.count]
        for labels, summed in by_service.items():
            # A counter cannot go down; what a death added to a stall is taken away again where it was none (stalls.py).
            self._blocked_s.labels(*labels).inc(max(0, summed.blocked_us) / 1e6)
            self._calls.labels(*labels).inc(max(0, summed.count))
            self._slow.labels(*labels).inc(max(0, summed.slow_count))
        for service_id, loops in activity.loops.items():
            self._count_loops(self._service(service_id), loops)
        for (service_id, reason), amount in activity.dropped.items():
            if len(self._reasons) < MAX_REASONS:
                self._reasons.add(reason)
            known = reason if reason in self._reasons else OTHER
            self._dropped.labels(*self._service(service_id), known).inc(amount)
        for service_id, amount in activity.duplicated.items():
            self._duplicated.labels(*self._service(service_id)).inc(amount)

    def _count_loops(self, labels: tuple[str, str], loops: LoopTotals) -> None:
        told = loops.named()
        self._loop_s.labels(*labels).inc(told["observed_us"] / 1e6)
        self._loop_blocked_s.labels(*labels).inc(told["blocked_us"] / 1e6)
        self._loop_starved_s.labels(*labels).inc(told["starved_us"] / 1e6)
        lag = self._lag.setdefault(labels, _Lag([0] * BIN_COUNT))
        lag.seconds += told["lag_us"] / 1e6
        for index, count in loops.bins.items():
            lag.bins[index] += count

    def time_query(self, endpoint: str, seconds: float) -> None:
        """Call after each answer, with the path as OpenAPI writes it."""
        self._query_s.labels(endpoint).observe(seconds)

    def costliest(self) -> list[int]:
        """The hotspots whose call sites are shown."""
        by_cost = sorted(self._hotspots, key=lambda one: (-self._hotspots[one][0], one))
        return by_cost[: self._call_sites]

    def page(self, scrape: Scrape) -> bytes:
        """The text of `GET /metrics`."""
        self._latest = scrape
        return generate_latest(self._registry)

    def snapshot(self, scrape: Scrape) -> list[Metric]:
        """What `page` says, as objects."""
        self._latest = scrape
        return list(self._registry.collect())

    def families(self) -> Iterator[Metric]:
        """What is read at a scrape."""
        scrape = self._latest
        if scrape is None:
            return
        blocked_s = CounterMetricFamily(
            "aiocop_call_site_blocked_seconds", "Loop time frozen at the costliest call sites.", labels=_CALL_SITE
        )
        calls = CounterMetricFamily(
            "aiocop_call_site_blocking_calls", "Blocking calls at the costliest call sites.", labels=_CALL_SITE
        )
        for hotspot_id, labels in scrape.names.items():
            blocked_us, count = self._hotspots[hotspot_id]
            blocked_s.add_metric(labels, blocked_us / 1e6)
            calls.add_metric(labels, count)
        yield from (blocked_s, calls)
        yield _lag_family(self._lag)
        yield from _intake(scrape.counters)
        yield _gauge("aiocop_collector_pending_reports", "Reports not yet committed.", scrape.status.pending_reports)
        yield _gauge("aiocop_collector_pending_bytes", "Bytes not yet committed.", scrape.status.pending_bytes)
        yield _gauge("aiocop_collector_database_up", "Whether the database answered.", int(scrape.fleet is not None))
        elected = GaugeMetricFamily("aiocop_collector_elected", "Whether it has the duty.", labels=("duty",))
        for duty, holds in scrape.duties.items():
            elected.add_metric((duty,), int(holds))
        yield elected
        if scrape.size is not None:
            used, files = scrape.size.used_bytes, scrape.size.files_bytes
            yield _gauge("aiocop_collector_database_used_bytes", "What is stored; --max-size limits it.", used)
            yield _gauge("aiocop_collector_database_files_bytes", "Its files, space to be reused included.", files)
        yield from _fleet(scrape.fleet or ())

    def _service(self, service_id: int) -> tuple[str, str]:
        return self._services.get(service_id, (OTHER, OTHER))

    def _counter(self, name: str, text: str, labels: Iterable[str]) -> Counter:
        return Counter(name, text, labels, registry=self._registry)


class _Source(MetricSource):
    """Prometheus's own word for it is collector, which is taken here."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families()


def _lag_family(lag: Mapping[tuple[str, str], _Lag]) -> Metric:
    family = HistogramMetricFamily("aiocop_loop_lag_seconds", "How late timers of loops ran.", labels=_SERVICE)
    for labels, told in lag.items():
        totals = list(accumulate(told.bins))
        buckets: list[tuple[str, float]] = [
            (str(UPPER_EDGES_NS[index] / 1e9), totals[index]) for index in _LAG_EDGE_BINS
        ]
        family.add_metric(labels, [*buckets, ("+Inf", totals[-1])], told.seconds)
    return family


def _intake(counters: Mapping[str, int]) -> Iterator[Metric]:
    """The names of counters.py: reports by transport, refusals by reason, the rest as they are."""
    reports = CounterMetricFamily("aiocop_collector_reports", "Reports taken in.", labels=("transport",))
    refused = CounterMetricFamily("aiocop_collector_refused", "Messages not used.", labels=("reason",))
    for transport in ("unix", "udp"):
        reports.add_metric((transport,), counters.get(f"reports_{transport}", 0))
    for name, total in counters.items():
        if name.startswith("refused_"):
            refused.add_metric((name.removeprefix("refused_"),), total)
        elif name not in ("reports_unix", "reports_udp"):
            yield CounterMetricFamily(f"aiocop_collector_{name}", "See counters in the documentation.", value=total)
    yield from (reports, refused)


def _fleet(fleet: Sequence[FleetCounts]) -> Iterator[Metric]:
    agents = GaugeMetricFamily("aiocop_agents", "Processes that reported in the last five minutes.", labels=_SERVICE)
    reduced = GaugeMetricFamily("aiocop_agents_reduced", "Of these, how many gave up detail.", labels=_SERVICE)
    lost = GaugeMetricFamily("aiocop_reports_lost", "Reports known to be sent and not in the store.", labels=_SERVICE)
    for one in fleet:
        agents.add_metric((one.service, one.environment), one.agents)
        reduced.add_metric((one.service, one.environment), one.reduced)
        lost.add_metric((one.service, one.environment), one.reports_lost)
    yield from (agents, reduced, lost)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
