"""Blocking calls as callbacks see them: what all calls of one operation with one trace have in common, and each call.

Cost model. A trace is formatted once per different stack. A call costs one small object, and at the end of its slice
one copy of a dict and the text of its arguments: about 0.5 µs. Nothing here runs unless somebody wants events.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from aiocop.aggregate import SiteCounters
from aiocop.event_types import BlockingEventInfo, SlowTaskEvent
from aiocop.severity import get_severity_level_from_score

MAX_ARGUMENT_LENGTH: Final = 100
"""Characters of one argument in a blocking event's text."""


NO_CALL: Final = vars(
    SlowTaskEvent(
        elapsed_ms=0.0,
        threshold_ms=0.0,
        exceeded_threshold=False,
        severity_score=0,
        severity_level="low",
        reason="io_blocking",
        blocking_events=[],
    )
)
"""Every field of an event of a fast slice, in order, before anything is known of it. Copied, never changed."""


class TracedCalls:
    """All calls of one operation with one trace, on one loop's thread."""

    __slots__ = ("alone", "common", "counters", "operation", "weight")

    def __init__(self, counters: SiteCounters, trace: str) -> None:
        definition = counters.site.definition
        self.counters = counters
        self.operation = definition.operation
        self.weight = definition.weight
        self.common: BlockingEventInfo = {
            "event": format_call(definition.operation, ()),
            "trace": trace,
            "entry_point": counters.site.entry_point,
            "severity": definition.weight,
            "call_site": counters.site.call_site,
            "fingerprint": f"{definition.fingerprint:016x}",
            "duration_ms": None,
            "advice": definition.advice,
        }
        """What callbacks are told of a call without arguments. Copied, never given away: a callback may change it."""
        self.alone: dict[str, Any] = {
            **NO_CALL,
            "severity_score": self.weight,
            "severity_level": get_severity_level_from_score(self.weight),
            "cause": definition.cause,
            "call_site": counters.site.call_site,
        }
        """Fields of the event of a fast slice that made one such call and nothing else: by far the most frequent."""


class BlockingCall:
    """One blocking call of the running slice; its wrapper fills in the duration when it ends."""

    __slots__ = ("arguments", "duration_ns", "traced")

    def __init__(self, traced: TracedCalls, arguments: tuple[Any, ...]) -> None:
        self.traced = traced
        self.arguments = arguments
        self.duration_ns = -1

    def info(self) -> BlockingEventInfo:
        """The call as callbacks see it."""
        traced = self.traced
        info = traced.common.copy()
        if self.arguments:
            info["event"] = format_call(traced.operation, self.arguments)
        if self.duration_ns >= 0:
            info["duration_ms"] = self.duration_ns / 1e6
        return info


def format_call(operation: str, arguments: Iterable[Any]) -> str:
    """`open(/dev/null, w)`: an operation with its arguments, each cut to MAX_ARGUMENT_LENGTH characters."""
    try:
        text = ", ".join([str(argument)[:MAX_ARGUMENT_LENGTH] for argument in arguments])
    except Exception:  # noqa: BLE001 - str() of the service's own objects may raise anything
        text = "…"
    return f"{operation}({text})"
