"""The governor: what the agent costs the loops it watches, and how closely it may look for that.

Above its budget (start() sets it: 1 % of a loop's time unless configured otherwise) the agent gives up detail in steps,
so that it never becomes the incident; when the storm is over it takes the detail back, one step at a time. Counts are
exact throughout.

    0  everything
    1  short walks: of a deep stack only the innermost frames are read; whose call it is, is looked up now and then
    2  nothing new: no full traces, and calls at lines never seen before are counted per operation
    3  counts: a call is counted per operation, at the pseudo call site <other>, without its time

At every level a call that takes a millisecond is looked at closely once it is over; and a freeze is told as ever, by
samples of its stack. Raising on violations and waits work as ever, too.

Cost model. Nothing is measured per callback or per call. How many slices, calls and frames there were is known from
counters that exist anyway; what one of them costs is measured once, at start (calibration.py); what is rare and
expensive (a new site, a slow slice, an event) is measured where it happens. Once a second the watchdog's thread
multiplies and adds: 0.2 µs per site.

Who writes what. `look` may be called on any thread; who finds another in it leaves at once. It alone writes the level.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from aiocop._stdlib import allocate_lock, perf_counter_ns, time_ns
from aiocop.detail import COUNTS, FULL
from aiocop.loop_thread import LoopThread
from aiocop.pacing import Pacing
from aiocop.slice import Slices
from aiocop.statistics import OverheadStatus
from aiocop_wire import Overhead
from aiocop_wire.light_typing import NamedTuple

_TICK_NS: Final = 1_000_000_000
_MAX_PPM: Final = 1_000_000

_logger = logging.getLogger("aiocop")


class UnitCosts(NamedTuple):
    """What the agent takes for one of each, in nanoseconds."""

    slice_ns: float
    """A slice in which nothing blocks."""
    finish_ns: float
    """The end of a slice in which something blocked."""
    call_ns: float
    """A blocking call that application code makes itself."""
    library_ns: float
    """What is added if a library makes the call."""
    frame_ns: float
    """What each further frame of a library adds, between the call and its call site."""
    cut_ns: float
    """What is added, all in all, if a library makes the call and such walks are cut short."""
    counted_ns: float
    """A blocking call that is only counted."""


class Activity(NamedTuple):
    """How often the agent did what, on one loop's thread, since the thread began."""

    slices: int
    finishes: int
    calls: int
    library_calls: int
    """Calls that application code did not make itself, or nobody knows who made them."""
    frames: int
    """Frames between these and their call sites, the first of each aside."""
    passed_over: int
    measured_ns: int

    def since(self, before: Activity) -> Activity:
        return Activity(*[now - then for now, then in zip(self, before)])  # noqa: B905 - same length by type

    def cost_ns(self, level: int, unit: UnitCosts) -> float:
        """What it took at a level of detail, or would have taken as far as that is known."""
        if level >= COUNTS:
            calls_ns = self.calls * unit.counted_ns
        elif level > FULL:
            calls_ns = self.calls * unit.call_ns + self.library_calls * unit.cut_ns
        else:
            calls_ns = self.calls * unit.call_ns
            calls_ns += self.library_calls * unit.library_ns + self.frames * unit.frame_ns
        return (
            self.slices * unit.slice_ns
            + self.finishes * unit.finish_ns
            + calls_ns
            + self.passed_over * unit.call_ns
            + self.measured_ns
        )

    def reducible_ns(self, level: int, unit: UnitCosts) -> float:
        """How much less it might take with less detail."""
        return self.cost_ns(level, unit) - self.cost_ns(COUNTS, unit) + self.measured_ns


NO_ACTIVITY: Final = Activity(0, 0, 0, 0, 0, 0, 0)


