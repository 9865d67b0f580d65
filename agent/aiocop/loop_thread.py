"""The state of one thread that runs event loops: its running slice, and what it counted.

Who writes what. A LoopThread belongs to its thread; the watchdog's thread reads `started_ns` and `operation`, and
writes `glimpse`, `samples` and its own words of `beat`; a sample names the slice it saw, so that a late one is told
from one of the next slice.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiocop._stdlib import get_ident, perf_counter_ns
from aiocop.aggregate import CounterTable, SiteCounters
from aiocop.attribution import Moment
from aiocop.heartbeat import private_slot
from aiocop.thread_clock import ThreadClock
from aiocop_wire import UPPER_EDGES_NS, Define, SiteDefinition, encode
from aiocop_wire.heartbeat import write_text
from aiocop_wire.light_typing import NamedTuple

if TYPE_CHECKING:
    from weakref import ref

    from aiocop.attribution import EndedCall, Sample
    from aiocop.blocking_calls import BlockingCall, TracedCalls
    from aiocop.catalogue import Operation
    from aiocop.traces import Site, StackFrame

_T = TypeVar("_T")
_LONGEST_SPENT_NS: Final = 1_000_000
_MAX_GLIMPSES: Final = 16
"""At a look every 15 ms, a turn of a quarter of a second."""
_FIRST_EDGE_NS: Final = UPPER_EDGES_NS[0]
"""Most calls are shorter: no search for their bin."""


class HeldArguments(NamedTuple):
    """The arguments of the costliest call of one site in the running slice."""

    own_ns: int
    positional: tuple[Any, ...]
    keywords: dict[str, Any]


class LongCall(NamedTuple):
    """A blocking call that took longer than the threshold by itself."""

    began_ns: int
    own_ns: int
    site: Site
    stack: list[StackFrame]


class LoopThread(CounterTable):
    """The state of one thread that runs event loops, and what it counted."""

    __slots__ = (
        "allowed_ns",
        "beat",
        "beat_text",
        "by_operation",
        "by_trace",
        "calls",
        "clock",
        "counted_ns",
        "credited_ns",
        "cut_walks",
        "ended_calls",
        "excused_ns",
        "finishes",
        "gc_ns",
        "gil_ns",
        "glimpse",
        "glimpses",
        "held_arguments",
        "host_ns",
        "ident",
        "implicit",
        "last_unmeasured",
        "long_calls",
        "measured_ns",
        "nested_ns",
        "operation",
        "passed_over",
        "provided",
        "python_thread",
        "quiet",
        "raised",
        "raising",
        "samples",
        "started_ns",
        "starved_ns",
        "touched",
        "turn_started_ns",
        "uvloop",
    )

    def __init__(self) -> None:
        super().__init__(threading.current_thread().name)
        self.ident = get_ident()
        self.python_thread = threading.current_thread()
        self.beat, self.beat_text = private_slot()
        """What a collector on this host can read of this thread: the start of its last slice, and the site entered last
        (aiocop_wire.heartbeat). Never kept in a local variable: a forked child and stop() put another in its place."""
        self.clock = ThreadClock()
        self.glimpse: Moment | None = Moment(perf_counter_ns(), self.clock.read())
        """The thread's times when it was last looked at between slices, in a young one, or when a slow one ended.
        Written by the watchdog, and by the thread itself where the watchdog was parked or late: see `note`."""
        self.glimpses: deque[Moment] = deque(maxlen=_MAX_GLIMPSES)
        """That look and those before it: a long turn of the loop may have begun before several of them."""
        self.started_ns = 0
        """perf_counter_ns at the start of the running slice, which names it; 0 between slices."""
        self.starved_ns = 0
        """Time of slow slices in which the host gave this thread no CPU."""
        self.quiet = False
        """The user's callbacks and providers run: what blocks in them is nobody's slice."""
        self.implicit = False
        """Nobody saw the running slice begin: it was opened inside a callback, and ends when the next one begins."""
        self.gc_ns = 0
        """Garbage collection in the running slice, by other threads too."""
        self.excused_ns = 0
        """Time of measured calls of the running slice that the host took."""
        self.host_ns = 0
        """Time of the running slice in which whoever held the GIL had no CPU."""
        self.gil_ns = 0
        """Time of the running slice outside of measured calls in which another thread held the GIL and is to blame."""
        self.ended_calls: list[EndedCall] = []
        """The last calls of the running slice above the threshold."""
        self.allowed_ns = 0
        """Time of the running slice in which it was allowed to block."""
        self.turn_started_ns = 0
        """When the loop's selector returned last, inside a turn; 0 otherwise."""
        self.credited_ns = 0
        """Time that is accounted for, by measured calls and slow slices: of the turn on asyncio's loops, of all turns
        on uvloop's."""
        self.uvloop: ref[Any] | None = None
        """The loop that runs here, if it is uvloop's and was noted."""
        self.counted_ns = 0
        """Of a long turn that is being accounted for as one slice: what its slices and calls account for already."""
        self.operation: Operation | None = None
        """The wrapped call that is running."""
        self.nested_ns = 0
        """Time of the wrapped calls that ended inside the running one (or inside the slice, where none is running)."""
        self.touched: list[SiteCounters] = []
        """Counters this slice changed."""
        self.last_unmeasured: SiteCounters | None = None
        """The last site that only the audit hook saw: the samples after it may show that it is still running."""
        self.calls: list[BlockingCall] = []
        """What the event of the running slice describes."""
        self.by_trace: dict[tuple[object, ...], TracedCalls] = {}
        """A cache, filled only while somebody wants events."""
        self.provided: dict[str, Any] | None = None
        """Context as the providers gave it at the first blocking call of the slice."""
        self.long_calls: list[LongCall] = []
        """Calls of the running slice above the threshold; noted only while a capture is asked for."""
        self.held_arguments: dict[int, HeldArguments] = {}
        """By site, of the running slice; filled only where a Disclosure allows it."""
        self.raised: tuple[BaseException, Any] | None = None
        """The last exception of a uvloop callback, and the callback."""
        self.raising = False
        self.samples: list[Sample] = []
        # What the agent itself does here, for the governor (governor.py). Written by this thread, they only grow.
        self.finishes = 0
        """Slices that had to be accounted for, and were neither slow nor wanted as events."""
        self.passed_over = 0
        """Calls that were looked at and not counted."""
        self.measured_ns = 0
        """Time the agent took for what is too rare and too expensive to be reckoned by the piece."""
        self.cut_walks = 0
        """Walks that ended before the call site, see Detail."""
        self.by_operation: dict[str, SiteCounters] = {}
        """Counters of calls that are only counted, by operation."""

    def tell(self, definition: SiteDefinition) -> None:
        """Put a site's text on the heartbeat, where there is one: the collector may not know it yet. Any thread."""
        if self.beat_text:
            write_text(self.beat_text, encode(Define((definition,))))

    def note(self, seen: Moment) -> None:
        """Keep a look at the thread's times. Any thread."""
        self.glimpse = seen
        self.glimpses.append(seen)

    def glimpse_before(self, at_ns: int) -> Moment | None:
        """The last look before then, else the first one after it."""
        seen = list(self.glimpses)
        return next((one for one in reversed(seen) if one.at_ns <= at_ns), seen[0] if seen else self.glimpse)

    def quietly(self, ask: Callable[[], _T]) -> _T:
        """Let the users' own code run: what blocks in it is not the running slice's."""
        started_ns = self.started_ns
        self.started_ns = 0
        self.quiet = True
        try:
            return ask()
        finally:
            self.quiet = False
            self.started_ns = started_ns

    def record(self, counters: SiteCounters, own_ns: int) -> None:
        """Count one measured call: `own_ns` is its time without the wrapped calls inside it."""
        counters.count += 1
        counters.blocked_ns += own_ns
        bins = counters.bins
        index = 0 if own_ns < _FIRST_EDGE_NS else bisect_right(UPPER_EDGES_NS, own_ns)
        bins[index] = bins.get(index, 0) + 1
        maximum_ns = counters.maximum_ns
        if own_ns > maximum_ns[0]:
            maximum_ns[0] = own_ns
        started_ns = self.started_ns
        if counters.slice_started_ns == started_ns:
            counters.slice_blocked_ns += own_ns
            counters.slice_count += 1
        else:
            counters.slice_started_ns = started_ns
            counters.slice_blocked_ns = own_ns
            counters.slice_count = 1
            self.touched.append(counters)

    def spend(self, since_ns: int, stands_for: int = 1) -> None:
        """Add the agent's own time since then, for so many times that it was spent.

        It is bounded: what takes longer is a switch to another thread in between.
        """
        self.measured_ns += stands_for * min(perf_counter_ns() - since_ns, _LONGEST_SPENT_NS // stands_for)

    def record_start(self, counters: SiteCounters) -> None:
        """Count one call of which only the start was seen."""
        counters.count += 1
        self.last_unmeasured = counters
        if counters.slice_started_ns == self.started_ns:
            counters.slice_count += 1
        else:
            counters.slice_started_ns = self.started_ns
            counters.slice_blocked_ns = 0
            counters.slice_count = 1
            self.touched.append(counters)

    def add_time(self, counters: SiteCounters, blocked_ns: int) -> None:
        """Give time to a call that was counted when it started."""
        counters.blocked_ns += blocked_ns
        counters.slice_blocked_ns += blocked_ns
        index = bisect_right(UPPER_EDGES_NS, blocked_ns)
        counters.bins[index] = counters.bins.get(index, 0) + 1
        if blocked_ns > counters.maximum_ns[0]:
            counters.maximum_ns[0] = blocked_ns
