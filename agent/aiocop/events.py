"""From slices to `SlowTaskEvent`s: callbacks, context providers, raise-on-violations.

Nothing here runs unless somebody registered a callback or asked for exceptions. What they registered is theirs and may
fail: an exception of theirs is logged once per function and counted, and never reaches the service.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from aiocop._stdlib import time_ns
from aiocop.errors import HighSeverityBlockingIoException
from aiocop.event_types import BlockingEventInfo, CpuStackSample, RawBlockingEvent, SlowTaskEvent
from aiocop.severity import THRESHOLD_HIGH, calculate_io_severity_score, get_severity_level_from_score
from aiocop.traces import LOOP, Site, StackFrame, Traces, shown

if TYPE_CHECKING:
    from contextvars import Token

SlowTaskCallback = Callable[[SlowTaskEvent], None]
ContextProvider = Callable[[], "dict[str, Any] | None"]

MAX_ARGUMENT_LENGTH: Final = 100
"""Characters of one argument in a blocking event's text."""
_MAX_CACHED_TRACES: Final = 4_096

_logger = logging.getLogger("aiocop")
_OFF: Final = 0
_AFTER_SLICE: Final = 1
_AT_CALL: Final = 2
_raise_on_violations: ContextVar[int] = ContextVar("aiocop_raise_on_violations", default=_OFF)


class BlockingCall:
    """One blocking call of the running slice; its wrapper fills in the duration when it ends."""

    __slots__ = ("arguments", "duration_ns", "site", "trace")

    def __init__(self, site: Site, arguments: tuple[Any, ...], trace: str) -> None:
        self.site = site
        self.arguments = arguments
        self.trace = trace
        self.duration_ns = -1


class SliceFacts(NamedTuple):
    """What is known of a slice when it has ended."""

    elapsed_ns: int
    threshold_ns: int
    exceeded: bool
    """Above the threshold."""
    starved: bool
    """Above it only because the host gave the thread no CPU."""
    calls: tuple[BlockingCall, ...]
    sites: tuple[tuple[Site, int, int], ...]
    """(site, count, blocked ns) of everything that froze the loop in it."""
    samples: tuple[tuple[StackFrame, ...], ...]
    cpu_ns: int
    gc_ns: int
    loop: str
    before: dict[str, Any] | None
    """Context as the providers gave it before the slice ran."""
    provided: dict[str, Any] | None
    """The same at its first blocking call."""
    after: Callable[..., dict[str, Any]]
    """`Events.provide`, in the slice's own contextvars: gives the context now."""
    raising: bool
    task_name: str


class _RaisingThread(Protocol):
    raising: bool


