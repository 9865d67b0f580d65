"""Where every blocking call and slow event is on its way to the collector.

    recorded = acknowledged (udp: sent) + pending + dropped by reason

holds whenever it is asked, because every move between the stations is one step under one lock. The shipper's thread
moves; any thread reads. No loop ever waits for this lock while it runs a callback, unless it asks for statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from aiocop._stdlib import RLock
from aiocop_wire.light_typing import NamedTuple

EVENTS_SUFFIX: Final = "_events"
"""Drop reasons that end in this count slow events; the others count blocking calls."""


class Balance(NamedTuple):
    """One consistent look at the ledger, in blocking calls unless the name says events."""

    recorded: int
    delivered: int
    pending: int
    shipped: int
    dropped: Mapping[str, int]
    slow_events_delivered: int
    slow_events_pending: int


class Ledger:
    """Counts what was taken from the source, what is queued, what is in flight and what is delivered."""

    def __init__(self, recorded: Callable[[], int]) -> None:
        self._recorded = recorded
        # Re-entrant: a signal handler may ask while the thread it interrupted is asking. Only readers run on the thread
        # that handles signals, so what it sees is whole.
        self._lock = RLock()
        # All written by the shipper's thread, under the lock.
        self._queued = 0
        self._in_flight = 0
        self._delivered = 0
        self._queued_events = 0
        self._in_flight_events = 0
        self._delivered_events = 0
        self._source_dropped: Mapping[str, int] = {}
        self._own_dropped: dict[str, int] = {}

    def take(self, calls: int, events: int, source_dropped: Mapping[str, int]) -> None:
        """The source handed these over; its drops are totals."""
        with self._lock:
            self._queued += calls
            self._queued_events += events
            self._source_dropped = dict(source_dropped)

    def drop_queued_events(self, events: int, reason: str) -> None:
        with self._lock:
            self._queued_events -= events
            self._own_dropped[reason] = self._own_dropped.get(reason, 0) + events

    def dispatch(self, calls: int, events: int) -> None:
        """From the queue into reports that will not change any more."""
        with self._lock:
            self._queued -= calls
            self._in_flight += calls
            self._queued_events -= events
            self._in_flight_events += events

    def deliver(self, calls: int, events: int) -> None:
        """Acknowledged by the collector (udp: accepted by the kernel)."""
        with self._lock:
            self._in_flight -= calls
            self._delivered += calls
            self._in_flight_events -= events
            self._delivered_events += events

    def drop_in_flight(self, calls: int, events: int, reason: str) -> None:
        """A report that will not be sent again. Its events are counted as `reason` with the suffix of events."""
        with self._lock:
            self._in_flight -= calls
            self._in_flight_events -= events
            for name, count in ((reason, calls), (reason + EVENTS_SUFFIX, events)):
                if count:
                    self._own_dropped[name] = self._own_dropped.get(name, 0) + count

    def dropped(self) -> dict[str, int]:
        """Totals by reason, the source's and the shipper's."""
        with self._lock:
            return self._all_dropped()

    def _all_dropped(self) -> dict[str, int]:
        total = dict(self._source_dropped)
        for reason, count in self._own_dropped.items():
            total[reason] = total.get(reason, 0) + count
        return total

    def balance(self) -> Balance:
        with self._lock:
            dropped = self._all_dropped()
            dropped_calls = sum(count for reason, count in dropped.items() if not reason.endswith(EVENTS_SUFFIX))
            held = self._queued + self._in_flight
            accounted = self._delivered + held + dropped_calls
            # Under the lock nothing is taken, so what the source counts above the accounted is what it still holds.
            # It counts on meanwhile, and may count a call just after handing it over: never less than the accounted.
            recorded = max(self._recorded(), accounted)
            return Balance(
                recorded=recorded,
                delivered=self._delivered,
                pending=recorded - accounted + held,
                shipped=self._in_flight + self._delivered,
                dropped=dropped,
                slow_events_delivered=self._delivered_events,
                slow_events_pending=self._queued_events + self._in_flight_events,
            )
