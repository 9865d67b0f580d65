"""What callbacks receive."""

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

IoSeverityLevel = Literal["low", "medium", "high"]


class RawBlockingEvent(TypedDict):
    """One blocking call as it was caught, before formatting."""

    event_name: str
    raw_args: tuple[Any, ...]
    raw_stack: list[tuple[str, int, str]]
    """(file name or module path, line, function), innermost first."""
    timestamp: float
    """Unix time in seconds."""
    severity: int | None


class _PublishedBlockingEventInfo(TypedDict):
    event: str
    """The operation with its arguments: `open(/dev/null, w)`."""
    trace: str
    """`path:line:function <- path:line:function …`, innermost first."""
    entry_point: str
    """The first frame of the trace."""
    severity: int | None


class BlockingEventInfo(_PublishedBlockingEventInfo, total=False):
    """One blocking call, ready to read."""

    call_site: str
    """The innermost frame of the trace that is application code: where somebody can fix it."""
    fingerprint: str
    """Sixteen hexadecimal digits, stable across hosts, releases and restarts."""
    duration_ms: float | None
    """Time this call froze the loop; None where only its start could be seen."""
    advice: str
    """What to use instead."""


class CpuStackSample(TypedDict):
    """One stack the watchdog saw in a slice that overran, and how often."""

    trace: str
    entry_point: str
    count: int


@dataclass(frozen=True)
class SlowTaskEvent:
    """One slice that contained blocking calls or exceeded the threshold."""

    elapsed_ms: float
    threshold_ms: float
    exceeded_threshold: bool
    severity_score: int
    severity_level: str
    reason: str
    """`io_blocking` when a blocking call was seen, `cpu_blocking` otherwise."""
    blocking_events: list[BlockingEventInfo]
    context: dict[str, Any] = field(default_factory=dict)
    """What the context providers returned."""
    cpu_stack_samples: list[CpuStackSample] = field(default_factory=list)
    started_at: float = 0.0
    """Unix time in seconds."""
    cause: str = ""
    """Where most of the time went: `io`, `wait`, `cpu`, `gc`, `gil`, `loop`; `starved` when the host gave no CPU."""
    cpu_ms: float | None = None
    """CPU time of the loop's thread in the part of the slice that was watched; None where it was not."""
    gc_ms: float = 0.0
    task_name: str = ""
    thread_name: str = ""
    loop: str = ""
    """`asyncio` or `uvloop`."""
    call_site: str = ""
    """The call site that froze the loop longest."""
