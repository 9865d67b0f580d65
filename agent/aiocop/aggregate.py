"""Counters per site: written by the loops' threads without a lock, read by the shipper's thread.

Who writes what. A SiteCounters belongs to one loop thread, which alone writes its totals; they only grow. The shipper's
thread remembers in fields of its own what it has taken, so a window is the difference of two readings: whatever moment
it reads at, nothing is lost and nothing is counted twice. Fields read in the middle of an update (a count without its
time) meet in the next window. The bins are copied by `list(dict.items())`, one bytecode under the GIL.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final

from aiocop.loop_health import LoopHealth
from aiocop.shipping.loop_deltas import merge_loops
from aiocop.shipping.report_source import Window
from aiocop.traces import Site, Traces
from aiocop_wire import Define, Health, Overhead, SiteDelta, SlowEvent

MAX_SITES_PER_THREAD: Final = 4_000
"""A thread that sees more different sites counts the new ones at `<other>`, by operation `other`."""
MAX_SLOW_EVENTS: Final = 1_000
"""Slow events waiting to be shipped; later ones are dropped and counted."""


class SiteCounters:
    """What one loop thread counted at one site, since the process began."""

    __slots__ = (
        "bins",
        "blocked_ns",
        "count",
        "maximum_ns",
        "site",
        "site_id",
        "slice_blocked_ns",
        "slice_count",
        "slice_started_ns",
        "slow_count",
        "taken",
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        self.site_id = site.definition.site_id
        # Written by the loop's thread, read by the shipper's.
        self.count = 0
        self.slow_count = 0
        self.blocked_ns = 0
        self.bins: dict[int, int] = {}
        self.maximum_ns = [0]
        """Longest time since the shipper last put a new list here. The list it took away may still receive one last
        value from the loop's thread; it looks there again at the next take."""
        # Written and read by the loop's thread: its part of the running slice.
        self.slice_started_ns = 0
        self.slice_blocked_ns = 0
        self.slice_count = 0
        # Written and read by the shipper's thread.
        self.taken = _Taken()


class _Taken:
    """What the shipper has taken from one SiteCounters."""

    __slots__ = ("bins", "blocked_us", "count", "previous_maximum_ns", "reported_maximum_ns", "slow_count")

    def __init__(self) -> None:
        self.count = 0
        self.slow_count = 0
        self.blocked_us = 0
        self.bins: dict[int, int] = {}
        self.previous_maximum_ns = [0]
        self.reported_maximum_ns = 0


class CounterTable:
    """What one loop thread counted. `by_key` is a cache of what a stack means; `by_site` is the truth."""

    __slots__ = ("by_key", "by_site", "dropped_slow_events", "health", "loop", "slices")

    def __init__(self, thread_name: str = "") -> None:
        self.health = LoopHealth(thread_name)
        self.loop = ""
        """The kind of loop that ran here last; empty before its first slow or blocking slice, where nobody knew."""
        self.by_key: dict[tuple[object, ...], SiteCounters] = {}
        self.by_site: dict[int, SiteCounters] = {}
        self.slices = 0
        self.dropped_slow_events = 0

    def counters(self, site: Site, other: Site) -> SiteCounters:
        """The counters of a site; those of `other` when there are too many sites already."""
        identifier = site.definition.site_id
        known = self.by_site.get(identifier)
        if known is not None:
            return known
        if len(self.by_site) >= MAX_SITES_PER_THREAD and site is not other:
            return self.counters(other, other)
        known = self.by_site[identifier] = SiteCounters(site)
        return known

    def remember(self, key: tuple[object, ...], counters: SiteCounters) -> None:
        """Keep what a key means; forget all keys when there are far more than sites."""
        if len(self.by_key) >= 4 * MAX_SITES_PER_THREAD:
            self.by_key.clear()
        self.by_key[key] = counters


