"""From slices to `SlowTaskEvent`s: callbacks, context providers, raise-on-violations.

Nothing here runs unless somebody registered a callback or asked for exceptions. What they registered is theirs and may
fail: an exception of theirs is logged once per function and counted, and never reaches the service.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from aiocop._stdlib import time
from aiocop.aggregate import SiteCounters
from aiocop.attribution import Sample
from aiocop.blocking_calls import NO_CALL, BlockingCall, format_call
from aiocop.callback_names import task_name
from aiocop.errors import HighSeverityBlockingIoException
from aiocop.event_types import BlockingEventInfo, CpuStackSample, RawBlockingEvent, SlowTaskEvent
from aiocop.loop_thread import LoopThread
from aiocop.severity import THRESHOLD_HIGH, get_severity_level_from_score
from aiocop.traces import LOOP, StackFrame, Traces, shown
from aiocop_wire.light_typing import NamedTuple

if TYPE_CHECKING:
    from contextvars import Token

SlowTaskCallback = Callable[[SlowTaskEvent], None]
ContextProvider = Callable[[], "dict[str, Any] | None"]

_logger = logging.getLogger("aiocop")
_new_object: Final = object.__new__
_OFF: Final = 0
_AFTER_SLICE: Final = 1
_AT_CALL: Final = 2
_raise_on_violations: ContextVar[int] = ContextVar("aiocop_raise_on_violations", default=_OFF)


class Overrun(NamedTuple):
    """What is known only of a slice above the threshold."""

    starved: bool
    """Above it only because the host gave the thread no CPU."""
    cpu_ns: int
    """-1 where unknown."""
    samples: list[Sample]


class Events:
    """The callbacks and context providers of one agent."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self.callbacks: tuple[SlowTaskCallback, ...] = ()
        """Replaced, never changed in place: loop threads iterate over it."""
        self.providers: tuple[ContextProvider, ...] = ()
        """Asked before each slice, at its first blocking call, and after it."""
        self.late_providers: tuple[ContextProvider, ...] = ()
        """Not asked before slices: these cost nothing as long as nothing blocks."""
        self.wanted = False
        """Whether anybody wants events. Read once per slice and once per blocking call."""
        self.raising_used = False
        """Whether anybody ever asked for exceptions; until then nobody looks for it."""
        self.failures = 0
        """Exceptions of callbacks and providers."""
        self._complained: set[int] = set()

    def begin_anew(self) -> None:
        """Count failures from zero again: after stop(), and in a forked child."""
        self.failures = 0
        self._complained.clear()

    # --- registration -------------------------------------------------------------------------------------------------

    def add_callback(self, callback: SlowTaskCallback) -> None:
        if callback not in self.callbacks:
            self.callbacks = (*self.callbacks, callback)
        self._update()

    def remove_callback(self, callback: SlowTaskCallback) -> None:
        self.callbacks = tuple([known for known in self.callbacks if known != callback])
        self._update()

    def clear_callbacks(self) -> None:
        self.callbacks = ()
        self._update()

    def add_provider(self, provider: ContextProvider, *, before_slices: bool = True) -> None:
        if provider in self.providers or provider in self.late_providers:
            return
        if before_slices:
            self.providers = (*self.providers, provider)
        else:
            self.late_providers = (*self.late_providers, provider)

    def remove_provider(self, provider: ContextProvider) -> None:
        self.providers = tuple([known for known in self.providers if known != provider])
        self.late_providers = tuple([known for known in self.late_providers if known != provider])

    def clear_providers(self) -> None:
        self.providers = ()
        self.late_providers = ()

    def enable_raising(self, *, at_call: bool = False) -> Token[int]:
        """Raise on violations in the current context from now on: after the slice, or before the call happens."""
        self.raising_used = True
        self._update()
        return _raise_on_violations.set(_AT_CALL if at_call else _AFTER_SLICE)

    def disable_raising(self) -> None:
        _raise_on_violations.set(_OFF)

    def reset_raising(self, token: Token[int]) -> None:
        _raise_on_violations.reset(token)

    def raising_enabled(self) -> bool:
        return _raise_on_violations.get() != _OFF

    def _update(self) -> None:
        self.wanted = bool(self.callbacks) or self.raising_used

    # --- while a slice runs -------------------------------------------------------------------------------------------

    def note_raising(self, thread: LoopThread) -> None:
        """Remember that a blocking call happened where exceptions were asked for."""
        if _raise_on_violations.get() == _AFTER_SLICE:
            thread.raising = True

    def raising_now(self) -> bool:
        """Whether somebody in this context is owed exceptions. Cheap while nobody ever asked for them."""
        return self.raising_used and self.raising_enabled()

    def raise_at_call(self, call: BlockingCall, threshold_ns: int) -> None:
        """Raise HighSeverityBlockingIoException instead of a call, where that was asked for and it deserves it."""
        weight = call.traced.weight
        if weight >= THRESHOLD_HIGH and _raise_on_violations.get() == _AT_CALL:
            raise HighSeverityBlockingIoException(
                severity_score=weight,
                severity_level=get_severity_level_from_score(weight),
                elapsed_ms=0.0,
                threshold_ms=threshold_ns / 1e6,
                events=[call.info()],
            )

    def provide(self, providers: Iterable[ContextProvider] | None = None) -> dict[str, Any]:
        """What the context providers say now; all of them, or these."""
        context: dict[str, Any] = {}
        for provider in (*self.providers, *self.late_providers) if providers is None else providers:
            try:
                context.update(provider() or {})
            except Exception:  # noqa: BLE001 - the provider is the user's; what it raises must not reach the service
                self._complain(provider, "context provider")
        return context

    # --- when it has ended --------------------------------------------------------------------------------------------

    def event(
        self,
        thread: LoopThread,
        elapsed_ns: int,
        threshold_ns: int,
        overrun: Overrun | None,
        callback: Any,
        context: Context | None,
        before: dict[str, Any] | None,
    ) -> SlowTaskEvent:
        """The event of the slice that has ended on `thread`; `overrun` is None where it was below the threshold.

        `callback` is what ran, in `context` (None is the current one); `before` is what the providers said before it.
        """
        # The constructor of a frozen dataclass calls object.__setattr__ per field, which costs 2 to 4 µs; this, 0.2.
        event = _new_object(SlowTaskEvent)
        fields = event.__dict__
        calls = thread.calls
        if overrun is None and len(calls) == 1 and len(thread.touched) == 1:
            call = calls[0]
            fields.update(call.traced.alone)
            fields["blocking_events"] = [call.info()]
        else:
            fields.update(NO_CALL)
            self._describe(fields, thread, overrun)
        elapsed_ms = elapsed_ns / 1e6
        fields["elapsed_ms"] = elapsed_ms
        fields["threshold_ms"] = threshold_ns / 1e6
        fields["context"] = self.context(thread, context, before) if self.providers or self.late_providers else {}
        fields["cpu_stack_samples"] = count_samples(self._traces, overrun.samples) if overrun is not None else []
        fields["started_at"] = time() - elapsed_ms / 1e3
        fields["gc_ms"] = thread.gc_ns / 1e6
        fields["task_name"] = task_name(callback)
        fields["thread_name"] = thread.python_thread.name
        fields["loop"] = thread.loop
        return event

    def _describe(self, fields: dict[str, Any], thread: LoopThread, overrun: Overrun | None) -> None:
        """Fill in what all that happened in a slice says together."""
        blocking_events = []
        score = 0
        for call in thread.calls:
            blocking_events.append(call.info())
            score += call.traced.weight
        fields["severity_score"] = score
        fields["severity_level"] = get_severity_level_from_score(score)
        fields["blocking_events"] = blocking_events
        if not blocking_events:
            fields["reason"] = "cpu_blocking"
        worst = max(thread.touched, key=_slice_blocked_ns).site if thread.touched else None
        fields["cause"] = worst.definition.cause if worst is not None else "cpu"
        fields["call_site"] = worst.call_site if worst is not None else ""
        if overrun is not None:
            fields["exceeded_threshold"] = True
            fields["cpu_ms"] = overrun.cpu_ns / 1e6 if overrun.cpu_ns >= 0 else None
            if overrun.starved:
                fields["cause"] = "starved"

    def context(self, thread: LoopThread, context: Context | None, before: dict[str, Any] | None) -> dict[str, Any]:
        """Context at the first blocking call; without one, before the slice, completed and overridden by after it.

        What a late provider did not know yet at the first call (a route, before something was routed) it may add after.
        """
        provided = thread.provided
        if provided is not None:
            return {**self._provide_in(context, self.late_providers), **provided} if self.late_providers else provided
        after = self._provide_in(context, None)
        return {**(before or {}), **{key: value for key, value in after.items() if value is not None}}

    def _provide_in(self, context: Context | None, providers: Iterable[ContextProvider] | None) -> dict[str, Any]:
        return self.provide(providers) if context is None else context.run(self.provide, providers)

    def deliver(self, event: SlowTaskEvent, *, raising: bool) -> None:
        """Call the callbacks. Raises HighSeverityBlockingIoException where `raising`, and the event deserves it."""
        for callback in self.callbacks:
            try:
                callback(event)
            except HighSeverityBlockingIoException:
                raise
            except Exception:  # noqa: BLE001 - the callback is the user's; what it raises must not reach the service
                self._complain(callback, "slow task callback")
        if raising and event.exceeded_threshold and event.severity_score >= THRESHOLD_HIGH:
            raise HighSeverityBlockingIoException(
                severity_score=event.severity_score,
                severity_level=event.severity_level,
                elapsed_ms=event.elapsed_ms,
                threshold_ms=event.threshold_ms,
                events=event.blocking_events,
            )

    def _complain(self, function: Any, what: str) -> None:
        self.failures += 1
        if id(function) not in self._complained:
            self._complained.add(id(function))
            name = getattr(function, "__qualname__", repr(function))
            _logger.warning("Error in %s %s; further ones are only counted", what, name, exc_info=True)


