"""One uninterrupted run of a callback on a loop's thread: begun, filled with blocking calls, and accounted for.

Cost model. A slice in which nothing happens costs two clock readings, one look-up of its thread and a few attribute
writes (loops.py). A blocking call costs the walk to its call site and one update of counters (`record`). Everything
else, here in `Slices.finish`, runs only for slices that exceeded the threshold or that somebody asked to see.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from contextvars import Context
from types import FrameType
from typing import Any, Final

from aiocop._stdlib import get_ident, perf_counter_ns, time_ns
from aiocop.aggregate import Aggregate, SiteCounters
from aiocop.allowing import allowed_since_ns
from aiocop.attribution import Moment, Sample, gil_wait_ns
from aiocop.blame import Blame, nothing
from aiocop.blocking_calls import BlockingCall, TracedCalls
from aiocop.callback_names import task_name
from aiocop.captures import Captures
from aiocop.catalogue import TURN, Operation
from aiocop.detail import LONG_CALL_NS, Detail
from aiocop.disclosure import Disclosed, Disclosure
from aiocop.events import Events, Overrun, format_trace
from aiocop.loop_health import waiting_in
from aiocop.loop_thread import LoopThread
from aiocop.stalls import FinishedSlice, StallBoard
from aiocop.starvation import switch_interval_ns
from aiocop.traces import LOOP, MAX_SITE_FRAMES, Site, Traces, shown
from aiocop_wire import ContextValue, SlowEvent, SlowSite
from aiocop_wire.heartbeat import BEGUN, ENTERED

MAX_CALLS_PER_SLICE: Final = 50
"""Blocking calls of one slice that its event describes; all of them are counted."""
MAX_SAMPLES_PER_SLICE: Final = 64
SAMPLED_SLICE: Final = 17
"""Of so many slices whose events somebody wants, one is measured for what that costs."""
MAX_TRACES_PER_THREAD: Final = 2_048
"""Formatted traces that a thread keeps, 2 to 4 kB each; past it, it starts over."""
_NOTHING: Final = Disclosed({}, {})
_NO_ARGUMENTS: Final[dict[str, ContextValue]] = {}


class Slices(Blame):
    """What the slices of the process's loop threads cost."""

    def __init__(self, *, threshold_ns: int, traces: Traces, aggregate: Aggregate, events: Events) -> None:
        super().__init__(threshold_ns=threshold_ns, traces=traces, aggregate=aggregate)
        self.active = False
        """Read at the start of every slice; written by activate() and deactivate()."""
        self.disclosure: Disclosure | None = None
        """What slow events may say of arguments and context, None for nothing. Read once per blocking call."""
        self.trace_depth = 20
        self.stalls: StallBoard | None = None
        """Told of slices that took longer than its `stall_after`."""
        self.captures = Captures(traces)
        self.allowing_used = False
        """Whether `with allow_blocking():` was ever entered; until then nobody looks for it."""
        self.events = events
        self.detail = Detail(traces, self._look_closely)

    def begin_anew(self, aggregate: Aggregate) -> None:
        """Forget all threads and count into `aggregate` from now on: after stop(), and in a forked child.

        Slices that are running end in the old one.
        """
        self.forget_threads(aggregate)
        self.starvation.begin_anew()
        self.faults = 0
        self.events.begin_anew()

    def keep_traces_of(self, depth: int) -> None:
        """Keep full traces of this depth from now on, of every site. Any thread."""
        self.traces.keep_traces_of(depth)
        self.look_again()

    # --- slices nobody saw begin --------------------------------------------------------------------------------------

    def enter_implicit(self, thread: LoopThread) -> bool:
        """Open a slice in the middle of a callback that runs on a loop without one: where start() is called inside a
        task, and in protocol callbacks of uvloop's transports. False where no loop runs, or it is closing.

        The next callback of the loop closes it, so one is scheduled: the slice must not include a wait of the selector.
        """
        loop = _get_running_loop()
        if loop is None or not self.active or thread.started_ns or thread.quiet:
            return False
        try:
            # Threadsafe, because it also wakes a selector that a signal handler interrupted.
            loop.call_soon_threadsafe(nothing)
        except RuntimeError:
            return False
        thread.implicit = True
        thread.started_ns = thread.beat[BEGUN] = perf_counter_ns()
        if thread.started_ns >= self.starvation.due_ns:
            thread.note(Moment(thread.started_ns, thread.clock.read()))
        return True

    def leave_implicit(self, thread: LoopThread) -> bool:
        """Close an implicit slice at the start of the next callback. False where the running slice is not one."""
        if not thread.implicit:
            return False
        elapsed_ns = perf_counter_ns() - thread.started_ns
        thread.implicit = False
        if thread.touched or elapsed_ns >= self.threshold_ns:
            self.finish(thread, elapsed_ns, None, thread.loop, None, None)
        else:
            thread.started_ns = 0
        return True

    # --- what is no call ----------------------------------------------------------------------------------------------

    def finish_turn(self, thread: LoopThread, elapsed_ns: int) -> None:
        """Account for a turn of the loop that was long although none of its slices was."""
        rest_ns = elapsed_ns - thread.credited_ns
        counted_ns = elapsed_ns - rest_ns
        thread.started_ns = perf_counter_ns() - elapsed_ns
        # What was seen in the turn says nothing of what the host took of it before.
        thread.glimpse = thread.glimpse_before(thread.started_ns)
        try:
            ended = Moment(perf_counter_ns(), thread.clock.read())
            rest_ns -= self._starved_ns(thread, ended, elapsed_ns)
            rest_ns -= self._blame_holder_of_rest(thread, ended, rest_ns, elapsed_ns - rest_ns)
            if rest_ns >= self.threshold_ns:
                self._give(thread, self.traces.pseudo_site(TURN, LOOP), rest_ns)
            if thread.touched:
                thread.counted_ns = counted_ns
                thread.nested_ns = elapsed_ns  # all of it is accounted for
                self.finish(thread, elapsed_ns, None, thread.loop, None, None)
            thread.note(ended)
        finally:
            thread.counted_ns = 0
            self.reset(thread)

    # --- time that others took ----------------------------------------------------------------------------------------

    def begin_late(self, thread: LoopThread, before: Moment | None, at_most_ns: int) -> None:
        """A slice begins that the watchdog did not see begin: `thread.glimpse` has the thread's times as it does.

        When the thread wanted to run since `before` and waited for the GIL, `at_most_ns` of that at a time, that is an
        event of its own.
        """
        now = thread.glimpse
        if before is None or now is None:
            return
        gil_ns = min(gil_wait_ns((before, now), switch_interval_ns()), at_most_ns)
        if gil_ns < self.threshold_ns:
            return
        credited_ns = thread.credited_ns
        thread.started_ns = now.at_ns - gil_ns
        thread.nested_ns = gil_ns
        try:
            if self._give_to_holder(thread, before.at_ns, gil_ns):
                self.finish(thread, gil_ns, None, thread.loop, None, None)
        finally:
            self.reset(thread)
            thread.credited_ns = credited_ns  # it was before the turn began

    # --- calls --------------------------------------------------------------------------------------------------------

    def counters_at(self, thread: LoopThread, operation: Operation, frame: FrameType, own_ns: int = 0) -> SiteCounters:
        """The counters of the site where `frame` makes a call; it is over if its `own_ns` is known already."""
        # Most often application code makes the call itself: then this is the key, see Traces.key_of.
        counters = thread.by_key.get((operation.name, frame.f_globals.get("__name__"), frame.f_lineno))
        if counters is None:
            if self.level and own_ns < LONG_CALL_NS and not self.events.raising_now():
                counters = self.detail.counters_at(thread, operation, frame, self.level)
            else:
                counters = self._look_closely(thread, operation, frame)
        thread.beat[ENTERED] = counters.site_id ^ thread.started_ns
        return counters

    def _look_closely(self, thread: LoopThread, operation: Operation, frame: FrameType) -> SiteCounters:
        key = self.traces.key_of(operation.name, frame)
        counters = thread.by_key.get(key)
        if counters is None:
            began_ns = perf_counter_ns()
            site = self.traces.site(operation, self.traces.stack(frame, MAX_SITE_FRAMES))
            counters = thread.counters(site, self.aggregate.other)
            thread.remember(key, counters)
            thread.tell(site.definition)
            if self.keeps_traces:
                self.traces.keep_trace(site, self.traces.stack(frame, self.traces.kept_depth))
            thread.spend(began_ns)
        return counters

    def traced_calls_at(
        self, thread: LoopThread, operation: Operation, frame: FrameType, own_ns: int = 0
    ) -> TracedCalls:
        """The same, with what callbacks are told of the calls that `frame` makes, in place of `counters_at`."""
        if self.level:
            return self._briefly_traced(thread, self.counters_at(thread, operation, frame, own_ns))
        began_ns = 0 if thread.slices % SAMPLED_SLICE else perf_counter_ns()
        key = self.traces.full_key(operation.name, frame, self.trace_depth)
        traced = thread.by_trace.get(key)
        if traced is None:
            counters = self.counters_at(thread, operation, frame)
            traced = TracedCalls(counters, format_trace(self.traces, self.traces.stack(frame, self.trace_depth)))
            if len(thread.by_trace) >= MAX_TRACES_PER_THREAD:
                thread.by_trace.clear()
            thread.by_trace[key] = traced
        thread.beat[ENTERED] = traced.counters.site_id ^ thread.started_ns
        if began_ns:
            thread.spend(began_ns, SAMPLED_SLICE)
        return traced

    def _briefly_traced(self, thread: LoopThread, counters: SiteCounters) -> TracedCalls:
        """With a trace that ends at the call site: nobody walks on from there."""
        key = (counters.site_id,)
        traced = thread.by_trace.get(key)
        if traced is None:
            trace = " <- ".join([shown(frame) for frame in counters.site.definition.frames])
            traced = thread.by_trace[key] = TracedCalls(counters, trace)
        return traced

    def count_only(self, thread: LoopThread, operation: Operation) -> None:
        """Count a call at its operation: no walk, no time."""
        counters = thread.by_operation.get(operation.name) or self.detail.operation_counters(thread, operation)
        if counters.site.rule is None and not self.allowing_used:
            counters.count += 1
        else:
            self.pass_over(thread, counters, 0)

    def pass_over(self, thread: LoopThread, counters: SiteCounters, own_ns: int) -> None:
        """A call at a silent site, or in `with allow_blocking():`, which accounts for the time itself.

        `own_ns` is 0 where only the start of the call was seen.
        """
        site = counters.site
        if site.summary and site.rule is None and not (self.allowing_used and allowed_since_ns()):
            if own_ns:
                thread.record(counters, own_ns)
            else:
                counters.count += 1
            return
        thread.passed_over += 1
        if site.rule is not None:
            site.rule.matches += 1
            thread.allowed_ns += own_ns
        elif site.muted and own_ns >= self.threshold_ns:
            thread.record(counters, own_ns)

    def allow_since(self, entered_ns: int) -> None:
        """The calling thread's running slice was allowed to block from `entered_ns` (perf_counter_ns) until now."""
        thread = self.threads.get(get_ident())
        if thread is None or not thread.started_ns or not entered_ns:
            return
        since_ns = max(entered_ns, thread.started_ns)
        allowed_ns = perf_counter_ns() - since_ns
        # Neither a call's nor the samples' time: as if a wrapper had measured all of it.
        thread.nested_ns = min(thread.nested_ns, since_ns - thread.started_ns) + allowed_ns
        thread.allowed_ns += allowed_ns

    def describe_call(
        self, thread: LoopThread, traced: TracedCalls, arguments: tuple[Any, ...], *, beforehand: bool
    ) -> BlockingCall | None:
        """Note a call for the slice's event; None past the bound. Only where a callback wants events.

        `beforehand`: the call has not happened yet. Then, and only where raise_on_violations(at_call=True) asked for
        it, raises HighSeverityBlockingIoException.
        """
        events = self.events
        if events.raising_used:
            events.note_raising(thread)
        if thread.provided is None and (events.providers or events.late_providers):
            thread.provided = thread.quietly(events.provide)
        calls = thread.calls
        if len(calls) >= MAX_CALLS_PER_SLICE:
            return None
        call = BlockingCall(traced, arguments)
        calls.append(call)
        if beforehand and events.raising_used:
            events.raise_at_call(call, self.threshold_ns)
        return call

    def hold_arguments(
        self,
        thread: LoopThread,
        counters: SiteCounters,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        own_ns: int,
    ) -> None:
        """Remember what this slice's event may say of a call, where there is a disclosure. Raises nothing."""
        try:
            if self.disclosure is not None:
                self.disclosure.hold(thread, counters, arguments, keywords, own_ns)
        except Exception:  # noqa: BLE001 - the border to the service: our fault must not become the caller's
            self.fault()

    def note_long_call(self, thread: LoopThread, counters: SiteCounters, own_ns: int, frame: FrameType | None) -> None:
        """Remember a call above the threshold, where a capture is asked for. Raises nothing."""
        try:
            if self.captures.wanted and not counters.site.silent:
                self.captures.note(thread, counters.site, own_ns, perf_counter_ns(), frame)
        except Exception:  # noqa: BLE001 - the border to the service: our fault must not become the caller's
            self.fault()

    def this_thread_runs(self, operation: Operation | None) -> Operation | None:
        """Whatever waits now on the calling thread is part of that operation. What ran before."""
        thread = self.threads.get(get_ident())
        if thread is None:
            return None
        before, thread.operation = thread.operation, operation
        return before

    def forget_calls(self) -> None:
        """Drop what the calling thread's running slice would have described; what was counted stays counted."""
        thread = self.threads.get(get_ident())
        if thread is not None:
            thread.calls = []

    # --- the end of a slice -------------------------------------------------------------------------------------------

    def finish(
        self,
        thread: LoopThread,
        elapsed_ns: int,
        callback: Any,
        loop: str,
        context: Context | None,
        before: dict[str, Any] | None,
    ) -> None:
        """Account for a slice that contained blocking calls or exceeded the threshold, and close it.

        `context` is where the callback ran, None where that is the current one; `before` is what the context providers
        said before it ran. Raises HighSeverityBlockingIoException where raise_on_violations() asked for it, and nothing
        else.
        """
        event = None
        raising = thread.raising
        # What this takes is measured where it is much, every so often where it is little, and reckoned where it is next
        # to nothing: see governor.py.
        stands_for = 1
        if elapsed_ns < self.threshold_ns:
            wanted = self.events.wanted
            stands_for = SAMPLED_SLICE if wanted and not thread.slices % SAMPLED_SLICE else 0
            thread.finishes += not wanted
        began_ns = perf_counter_ns() if stands_for else 0
        try:
            thread.loop = loop
            if self.allowing_used:
                self.allow_since(allowed_since_ns(context))
            if thread.allowed_ns:
                thread.nested_ns -= thread.allowed_ns
                elapsed_ns = _without_allowed(thread, elapsed_ns)
            overrun = None
            if elapsed_ns >= self.threshold_ns:
                overrun = self._account(thread, elapsed_ns, callback, context, before)
                elapsed_ns = _without_allowed(thread, elapsed_ns)
            thread.credited_ns += thread.nested_ns if overrun is None else elapsed_ns
            if self.events.wanted and (thread.calls or overrun is not None):
                # The slice is over: what blocks in the users' own code from here on is nobody's.
                thread.started_ns = 0
                thread.quiet = True
                event = self.events.event(thread, elapsed_ns, self.threshold_ns, overrun, callback, context, before)
        except Exception:  # noqa: BLE001 - the border to the service: a fault of ours must cost a slice, not a request
            self.fault()
        finally:
            self.reset(thread)
        if stands_for:
            thread.spend(began_ns, stands_for)
        if event is not None:
            thread.quiet = True
            try:
                self.events.deliver(event, raising=raising)
            finally:
                thread.quiet = False

    def _account(
        self,
        thread: LoopThread,
        elapsed_ns: int,
        callback: Any,
        context: Context | None,
        before: dict[str, Any] | None,
    ) -> Overrun | None:
        """Account for a slice above the threshold: find whose the time was that no wrapper measured, and ship it.

        None where it is not above it without what was allowed, which is in the thread's `allowed_ns` then.
        """
        ended = Moment(perf_counter_ns(), thread.clock.read())
        samples = [sample for sample in thread.samples if sample.started_ns == thread.started_ns]
        cpu_ns = -1
        if samples and samples[0].times is not None and ended.times is not None:
            cpu_ns = ended.times.cpu_ns - samples[0].times.cpu_ns
        starved = self._starved_ns(thread, ended, elapsed_ns)
        # What the host took is nobody's fault: without it the slice may not be slow at all.
        slow = elapsed_ns - starved >= self.threshold_ns
        if slow:
            rest_ns = elapsed_ns - thread.nested_ns - max(0, starved - thread.excused_ns)
            rest_ns -= self._blame_holder_of_rest(thread, ended, rest_ns, thread.nested_ns)
            self._attribute_unmeasured(thread, rest_ns, elapsed_ns, ended, samples, callback)
            elapsed_ns -= thread.allowed_ns
            starved = min(starved + thread.host_ns, elapsed_ns)
            slow = elapsed_ns - starved >= self.threshold_ns
        thread.note(ended)
        if elapsed_ns < self.threshold_ns:
            return None
        thread.starved_ns += starved
        waiting = waiting_in(_get_running_loop())
        thread.health.froze(elapsed_ns - thread.counted_ns, starved, waiting)
        if slow:
            for counters in thread.touched:
                counters.slow_count += 1
            if self.shipping and thread.touched:
                disclosure = self.disclosure
                disclosed = _NOTHING if disclosure is None else disclosure.disclose(thread, context, before)
                self._ship(thread, elapsed_ns, cpu_ns, samples, callback, disclosed, waiting)
            if self.stalls is not None and elapsed_ns >= self.stalls.stall_after_ns:
                self.stalls.finished.append(FinishedSlice(thread.started_ns, elapsed_ns, _costliest(thread)))
        return Overrun(not slow, cpu_ns, samples)

    def reset(self, thread: LoopThread) -> None:
        """Forget what belonged to the slice that ended."""
        thread.started_ns = 0
        thread.quiet = False
        thread.implicit = False
        thread.touched = []
        thread.nested_ns = 0
        thread.gc_ns = 0
        thread.gil_ns = thread.excused_ns = thread.host_ns = 0
        thread.allowed_ns = 0
        thread.operation = None
        thread.last_unmeasured = None
        if thread.ended_calls:
            thread.ended_calls = []
        if thread.long_calls:
            thread.long_calls = []
        if thread.held_arguments:
            thread.held_arguments = {}
        if thread.calls:
            thread.calls = []
        thread.provided = None
        thread.raising = False
        if thread.samples:
            thread.samples = []

    def _ship(
        self,
        thread: LoopThread,
        elapsed_ns: int,
        cpu_ns: int,
        samples: list[Sample],
        callback: Any,
        disclosed: Disclosed,
        waiting: int,
    ) -> None:
        touched = sorted(thread.touched, key=lambda item: item.slice_blocked_ns, reverse=True)
        shown = touched[:MAX_CALLS_PER_SLICE]
        event = SlowEvent(
            started_at_ms=(time_ns() - elapsed_ns) // 1_000_000,
            elapsed_us=elapsed_ns // 1_000,
            threshold_us=self.threshold_ns // 1_000,
            cause=touched[0].site.definition.cause,
            severity_score=sum(min(item.slice_count, 1000) * item.site.definition.weight for item in touched),
            sites=tuple(
                [
                    SlowSite(
                        item.site.definition.site_id,
                        item.slice_count,
                        item.slice_blocked_ns // 1_000,
                        item.site.trace_ids[-1] if item.site.trace_ids else 0,
                        disclosed.arguments.get(item.site.definition.site_id, _NO_ARGUMENTS),
                    )
                    for item in shown
                ]
            ),
            task_name=task_name(callback)[:200],
            thread_name=thread.python_thread.name[:200],
            loop=thread.loop,
            cpu_us=cpu_ns // 1_000 if cpu_ns >= 0 else -1,
            gc_us=thread.gc_ns // 1_000,
            context=disclosed.context,
            waiting=waiting,
            capture=self.captures.take(thread, shown, samples) if self.captures.wanted else None,
        )
        self.aggregate.offer_slow_event(thread, event)


def _without_allowed(thread: LoopThread, elapsed_ns: int) -> int:
    """The rest of a slice's time, once what was allowed is accounted for."""
    allowed_ns, thread.allowed_ns = thread.allowed_ns, 0
    thread.credited_ns += allowed_ns
    return elapsed_ns - allowed_ns


def _costliest(thread: LoopThread) -> Site | None:
    if not thread.touched:
        return None
    return max(thread.touched, key=lambda counters: counters.slice_blocked_ns).site
