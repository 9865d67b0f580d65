"""A small real source for the shipper: it counts blocking calls into sites, from any thread."""

import threading
from collections.abc import Collection

from aiocop.shipping.report_source import Window
from aiocop_wire import (
    Define,
    Frame,
    Health,
    SiteDefinition,
    SiteDelta,
    SlowEvent,
    SlowSite,
    TraceDefinition,
    bin_of,
    fingerprint,
    site_id,
)


class CountingSource:
    """Sites are numbered from 0; `count(site)` is one blocking call of one millisecond there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sites: dict[int, SiteDefinition] = {}
        self._counts: dict[int, int] = {}
        self._events: list[SlowEvent] = []
        self._recorded = 0
        self._spoiled = False
        self.dropped: dict[str, int] = {}
        self.takes = 0
        self.totals: dict[int, int] = {}

    def count(self, site: int = 0, times: int = 1) -> None:
        definition = self.definition(site)
        with self._lock:
            self._sites[definition.site_id] = definition
            self._counts[definition.site_id] = self._counts.get(definition.site_id, 0) + times
            self.totals[definition.site_id] = self.totals.get(definition.site_id, 0) + times
            self._recorded += times

    def slow_event(self, site: int = 0, **fields: object) -> None:
        number = self.definition(site).site_id
        event = SlowEvent(
            **{
                "started_at_ms": 1_700_000_000_000,
                "elapsed_us": 50_000,
                "threshold_us": 30_000,
                "cause": "io",
                "severity_score": 10,
                "sites": (SlowSite(number, 1, 50_000, trace_id=number ^ 1),),
                **fields,
            }
        )
        with self._lock:
            self._sites[number] = self.definition(site)
            self._events.append(event)

    def drop(self, reason: str, calls: int) -> None:
        """Calls that were seen and could not be kept."""
        with self._lock:
            self.dropped[reason] = self.dropped.get(reason, 0) + calls
            self._recorded += calls

    def spoil_next_window(self, calls: int) -> None:
        """Count `calls` in a way that breaks the protocol: as a time that is negative."""
        self.count(0, calls)
        with self._lock:
            self._spoiled = True

    @staticmethod
    def definition(site: int) -> SiteDefinition:
        frames = (Frame("socket.py", 836, "create_connection", 2), Frame("shop/orders.py", site + 1, "create_order"))
        number = fingerprint([(frame.path, frame.function, frame.line) for frame in frames])
        return SiteDefinition(
            site_id=site_id("open", number),
            operation="open",
            fingerprint=number,
            cause="io",
            reason="io_blocking",
            weight=10,
            frames=frames,
            call_site=1,
            advice="Use asyncio.to_thread().",
        )

    # What the shipper asks

    def take(self) -> Window:
        with self._lock:
            counts, self._counts = self._counts, {}
            events, self._events = self._events, []
            self.takes += 1
            one_ms_bin = bin_of(1_000_000)
            call_us, self._spoiled = (-1, False) if self._spoiled else (1000, False)
            deltas = tuple(
                SiteDelta(number, count, 0, call_us * count, 1000, (one_ms_bin, count))
                for number, count in counts.items()
            )
            return Window(deltas, tuple(events), dict(self.dropped))

    def define(self, site_ids: Collection[int], trace_ids: Collection[int]) -> Define:
        with self._lock:
            sites = tuple(self._sites[number] for number in site_ids if number in self._sites)
            traces = tuple(
                TraceDefinition(number, number ^ 1, self._sites[number ^ 1].frames)
                for number in trace_ids
                if number ^ 1 in self._sites
            )
        return Define(sites, traces)

    def recorded(self) -> int:
        with self._lock:
            return self._recorded

    def health(self) -> Health:
        return Health(recorded=self.recorded(), slices=7, agent_cpu_us=0)
