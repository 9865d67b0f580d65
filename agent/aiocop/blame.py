"""Whose the time of a slice was: measured calls', another thread's, the host's, or that of lines the watchdog saw.

Nothing here runs but for calls and slices above the threshold.
"""

from __future__ import annotations

import logging
from types import FrameType
from typing import Any, Final

from aiocop._stdlib import perf_counter_ns
from aiocop.aggregate import Aggregate
from aiocop.attribution import (
    EndedCall,
    Moment,
    Sample,
    gil_wait_ns,
    is_recent,
    is_waiting,
    looks_since,
    may_have_computed,
    shares,
    starved_ns,
    tells,
    waited_ns,
    worked_ns,
)
from aiocop.callback_names import callback_code
from aiocop.catalogue import CPU, GC, GIL, WAIT
from aiocop.detail import FULL, NOTHING_NEW
from aiocop.gc_pauses import GarbagePauses, Pause
from aiocop.loop_thread import LoopThread
from aiocop.loop_threads import LoopThreads
from aiocop.starvation import Starvation, switch_interval_ns
from aiocop.traces import COLLECTOR, LOOP, UNKNOWN_HOLDER, Site, Traces
from aiocop.workers import Workers

_logger = logging.getLogger("aiocop")
_UNSEEN_NS: Final = 1_000_000
"""Time of a slow slice that no wrapper measured is attributed from here on; less is noise of the clocks."""
_LATE_SWITCHES: Final = 2
"""A wait for the GIL ends up to so many switch intervals after its holder's work: the holder is asked, and goes on."""
_MAX_ENDED_CALLS: Final = 64
"""Long calls of a slice of which is kept when they were. Of earlier ones only the sum of their times is known."""


