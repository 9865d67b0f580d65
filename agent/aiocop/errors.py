"""What the agent raises.

    ValueError
    └── ConfigurationError                  a bad argument of start(); the caller made a mistake and should see it
    Exception
    └── HighSeverityBlockingIoException     raised into the service, and only where raise_on_violations() asked for it

Everything else that goes wrong inside the agent is counted and logged once; nothing else is ever raised into a service.
"""

from __future__ import annotations

from aiocop.event_types import BlockingEventInfo

_RULE = "=" * 80


class ConfigurationError(ValueError):
    """An argument of start() that cannot be used; the text names it, its value and what would do."""


class HighSeverityBlockingIoException(Exception):  # noqa: N818 - a published name
    """A slice exceeded the threshold with blocking calls of high severity."""

    def __init__(
        self,
        severity_score: int,
        severity_level: str,
        elapsed_ms: float,
        threshold_ms: float,
        events: list[BlockingEventInfo],
    ) -> None:
        self.severity_score = severity_score
        self.severity_level = severity_level
        self.elapsed_ms = elapsed_ms
        self.threshold_ms = threshold_ms
        self.events = events
        super().__init__(self._message())

    def _message(self) -> str:
        lines = [
            "",
            _RULE,
            "HIGH SEVERITY BLOCKING I/O DETECTED",
            _RULE,
            f"The event loop was frozen for {self.elapsed_ms:.2f} ms (threshold {self.threshold_ms:.2f} ms)",
            f"  Severity Score: {self.severity_score}",
            f"  Severity Level: {self.severity_level}",
        ]
        for event in self.events or ():
            lines += [f"  - {event['event']}", f"    at {event['trace']}"]
        return "\n".join([*lines, _RULE, ""])