class Aggregate:
    """Everything counted in this process and not yet taken by the shipper."""

    def __init__(
        self,
        traces: Traces,
        watchdog_cpu_ns: Callable[[], int] = int,
        overhead: Callable[[], Overhead | None] = lambda: None,
    ) -> None:
        self._traces = traces
        self._watchdog_cpu_ns = watchdog_cpu_ns
        self._overhead = overhead
        self.other = traces.other_site
        self._tables: dict[int, CounterTable] = {}
        """Live tables by an id of their own. A thread adds its own (atomic); the shipper's thread removes the dead."""
        self._retired: deque[int] = deque()
        """Tables whose thread has ended; the shipper folds them into `_past` once it has taken everything."""
        self._past_count = 0
        self._past_slices = 0
        self._past_dropped = 0
        self.slow_events: deque[SlowEvent] = deque()
        """Appended by loop threads while shorter than MAX_SLOW_EVENTS, emptied by the shipper's."""

    def add_table(self, number: int, table: CounterTable) -> None:
        """Called once by each new loop thread."""
        self._tables[number] = table

    def retire_table(self, number: int) -> None:
        """The thread of a table has ended. Called by that thread as it ends."""
        self._retired.append(number)

    def offer_slow_event(self, table: CounterTable, event: SlowEvent) -> None:
        """Queue a slow event for shipping, or count it as dropped."""
        # A capture always has room: they are few, and somebody waits for them.
        if len(self.slow_events) >= MAX_SLOW_EVENTS and event.capture is None:
            table.dropped_slow_events += 1
        else:
            self.slow_events.append(event)

    # --- the shipper's thread only ------------------------------------------------------------------------------------

    def take(self) -> Window:
        """All that was counted, and every slow event queued, since the last take."""
        events = self.slow_events
        loops = merge_loops([table.health.take(number, table.loop) for number, table in list(self._tables.items())])
        deltas = self._take_deltas()
        return Window(deltas, tuple([events.popleft() for _ in range(len(events))]), self.dropped(), loops)

    def _take_deltas(self) -> tuple[SiteDelta, ...]:
        merged: dict[int, list[SiteDelta]] = {}
        retired = [self._retired.popleft() for _ in range(len(self._retired))]
        for table in list(self._tables.values()):
            for counters in list(table.by_site.values()):
                delta = _take(counters)
                if delta is not None:
                    merged.setdefault(delta.site_id, []).append(delta)
        for number in retired:
            self._bury(number)
        return tuple([_merge(deltas) for deltas in merged.values()])

    def _bury(self, number: int) -> None:
        table = self._tables.pop(number, None)
        if table is not None:
            self._past_count += sum(counters.count for counters in table.by_site.values())
            self._past_slices += table.slices
            self._past_dropped += table.dropped_slow_events

    # --- any thread ---------------------------------------------------------------------------------------------------

    def define(self, site_ids: Collection[int], trace_ids: Collection[int]) -> Define:
        """The static facts of some sites and traces; ids this process does not know are left out."""
        sites = [
            self._traces.sites[identifier].definition for identifier in site_ids if identifier in self._traces.sites
        ]
        traces = [self._traces.traces[identifier] for identifier in trace_ids if identifier in self._traces.traces]
        return Define(tuple(sites), tuple(traces))

    def recorded(self) -> int:
        """Blocking calls counted in this process."""
        return self._past_count + sum(
            counters.count for table in list(self._tables.values()) for counters in list(table.by_site.values())
        )

    def slices(self) -> int:
        """Slices run in this process."""
        return self._past_slices + sum(table.slices for table in list(self._tables.values()))

    def health(self) -> Health:
        """Totals of the agent, without the shipper's CPU time, which the shipper adds."""
        return Health(
            recorded=self.recorded(),
            slices=self.slices(),
            agent_cpu_us=self._watchdog_cpu_ns() // 1_000,
            overhead=self._overhead(),
        )

    def dropped(self) -> dict[str, int]:
        """What was dropped before the shipper could take it, by reason."""
        events = self._past_dropped + sum(table.dropped_slow_events for table in list(self._tables.values()))
        return {"queue_full_events": events} if events else {}


def _take(counters: SiteCounters) -> SiteDelta | None:
    taken = counters.taken
    count = counters.count
    slow_count = counters.slow_count
    blocked_us = counters.blocked_ns // 1_000
    if count == taken.count and slow_count == taken.slow_count and blocked_us == taken.blocked_us:
        return None
    sparse: list[int] = []
    for index, total in sorted(list(counters.bins.items())):  # noqa: C414 - the copy must be one step, see above
        added = total - taken.bins.get(index, 0)
        if added:
            sparse += (index, added)
            taken.bins[index] = total
    maximum = counters.maximum_ns
    counters.maximum_ns = [0]
    late_ns = taken.previous_maximum_ns[0]
    maximum_ns = max(maximum[0], late_ns if late_ns != taken.reported_maximum_ns else 0)
    delta = SiteDelta(
        site_id=counters.site.definition.site_id,
        count=count - taken.count,
        slow_count=slow_count - taken.slow_count,
        blocked_us=blocked_us - taken.blocked_us,
        max_us=maximum_ns // 1_000,
        bins=tuple(sparse),
    )
    taken.count = count
    taken.slow_count = slow_count
    taken.blocked_us = blocked_us
    taken.previous_maximum_ns = maximum
    taken.reported_maximum_ns = maximum[0]
    return delta


def _merge(deltas: Iterable[SiteDelta]) -> SiteDelta:
    """The same site on several threads as one delta."""
    first, *rest = deltas
    if not rest:
        return first
    every = (first, *rest)
    bins: dict[int, int] = {}
    for delta in every:
        for position in range(0, len(delta.bins), 2):
            index = delta.bins[position]
            bins[index] = bins.get(index, 0) + delta.bins[position + 1]
    return SiteDelta(
        site_id=first.site_id,
        count=sum(delta.count for delta in every),
        slow_count=sum(delta.slow_count for delta in every),
        blocked_us=sum(delta.blocked_us for delta in every),
        max_us=max(delta.max_us for delta in every),
        bins=tuple([part for item in sorted(bins.items()) for part in item]),
    )