class Events:
    """The callbacks and context providers of one agent."""

    def __init__(self) -> None:
        self.callbacks: tuple[SlowTaskCallback, ...] = ()
        """Replaced, never changed in place: loop threads iterate over it."""
        self.providers: tuple[ContextProvider, ...] = ()
        """Asked before each slice, at its first blocking call, and after it."""
        self.late_providers: tuple[ContextProvider, ...] = ()
        """Not asked before slices: these cost nothing as long as nothing blocks."""
        self.wanted = False
        """Whether anybody wants events. Read once per slice and once per blocking call."""
        self.failures = 0
        """Exceptions of callbacks and providers."""
        self._raising_used = False
        self._complained: set[int] = set()
        self._traces: dict[tuple[object, ...], str] = {}

    def begin_anew(self) -> None:
        """Count failures from zero again: after stop(), and in a forked child."""
        self.failures = 0
        self._complained.clear()
        self._traces.clear()

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

    def enable_raising(self, *, at_call: bool = False) -> "Token[int]":
        """Raise on violations in the current context from now on: after the slice, or before the call happens."""
        self._raising_used = True
        self._update()
        return _raise_on_violations.set(_AT_CALL if at_call else _AFTER_SLICE)

    def disable_raising(self) -> None:
        _raise_on_violations.set(_OFF)

    def reset_raising(self, token: "Token[int]") -> None:
        _raise_on_violations.reset(token)

    def raising_enabled(self) -> bool:
        return _raise_on_violations.get() != _OFF

    def _update(self) -> None:
        self.wanted = bool(self.callbacks) or self._raising_used

    # --- while a slice runs -------------------------------------------------------------------------------------------

    def note_raising(self, thread: _RaisingThread) -> None:
        """Remember that a blocking call happened where exceptions were asked for."""
        if self._raising_used and _raise_on_violations.get() == _AFTER_SLICE:
            thread.raising = True

    def raise_at_call(self, call: BlockingCall, threshold_ns: int) -> None:
        """Raise HighSeverityBlockingIoException instead of a call, where that was asked for and it deserves it."""
        weight = call.site.definition.weight
        if self._raising_used and weight >= THRESHOLD_HIGH and _raise_on_violations.get() == _AT_CALL:
            raise HighSeverityBlockingIoException(
                severity_score=weight,
                severity_level=get_severity_level_from_score(weight),
                elapsed_ms=0.0,
                threshold_ms=threshold_ns / 1e6,
                events=[blocking_event_info(call)],
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

    def trace(self, traces: Traces, frame: FrameType | None, limit: int) -> str:
        """The full trace of a call as text, formatted once per different stack."""
        key = traces.full_key(frame, limit)
        text = self._traces.get(key)
        if text is None:
            text = format_trace(traces, traces.stack(frame, limit))
            if len(self._traces) >= _MAX_CACHED_TRACES:
                self._traces.clear()
            self._traces[key] = text
        return text

    # --- when it has ended --------------------------------------------------------------------------------------------

    def deliver(self, facts: SliceFacts, traces: Traces) -> None:
        """Call the callbacks with the event of a slice.

        Raises HighSeverityBlockingIoException where it was asked for and the slice deserves it.
        """
        event = self._event(facts, traces)
        for callback in self.callbacks:
            try:
                callback(event)
            except HighSeverityBlockingIoException:
                raise
            except Exception:  # noqa: BLE001 - the callback is the user's; what it raises must not reach the service
                self._complain(callback, "slow task callback")
        if facts.raising and event.exceeded_threshold and event.severity_score >= THRESHOLD_HIGH:
            raise HighSeverityBlockingIoException(
                severity_score=event.severity_score,
                severity_level=event.severity_level,
                elapsed_ms=event.elapsed_ms,
                threshold_ms=event.threshold_ms,
                events=event.blocking_events,
            )

    def _event(self, facts: SliceFacts, traces: Traces) -> SlowTaskEvent:
        blocking_events = [blocking_event_info(call) for call in facts.calls]
        score = calculate_io_severity_score(blocking_events)
        worst = max(facts.sites, key=lambda item: item[2], default=None)
        event = SlowTaskEvent(
            elapsed_ms=facts.elapsed_ns / 1e6,
            threshold_ms=facts.threshold_ns / 1e6,
            exceeded_threshold=facts.exceeded,
            severity_score=score,
            severity_level=get_severity_level_from_score(score),
            reason="io_blocking" if blocking_events else "cpu_blocking",
            blocking_events=blocking_events,
            context={},
            cpu_stack_samples=count_samples(traces, facts.samples),
            started_at=(time_ns() - facts.elapsed_ns) / 1e9,
            cause=_cause(facts, worst),
            cpu_ms=facts.cpu_ns / 1e6 if facts.cpu_ns >= 0 else None,
            gc_ms=facts.gc_ns / 1e6,
            task_name=facts.task_name,
            thread_name=threading.current_thread().name,
            loop=facts.loop,
            call_site=worst[0].call_site if worst is not None else "",
        )
        if not (self.providers or self.late_providers):
            return event
        return replace(event, context=self.context(facts.provided, facts.before, facts.after))

    def context(
        self,
        provided: dict[str, Any] | None,
        before: dict[str, Any] | None,
        after: Callable[..., dict[str, Any]],
    ) -> dict[str, Any]:
        """Context at the first blocking call; without one, before the slice, completed and overridden by after it.

        `after` is `provide` in the slice's own contextvars. What a late provider did not know yet at the first call (a
        route, before something was routed) it may add after.
        """
        if provided is not None:
            return {**after(self.late_providers), **provided} if self.late_providers else provided
        return {**(before or {}), **{key: value for key, value in after().items() if value is not None}}

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

    def __enter__(self) -> "RaiseOnViolations":
        self._token = self._events.enable_raising(at_call=self._at_call)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            self._events.reset_raising(self._token)


def _cause(facts: SliceFacts, worst: tuple[Site, int, int] | None) -> str:
    if facts.starved:
        return "starved"
    return worst[0].definition.cause if worst is not None else "cpu"


def format_trace(traces: Traces, stack: Iterable[StackFrame]) -> str:
    """`path:line:function <- …`, innermost first; `<loop>` where the loop called a built-in function itself."""
    return " <- ".join([shown(frame) for frame in traces.frames(stack)]) or LOOP


def format_call(operation: str, arguments: Iterable[Any]) -> str:
    """`open(/dev/null, w)`: an operation with its arguments, each cut to MAX_ARGUMENT_LENGTH characters."""
    try:
        text = ", ".join([str(argument)[:MAX_ARGUMENT_LENGTH] for argument in arguments])
    except Exception:  # noqa: BLE001 - str() of the service's own objects may raise anything
        text = "…"
    return f"{operation}({text})"


def blocking_event_info(call: BlockingCall) -> BlockingEventInfo:
    """A call as callbacks see it."""
    definition = call.site.definition
    return {
        "event": format_call(definition.operation, call.arguments),
        "trace": call.trace,
        "entry_point": call.site.entry_point,
        "severity": definition.weight,
        "call_site": call.site.call_site,
        "fingerprint": f"{definition.fingerprint:016x}",
        "duration_ms": call.duration_ns / 1e6 if call.duration_ns >= 0 else None,
        "advice": definition.advice,
    }


def count_samples(traces: Traces, samples: Iterable[tuple[StackFrame, ...]]) -> list[CpuStackSample]:
    """The different stacks among some samples, the most frequent first."""
    counts: dict[str, int] = {}
    for stack in samples:
        trace = format_trace(traces, stack)
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
