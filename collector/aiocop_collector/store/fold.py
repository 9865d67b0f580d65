"""Adding reports up: many reports of many agents become one row per (minute, site, release).

Only reports that the transaction has found to be new are folded (see transaction.py), so nothing here decides what
counts. No clock, no database, no I/O. First all reports are added, which only sorts them by site; then it is read.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any, Final

from aiocop_collector.store import ids
from aiocop_collector.store.counts import Key, Rows, add_up, rows_of
from aiocop_collector.store.schema import Resolution
from aiocop_wire import Report, SiteDelta, SlowEvent

MAX_EVENTS_PER_HOTSPOT: Final = 50
"""The most recent slow events kept whole."""

MAX_CLOCK_AHEAD_MS: Final = 86_400_000
"""A report from further in the future than this has a wrong clock: it counts as of now."""

_MAX_SPAN_MS: Final = 60_000
_MINUTE_S: Final = 60
_DAY_S: Final = 86_400


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

    def copy(self) -> "Sighting":
        return Sighting(self.first_seen_ms, self.last_seen_ms, self.first_release_id, self.last_release_id)

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


SeenOn = tuple[int, str]
"""(day_s, agent_id)"""

_site_of: Final = itemgetter(0)  # of a delta: itself no function of Python's, so that map() stays in C


class Fold:
    """One transaction's worth of rows. Filled by `add`, then read; nothing is added after the first reading."""

    def __init__(self, site_ids: SiteIds, *, now_ms: int) -> None:
        self._site_ids = site_ids
        self._now_ms = now_ms
        # Sites are told apart by the agents' own numbers up to the reading: there are many deltas of one site.
        self._deltas: dict[tuple[int, int, int], defaultdict[int, list[SiteDelta]]] = {}  # by minute, service, release
        self._sighted: dict[int, list[tuple[Collection[int], Sighting]]] = {}  # by service_id
        self._seen_on: dict[SeenOn, set[int]] = {}
        self._service_of_agent: dict[str, int] = {}
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
        if report.deltas:
            self._add_deltas(reporter, report.deltas, sighting)
        for position, event in enumerate(report.slow_events):
            self._add_event(reporter, report.sequence, position, event, sighting)

    def _clamp(self, at_ms: int) -> int:
        if at_ms <= self._now_ms + MAX_CLOCK_AHEAD_MS:
            return at_ms
        self.clocks_clamped += 1
        return self._now_ms

    def _add_deltas(self, reporter: Reporter, deltas: tuple[SiteDelta, ...], sighting: Sighting) -> None:
        second = sighting.first_seen_ms // 1000
        group = (second - second % _MINUTE_S, reporter.service_id, reporter.release_id)
        by_site = self._deltas.get(group)
        if by_site is None:
            by_site = self._deltas[group] = defaultdict(list)
        sites = tuple(map(_site_of, deltas))
        for site, delta in zip(sites, deltas, strict=True):
            by_site[site].append(delta)
        self._seen_on.setdefault((second - second % _DAY_S, reporter.agent_id), set()).update(sites)
        self._service_of_agent[reporter.agent_id] = reporter.service_id
        self._sight(reporter, sites, sighting)

    def _add_event(
        self, reporter: Reporter, sequence: int, position: int, event: SlowEvent, sighting: Sighting
    ) -> None:
        sites = tuple([site.site_id for site in event.sites])
        self._sight(reporter, sites, sighting)
        event_id = ids.slow_event_id(bytes.fromhex(reporter.agent_id), sequence, position)
        site_ids = tuple([self._site_ids.of(reporter.service_id, site) for site in sites])
        self.events.append(SampledEvent(event_id, reporter, self._clamp(event.started_at_ms), event, site_ids))

    def _sight(self, reporter: Reporter, sites: Collection[int], sighting: Sighting) -> None:
        self._sighted.setdefault(reporter.service_id, []).append((sites, sighting))

    @property
    def sightings(self) -> Mapping[int, Sighting]:
        """By site, of what was counted or was in a slow event."""
        return self._sites[0]

    @property
    def service_of(self) -> Mapping[int, int]:
        """By site, of the same."""
        return self._sites[1]

    @cached_property
    def _sites(self) -> tuple[dict[int, Sighting], dict[int, int]]:
        sightings: dict[int, Sighting] = {}
        service_of: dict[int, int] = {}
        for service_id, sighted in self._sighted.items():
            # Of those that saw a site at the same moment, the first one added and the last one count.
            backwards = sighted[::-1]  # sorted() keeps the order of what is equal, also with reverse=True
            first = _last_put(sorted(backwards, key=_first_seen_ms, reverse=True))
            last = _last_put(sorted(sighted, key=_last_seen_ms))
            for site, begin in first.items():
                site_id, end = self._site_ids.of(service_id, site), last[site]
                service_of[site_id] = service_id
                sightings[site_id] = Sighting(
                    begin.first_seen_ms, end.last_seen_ms, begin.first_release_id, end.last_release_id
                )
        return sightings, service_of

    def seen_by(self) -> Iterator[tuple[str, set[int]]]:
        """Agents, and the sites that each has counted."""
        for (_, agent_id), sites in self._seen_on.items():
            of, service_id = self._site_ids.of, self._service_of_agent[agent_id]
            yield agent_id, {of(service_id, site) for site in sites}

    def presence(self, known: Mapping[SeenOn, set[int]]) -> dict[SeenOn, set[int]]:
        """Who counted what on which day beyond what is known: sites by the agents' own numbers."""
        new = {seen_on: sites - known.get(seen_on, set()) for seen_on, sites in self._seen_on.items()}
        return {seen_on: sites for seen_on, sites in new.items() if sites}

    def presence_rows(self, presence: Mapping[SeenOn, Iterable[int]]) -> list[tuple[int, int, str]]:
        """Rows of presence: (day_s, site_id, agent_id), sorted."""
        of = self._site_ids.of
        return sorted(
            (day_s, of(self._service_of_agent[agent_id], site), agent_id)
            for (day_s, agent_id), sites in presence.items()
            for site in sites
        )

    @cached_property
    def _minutes(self) -> Mapping[Key, SiteDelta]:
        """What each site counted in each minute, all its deltas added up."""
        of = self._site_ids.of
        return {
            (minute_s, of(service_id, site), release_id): add_up(deltas)
            for (minute_s, service_id, release_id), by_site in self._deltas.items()
            for site, deltas in by_site.items()
        }

    def costs(self) -> dict[int, tuple[int, int, int]]:
        """By site: count, slow_count, blocked_us."""
        costs: dict[int, tuple[int, int, int]] = {}
        for (_, site_id, _), (_, count, slow_count, blocked_us, _, _) in self._minutes.items():
            known = costs.get(site_id, (0, 0, 0))
            costs[site_id] = (known[0] + count, known[1] + slow_count, known[2] + blocked_us)
        return costs

    def minutes_of(self, site_ids: Collection[int]) -> set[int]:
        """The minutes, as Unix seconds of their start, in which any of the sites was counted."""
        return {bucket_s for bucket_s, site_id, _ in self._minutes if site_id in site_ids}

    def minutes(self) -> set[int]:
        """The minutes, as Unix seconds of their start, in which anything was counted."""
        return {bucket_s for bucket_s, _, _ in self._deltas}

    def rows(self, resolutions: Iterable[Resolution]) -> Iterator[tuple[Resolution, Rows]]:
        """Rows of roll-ups and histograms for each resolution, finest first."""
        return rows_of(self._minutes, resolutions)

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


def _last_put(sighted: Iterable[tuple[Collection[int], Sighting]]) -> dict[int, Sighting]:
    """By site, the last sighting that has it."""
    found: dict[int, Sighting] = {}
    for sites, sighting in sighted:
        found.update(dict.fromkeys(sites, sighting))
    return found


def _first_seen_ms(sighted: tuple[Collection[int], Sighting]) -> int:
    return sighted[1].first_seen_ms


def _last_seen_ms(sighted: tuple[Collection[int], Sighting]) -> int:
    return sighted[1].last_seen_ms


def _by_time(event: SampledEvent) -> tuple[int, int]:
    return (event.started_at_ms, event.id)