class Blame(LoopThreads):
    """The loop threads, and how the time of their slow slices is divided."""

    def __init__(self, *, threshold_ns: int, traces: Traces, aggregate: Aggregate) -> None:
        super().__init__(aggregate)
        self.threshold_ns = threshold_ns
        self.traces = traces
        self.gc_pauses = GarbagePauses(traces.names, self._interrupt)
        self.workers = Workers(traces, self.gc_pauses)
        self.starvation = Starvation(self.workers)
        self.shipping = False
        """Whether slow events are queued for a shipper."""
        self.faults = 0
        """Slices that could not be accounted for."""
        self.level = FULL
        """How closely blocking calls are looked at (detail.py). Read once per call; the governor writes it. Whatever a
        call reads in the middle of a change, it is counted once."""

    @property
    def keeps_traces(self) -> bool:
        """Whether full traces are kept of the sites that are seen."""
        return self.shipping and self.level < NOTHING_NEW

    def fault(self) -> None:
        """Count an exception of the agent's own, and log the first. Call it in an `except` clause."""
        self.faults += 1
        if self.faults == 1:
            _logger.exception("aiocop failed to account for something; further faults are only counted")

    # --- garbage collection -------------------------------------------------------------------------------------------

    def _interrupt(self, pause: Pause, frame: FrameType) -> None:
        """Account for a pause of the collector that interrupted `frame` on this thread, if that was in a slice."""
        thread = self.threads.get(pause.ident)
        if thread is None or not thread.started_ns:
            return
        site = self.traces.pseudo_site(GC, COLLECTOR)
        elapsed_ns = pause.ended_ns - pause.began_ns
        thread.nested_ns += elapsed_ns
        thread.gc_ns += elapsed_ns
        thread.record(thread.counters(site, self.aggregate.other), elapsed_ns)
        if self.keeps_traces:
            self.traces.keep_trace(site, self.traces.stack(frame, self.traces.kept_depth))

    # --- time that others took ----------------------------------------------------------------------------------------

    def others_ns(self, thread: LoopThread, started_ns: int, elapsed_ns: int, own_ns: int) -> int:
        """Time of a long call, which just ended, that others took: the host, and who held the GIL, who is given it."""
        try:
            now = Moment(perf_counter_ns(), thread.clock.read())
            host_ns = starved_ns(thread.glimpse, now, own_ns) + self.starvation.just_stopped_ns(own_ns)
            # Less of it went on while the call had to wait anyway.
            host_ns = min(host_ns, own_ns) if 10 * host_ns >= 9 * own_ns else 0
            thread.excused_ns += host_ns
            looks = self._looks_since(thread, started_ns, now)
            around = [call for call in thread.ended_calls if call.began_ns < started_ns]
            elsewhere = [(call.began_ns, call.ended.at_ns) for call in thread.ended_calls[len(around) :]]
            elsewhere.append((looks[0].at_ns, started_ns))
            explained_ns = max(0, started_ns - looks[0].at_ns) + elapsed_ns - own_ns + host_ns
            gil_ns = self._blame_holder(thread, looks, own_ns - host_ns, elsewhere, explained_ns)
            thread.ended_calls = [*around[1 - _MAX_ENDED_CALLS :], EndedCall(started_ns, now)]
        except Exception:  # noqa: BLE001 - the border to the service: our fault must not become the caller's
            self.fault()
            return 0
        return host_ns + gil_ns

    def _starved_ns(self, thread: LoopThread, ended: Moment, elapsed_ns: int) -> int:
        idle_ns = min(waited_ns(thread.glimpse, ended, elapsed_ns), elapsed_ns - thread.nested_ns)
        stopped_ns = self.starvation.stopped_ns(ended.at_ns - elapsed_ns, idle_ns)
        # On a host that is out of CPU some of it is in both: a process without a CPU does not run either.
        host_ns = starved_ns(thread.glimpse, ended, elapsed_ns) + stopped_ns
        most_ns = elapsed_ns - max(thread.nested_ns - thread.excused_ns, worked_ns(thread.glimpse, ended, elapsed_ns))
        return min(host_ns, most_ns)

    def _looks_since(self, thread: LoopThread, began_ns: int, now: Moment) -> list[Moment]:
        """What is known of the thread's times between a moment of the running slice and now."""
        glimpse = thread.glimpse
        if glimpse is not None and not is_recent(glimpse, thread.started_ns):
            glimpse = None
        samples = [sample for sample in thread.samples if sample.started_ns == thread.started_ns]
        return looks_since(began_ns, now, glimpse, samples, thread.ended_calls)

    def _blame_holder_of_rest(self, thread: LoopThread, ended: Moment, rest_ns: int, explained_ns: int) -> int:
        """Give the time for which the slice waited for the GIL outside of measured calls to who held it. How long."""
        looks = self._looks_since(thread, thread.started_ns, ended)
        elsewhere = [(call.began_ns, call.ended.at_ns) for call in thread.ended_calls]
        thread.gil_ns = self._blame_holder(thread, looks, rest_ns, elsewhere, explained_ns)
        return thread.gil_ns

    def _blame_holder(
        self,
        thread: LoopThread,
        looks: list[Moment],
        at_most_ns: int,
        elsewhere: list[tuple[int, int]],
        explained_ns: int,
    ) -> int:
        """Give the time between looks for which the thread waited for the GIL to who held it, if it is much."""
        gil_ns = min(gil_wait_ns(looks, switch_interval_ns(), explained_ns, elsewhere), at_most_ns)
        if gil_ns < self.threshold_ns // 2:
            return 0
        return self._give_to_holder(thread, looks[0].at_ns, gil_ns)

    def _give_to_holder(self, thread: LoopThread, since_ns: int, gil_ns: int) -> int:
        """Give away time since then. How much: less where only waiting threads' own times speak for a holder."""
        collected_ns = min(self.gc_pauses.others_ns(thread.ident, since_ns), gil_ns)
        if gil_ns - collected_ns < _LATE_SWITCHES * switch_interval_ns():
            collected_ns = gil_ns
        if collected_ns:
            thread.gc_ns += collected_ns
            self._give(thread, self.traces.pseudo_site(GC, COLLECTOR), collected_ns)
        held_ns = gil_ns - collected_ns
        if not held_ns:
            return gil_ns
        holder = self.starvation.holder(thread.ident, since_ns, held_ns)
        if holder is None and not self.starvation.holder_is_gone(since_ns):
            return collected_ns
        if holder is not None:
            # A holder without a CPU keeps others waiting on the host's account.
            host_ns = min(holder.queued_ns, held_ns)
            host_ns = held_ns if held_ns - host_ns < self.threshold_ns // 2 else host_ns
            thread.host_ns += host_ns
            held_ns -= host_ns
            if not held_ns:
                return gil_ns
        if holder is None or holder.is_idle:
            self._give(thread, self.traces.pseudo_site(GIL, UNKNOWN_HOLDER), held_ns)
            return gil_ns
        site = self.traces.site(GIL, holder.stack)
        self._give(thread, site, held_ns)
        if self.keeps_traces:
            self.traces.keep_trace(site, holder.stack)
        return gil_ns

    # --- time that nobody measured ------------------------------------------------------------------------------------

    def _attribute_unmeasured(
        self,
        thread: LoopThread,
        rest_ns: int,
        elapsed_ns: int,
        ended: Moment,
        samples: list[Sample],
        callback: Any,
    ) -> None:
        """Divide the time no wrapper measured among the lines the watchdog saw, by how long it saw them."""
        if rest_ns < _UNSEEN_NS:
            return
        free = [sample for sample in samples if not sample.measured and tells(sample)]
        if not free:
            # Nobody looked, or only at measured calls. What is worth a report is the callback's own doing.
            if rest_ns >= self.threshold_ns // 2 and may_have_computed(thread.glimpse, ended, rest_ns // 2):
                self._give(thread, self._callback_site(callback), rest_ns)
            return
        excused_ns = thread.gil_ns + self.starvation.stopped_ns(thread.started_ns)
        waiting = is_waiting(samples, ended, elapsed_ns, excused_ns)
        given: dict[int, int] = {}
        sites: dict[int, Site] = {}
        for sample, share_ns in shares(free, rest_ns, thread.started_ns, elapsed_ns):
            site = self._site_of_sample(thread, sample, waiting=waiting)
            identifier = site.definition.site_id
            sites[identifier] = site
            given[identifier] = given.get(identifier, 0) + share_ns
            if self.keeps_traces:
                self.traces.keep_trace(site, sample.stack)
        for identifier, blocked_ns in given.items():
            self._give(thread, sites[identifier], blocked_ns)

    def _site_of_sample(self, thread: LoopThread, sample: Sample, *, waiting: bool) -> Site:
        site = self.traces.site(WAIT if waiting else CPU, sample.stack)
        unmeasured = thread.last_unmeasured
        if unmeasured is not None and unmeasured.site.call_site == site.call_site:
            return unmeasured.site
        return site

    def _give(self, thread: LoopThread, site: Site, blocked_ns: int) -> None:
        if site.rule is not None:
            site.rule.matches += 1
            thread.allowed_ns += blocked_ns
            return
        counters = thread.counters(site, self.aggregate.other)
        if counters.slice_started_ns == thread.started_ns and counters.slice_count:
            thread.add_time(counters, blocked_ns)
        else:
            thread.record(counters, blocked_ns)

    def _callback_site(self, callback: Any) -> Site:
        found = callback_code(callback)
        if found is None or callback is nothing:
            return self.traces.pseudo_site(CPU, LOOP)
        return self.traces.function_site(CPU, *found)


def nothing() -> None:
    """Scheduled so that a callback runs soon; its slice closes the implicit one."""