class Governor:
    """Watches over the costs of one agent."""

    def __init__(self, slices: Slices, calibrate: Callable[[], UnitCosts]) -> None:
        self.tick_ns = _TICK_NS
        """Time between two looks; everything else is counted in these."""
        self._slices = slices
        self._calibrate = calibrate
        self._unit: UnitCosts | None = None
        self._budget = 0.0
        self._lock = allocate_lock()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Look closely again: at start(), after stop(), and in a forked child, where a lock may be held for ever."""
        self._lock = allocate_lock()
        self._pacing = Pacing(self._budget)
        self._seen: dict[LoopThread, Activity] = {}
        self._looked_ns = perf_counter_ns()
        self._share = 0.0
        self._since_ns = 0
        self._reductions = 0
        self._warned = False
        self._slices.level = FULL

    def govern(self, budget: float) -> None:
        """Keep to this part of a loop's time, 0 to 1; with 0 no detail is ever given up.

        The first time it measures what things cost.
        """
        if self._unit is None:
            self._unit = self._calibrate()
        self._budget = budget
        self.begin_anew()

    def rest(self) -> None:
        """Keep to no budget, until `govern` is called again."""
        self._budget = 0.0
        self.begin_anew()

    @property
    def governs(self) -> bool:
        """Whether some detail is given up: then somebody has to look again soon."""
        return self._pacing.level > FULL

    def look(self) -> None:
        """Add up what was done since the last look, if that was a tick ago, and take or give detail."""
        now_ns = perf_counter_ns()
        lock = self._lock
        if now_ns - self._looked_ns < self.tick_ns or not lock.acquire(blocking=False):
            return
        try:
            self._tick(now_ns)
        finally:
            lock.release()

    def _tick(self, now_ns: int) -> None:
        unit, level = self._unit, self._pacing.level
        if unit is None:
            return
        elapsed_ns = now_ns - self._looked_ns
        self._looked_ns = now_ns
        before, self._seen = self._seen, {thread: read(thread) for thread in list(self._slices.threads.values())}
        done = [activity.since(before.get(thread, NO_ACTIVITY)) for thread, activity in self._seen.items()]
        self._share = max([one.cost_ns(level, unit) for one in done], default=0.0) / elapsed_ns
        finer = max([one.cost_ns(max(level - 1, FULL), unit) for one in done], default=0.0) / elapsed_ns
        reducible = max([one.reducible_ns(level, unit) for one in done], default=0.0) / elapsed_ns
        if self._pacing.tick(self._share, finer, reducible, elapsed_ns / self.tick_ns):
            self._change(level, self._pacing.level)

    def _change(self, before: int, level: int) -> None:
        self._slices.level = level
        self._since_ns = time_ns()
        if level > before:
            self._reductions += 1
        if before == FULL:
            _logger.log(
                logging.INFO if self._warned else logging.WARNING,
                "aiocop took %.1f %% of a loop's time, more than its budget of %g %%: it looks less closely at "
                "blocking calls until there are fewer; all of them are counted",
                100 * self._share,
                100 * self._budget,
            )
            self._warned = True
        elif level == FULL:
            _logger.info("aiocop looks closely at blocking calls again (%.1f %% of a loop's time)", 100 * self._share)

    def reported(self) -> Overhead:
        """The same as it is shipped."""
        status = self.status()
        return Overhead(
            level=status.level,
            share_ppm=min(round(status.share * 1e6), _MAX_PPM),
            budget_ppm=round(status.budget * 1e6),
            since_ms=round(status.since * 1e3),
            reductions=status.reductions,
        )

    def status(self) -> OverheadStatus:
        """One look, from any thread."""
        self.look()
        return OverheadStatus(
            level=self._pacing.level,
            share=self._share,
            budget=self._budget,
            since=self._since_ns / 1e9,
            reductions=self._reductions,
        )


def read(thread: LoopThread) -> Activity:
    """What was done on a loop's thread so far. Any thread."""
    calls = library_calls = frames = 0
    for counters in list(thread.by_site.values()):
        count = counters.count
        beyond = len(counters.site.definition.frames) - 1
        calls += count
        if beyond or counters.site.summary:
            library_calls += count
            frames += count * max(beyond - 1, 0)
    return Activity(
        thread.slices, thread.finishes, calls, library_calls, frames, thread.passed_over, thread.measured_ns
    )
