"""Adding reports up: many reports of many agents become one row per (minute, site, release).

Only reports that the transaction has found to be new are folded (see transaction.py), so nothing here decides what
counts. No clock, no database, no I/O. Cost: about 1 µs per delta that hits a row already there.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from aiocop_collector.store import ids
from aiocop_collector.store.schema import Resolution
from aiocop_wire import BIN_COUNT, Report, SlowEvent

MAX_EVENTS_PER_HOTSPOT: Final = 50
"""The most recent slow events kept whole."""

MAX_CLOCK_AHEAD_MS: Final = 86_400_000
"""A report from further in the future than this has a wrong clock: it counts as of now."""

_MAX_SPAN_MS: Final = 60_000
MAX_TOTAL: Final = 1 << 42
"""Most that one commit adds to one number (50 days, in microseconds): a hostile agent cannot make a day's column
overflow, which would make the database refuse everybody else's reports for it."""
_SPAN_STEP: Final = 8  # spans start and end at multiples of it, so that there are at most 66 statements
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400

Key = tuple[int, int, int]
"""(bucket_s, site_id, release_id): the primary key of roll-ups and histograms."""


Span = tuple[int, int]
"""First bin, and the one after the last."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Whose reports are folded, by the ids of the store."""

    agent_id: str
    service_id: int
    release_id: int


@dataclass(slots=True)
class Sighting:
    """First and last time something was seen, and in which release."""

    first_seen_ms: int
    last_seen_ms: int
    first_release_id: int
    last_release_id: int

    def widen(self, other: "Sighting") -> None:
        """Take in another sighting of the same thing."""
        if other.first_seen_ms < self.first_seen_ms:
            self.first_seen_ms, self.first_release_id = other.first_seen_ms, other.first_release_id
        if other.last_seen_ms >= self.last_seen_ms:
            self.last_seen_ms, self.last_release_id = other.last_seen_ms, other.last_release_id


@dataclass(frozen=True, slots=True)
class SampledEvent:
    """A slow event with its sites by this store's ids."""

    id: int
    reporter: Reporter
    started_at_ms: int
    event: SlowEvent
    site_ids: tuple[int, ...]

    def to_json(self) -> str:
        """The text of slow_events.event."""
        event = self.event
        return json.dumps(
            {
                "started_at_ms": self.started_at_ms,
                "elapsed_us": event.elapsed_us,
                "threshold_us": event.threshold_us,
                "cause": event.cause,
                "severity_score": event.severity_score,
                "sites": [
                    {
                        "site_id": site_id,
                        "count": site.count,
                        "blocked_us": site.blocked_us,
                        "trace_id": ids.trace_id(site_id, site.trace_id) if site.trace_id else None,
                        "arguments": dict(site.arguments),
                    }
                    for site_id, site in zip(self.site_ids, event.sites, strict=True)
                ],
                "task_name": event.task_name,
                "thread_name": event.thread_name,
                "loop": event.loop,
                "cpu_us": event.cpu_us,
                "gc_us": event.gc_us,
                "context": dict(event.context),
                "capture": None if event.capture is None else ids.to_hex(ids.to_signed(event.capture.request_id)),
                "waiting": event.waiting if event.waiting >= 0 else None,
            },
            separators=(",", ":"),
        )


class SiteIds:
    """Store ids of the sites agents name; a hash each, remembered for the busiest."""

    def __init__(self, *, most: int = 1 << 16) -> None:
        self.of: Callable[[int, int], int] = lru_cache(maxsize=most)(ids.site_id)
        """`of(service_id, wire_site)`"""