class RaiseOnViolations:
    """`with raise_on_violations():` — in this context, a slow slice with severe blocking calls raises."""

    def __init__(self, events: Events, *, at_call: bool) -> None:
        self._events = events
        self._at_call = at_call
        self._token: Token[int] | None = None

    def __enter__(self) -> RaiseOnViolations:
        self._token = self._events.enable_raising(at_call=self._at_call)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            self._events.reset_raising(self._token)


def _slice_blocked_ns(counters: SiteCounters) -> int:
    return counters.slice_blocked_ns


def format_trace(traces: Traces, stack: Iterable[StackFrame]) -> str:
    """`path:line:function <- …`, innermost first; `<loop>` where the loop called a built-in function itself."""
    return " <- ".join([shown(frame) for frame in traces.frames(stack)]) or LOOP


def count_samples(traces: Traces, samples: Iterable[Sample]) -> list[CpuStackSample]:
    """The different stacks among some samples, the most frequent first."""
    counts: dict[str, int] = {}
    for sample in samples:
        trace = format_trace(traces, sample.stack)
        counts[trace] = counts.get(trace, 0) + 1
    return [
        {"trace": trace, "entry_point": trace.partition(" <- ")[0], "count": count}
        for trace, count in sorted(counts.items(), key=lambda item: item[1], reverse=True)
    ]


def format_blocking_event(raw_event: RawBlockingEvent) -> BlockingEventInfo:
    """A raw event as text. The stack's file names are shown as they are, less any `src/` or installation prefix."""
    arguments = raw_event["raw_args"]
    if len(arguments) == 2 and isinstance(arguments[0], tuple) and isinstance(arguments[1], dict):
        arguments = arguments[0]
    frames = [f"{_short_path(path)}:{line}:{function}" for path, line, function in raw_event["raw_stack"]]
    return {
        "event": format_call(raw_event["event_name"], arguments),
        "trace": " <- ".join(frames),
        "entry_point": frames[0] if frames else "unknown",
        "severity": raw_event["severity"],
    }


def _short_path(path: str) -> str:
    for marker in ("/src/", "/site-packages/", "/dist-packages/"):
        if marker in path:
            return path.partition(marker)[2]
    if "/lib/python" in path:
        return path.rpartition("/")[2]
    return path