class Fold:
    """One transaction's worth of rows. Filled by `add`, then read."""

    def __init__(self, site_ids: SiteIds, *, now_ms: int) -> None:
        self._site_ids = site_ids
        self._now_ms = now_ms
        self._counters: dict[Key, list[int]] = {}
        self._bins: dict[Key, dict[int, int]] = {}
        self.sightings: dict[int, Sighting] = {}
        """By site, of what was counted."""
        self.service_of: dict[int, int] = {}
        """By site, of what was counted."""
        self._seen_on: dict[tuple[int, str], set[int]] = {}
        self.events: list[SampledEvent] = []
        self.clocks_clamped = 0

    def sighting(self, reporter: Reporter, report: Report | None) -> Sighting:
        """When and in which release the agent saw what is in the report; without a report, now."""
        if report is None:
            return Sighting(self._now_ms, self._now_ms, reporter.release_id, reporter.release_id)
        started_at_ms = self._clamp(report.started_at_ms)
        ended_at_ms = started_at_ms + min(report.span_ms, _MAX_SPAN_MS)
        return Sighting(started_at_ms, ended_at_ms, reporter.release_id, reporter.release_id)

    def add(self, reporter: Reporter, report: Report, sighting: Sighting) -> None:
        """Fold one new report, dated by `sighting`."""
        self._add_deltas(reporter, report, sighting)
        for position, event in enumerate(report.slow_events):
            self._add_event(reporter, report.sequence, position, event, sighting)

    def _clamp(self, at_ms: int) -> int:
        if at_ms <= self._now_ms + MAX_CLOCK_AHEAD_MS:
            return at_ms
        self.clocks_clamped += 1
        return self._now_ms

    def _add_deltas(self, reporter: Reporter, report: Report, sighting: Sighting) -> None:
        site_id_of, service_id, release_id = self._site_ids.of, reporter.service_id, reporter.release_id
        second = sighting.first_seen_ms // 1000
        minute_s = second - second % _MINUTE_S
        day_s = second - second % _DAY_S
        counters, all_bins = self._counters, self._bins
        site_ids = [site_id_of(service_id, delta.site_id) for delta in report.deltas]
        for site_id, delta in zip(site_ids, report.deltas, strict=True):
            key = (minute_s, site_id, release_id)
            row = counters.get(key)
            if row is None:
                counters[key] = [delta.count, delta.slow_count, delta.blocked_us, delta.max_us]
                bins = all_bins[key] = {}
            else:
                row[0] += delta.count
                row[1] += delta.slow_count
                row[2] += delta.blocked_us
                if delta.max_us > row[3]:
                    row[3] = delta.max_us
                bins = all_bins[key]
            sparse = delta.bins
            for position in range(0, len(sparse), 2):
                index = sparse[position]
                bins[index] = bins.get(index, 0) + sparse[position + 1]
        self._seen_on.setdefault((day_s, reporter.agent_id), set()).update(site_ids)
        for site_id in site_ids:
            self._sight(reporter, site_id, sighting)

    def _add_event(
        self, reporter: Reporter, sequence: int, position: int, event: SlowEvent, sighting: Sighting
    ) -> None:
        site_ids = tuple([self._site_ids.of(reporter.service_id, site.site_id) for site in event.sites])
        for site_id in site_ids:
            self._sight(reporter, site_id, sighting)
        event_id = ids.slow_event_id(bytes.fromhex(reporter.agent_id), sequence, position)
        self.events.append(SampledEvent(event_id, reporter, self._clamp(event.started_at_ms), event, site_ids))

    def _sight(self, reporter: Reporter, site_id: int, sighting: Sighting) -> None:
        known = self.sightings.get(site_id)
        if known is None:
            self.sightings[site_id] = replace(sighting)
            self.service_of[site_id] = reporter.service_id
        else:
            known.widen(sighting)

    def presence(self) -> set[tuple[int, int, str]]:
        """Rows of presence: (day_s, site_id, agent_id)."""
        return {(day_s, site_id, agent_id) for (day_s, agent_id), sites in self._seen_on.items() for site_id in sites}

    def costs(self) -> dict[int, tuple[int, int, int]]:
        """By site: count, slow_count, blocked_us."""
        costs: dict[int, tuple[int, int, int]] = {}
        for (_, site_id, _), (count, slow_count, blocked_us, _) in self._counters.items():
            known = costs.get(site_id, (0, 0, 0))
            costs[site_id] = (known[0] + count, known[1] + slow_count, known[2] + blocked_us)
        return costs

    def minutes_of(self, site_ids: Collection[int]) -> set[int]:
        """The minutes, as Unix seconds of their start, in which any of the sites was counted."""
        return {bucket_s for bucket_s, site_id, _ in self._counters if site_id in site_ids}

    def minutes(self) -> set[int]:
        """The minutes, as Unix seconds of their start, in which anything was counted."""
        return {bucket_s for bucket_s, _, _ in self._counters}

    def rollups(self, resolution: Resolution) -> list[tuple[int, ...]]:
        """Rows of a roll-up table, in the order of its columns, sorted by key."""
        merged: dict[Key, list[int]] = {}
        for (bucket_s, site_id, release_id), row in self._counters.items():
            key = (bucket_s - bucket_s % resolution.seconds, site_id, release_id)
            known = merged.get(key)
            if known is None:
                merged[key] = list(row)
            else:
                for index in range(3):
                    known[index] += row[index]
                known[3] = max(known[3], row[3])
        return [(*key, *[min(value, MAX_TOTAL) for value in merged[key]]) for key in sorted(merged)]

    def histograms(self, resolution: Resolution) -> dict[Span, list[tuple[int | None, ...]]]:
        """Rows of a histogram table by the span of bins they fill: the key, then a value for each bin of the span.

        A row fills few of the 86 columns, and binding and merging all of them measured five times slower. A site that
        sent no bins has no row.
        """
        merged: dict[Key, dict[int, int]] = {}
        for (bucket_s, site_id, release_id), bins in self._bins.items():
            if not bins:
                continue
            known = merged.setdefault((bucket_s - bucket_s % resolution.seconds, site_id, release_id), {})
            for index, count in bins.items():
                known[index] = known.get(index, 0) + count
        rows: dict[Span, list[tuple[int | None, ...]]] = {}
        for key in sorted(merged):
            bins = merged[key]
            first, end = filled_span(bins)
            values: list[int | None] = [None] * (end - first)
            for index, count in bins.items():
                values[index - first] = min(count, MAX_TOTAL)
            rows.setdefault((first, end), []).append((*key, *values))
        return rows

    def event_rows(self, hotspot_of: Mapping[int, int]) -> list[tuple[Any, ...]]:
        """Rows of slow_events, the most recent ones of each hotspot, sorted by key."""
        by_hotspot: dict[int, list[SampledEvent]] = {}
        for event in self.events:
            for hotspot_id in {hotspot_of[site_id] for site_id in event.site_ids}:
                by_hotspot.setdefault(hotspot_id, []).append(event)
        rows = [
            (
                event.id,
                hotspot_id,
                event.reporter.agent_id,
                event.started_at_ms,
                event.event.elapsed_us,
                event.event.cause,
                event.to_json(),
            )
            for hotspot_id, events in by_hotspot.items()
            for event in sorted(events, key=_by_time)[-MAX_EVENTS_PER_HOTSPOT:]
        ]
        return sorted(rows)


def filled_span(bins: Collection[int]) -> Span:
    """The span of columns that holds these bins."""
    return min(bins) // _SPAN_STEP * _SPAN_STEP, min((max(bins) // _SPAN_STEP + 1) * _SPAN_STEP, BIN_COUNT)


def _by_time(event: SampledEvent) -> tuple[int, int]:
    return (event.started_at_ms, event.id)
