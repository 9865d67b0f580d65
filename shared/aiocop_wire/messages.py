"""What crosses the socket: plain values, one class per message or repeated item.

    stream (unix://)     agent → collector   Hello, then any of Define, Report, Stall, Controlled, Farewell
                         collector → agent   Welcome (or Refused, and the end), then any of Ack, Control
    datagram (udp://)    agent → collector   Datagram, each one self-contained; nothing comes back

Times carry their unit: `_ms` and `_us` are integers of milliseconds and microseconds, `_at_ms` is Unix time in
milliseconds. Counters in `Report.dropped` and `Health` are totals since the agent started; everything in `SiteDelta` is
what happened since the report before.

Rules for changing this: a new field at the end of an item, or a new key of a message, is no new version; a receiver
ignores what it does not know and has a default for what is missing. A new kind of message is no new version either,
where the receiver names it among the `features` of its Welcome (an agent: of its Hello) and the sender sends it only
then: an older receiver ends a stream over a message it does not know. Anything else is a new PROTOCOL_VERSION, with a
line in the history below and new golden files; the old golden files stay.

History of versions
    1   the first. Later: Welcome.features, Stall, Report.stalls, Datagram.stall; Hello.features, Control, Controlled,
        SlowEvent.capture; Health.overhead; SlowSite.arguments;
        SlowEvent.waiting, Report.loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from aiocop_wire.light_typing import NamedTuple

PROTOCOL_VERSION: Final = 1

Cause = Literal["io", "wait", "cpu", "gc", "gil", "loop", "starved"]
Reason = Literal["io_blocking", "cpu_blocking"]
FrameKind = Literal[0, 1, 2]
StallState = Literal["frozen", "ended"]

CAUSES: Final[tuple[str, ...]] = ("io", "wait", "cpu", "gc", "gil", "loop", "starved")
REASONS: Final[tuple[str, ...]] = ("io_blocking", "cpu_blocking")

FROZEN: Final = "frozen"
ENDED: Final = "ended"
STALL_STATES: Final[tuple[str, ...]] = (FROZEN, ENDED)

FEATURE_STALLS: Final = "stalls"
"""In Welcome.features: the collector takes Stall messages."""

FEATURE_CONTROL: Final = "control"
"""In Welcome.features: the collector takes Controlled messages, and sends Control messages to agents that take them.
In Hello.features: the agent takes Control messages."""

FRAME_APPLICATION: Final = 0
FRAME_LIBRARY: Final = 1
FRAME_STANDARD: Final = 2

ContextValue = str | int | float | bool | None


class Identity(NamedTuple):
    """Who reports: one process, from `start()` to `stop()` or its death. A fork and a restart are somebody new."""

    instance: bytes
    """16 random bytes, new per process, per fork and per `start()` after `stop()`."""
    pid: int
    host: str
    service: str
    environment: str = ""
    release: str = ""
    python: str = ""
    """`3.12.1`"""
    loop: str = ""
    """`asyncio`, `uvloop`, or both with a comma; empty while no loop has run."""
    agent_version: str = ""
    started_at_ms: int = 0


class Hello(NamedTuple):
    """First message of a stream."""

    identity: Identity
    version: int = PROTOCOL_VERSION
    features: tuple[str, ...] = ()
    """Kinds of messages beyond the first ones that the agent takes: see FEATURE_CONTROL."""


class Welcome(NamedTuple):
    """The collector's answer: reports up to `committed_sequence` are in the store, forget those; resend the rest."""

    committed_sequence: int
    collector: str = ""
    """The collector's version, for logs."""
    version: int = PROTOCOL_VERSION
    features: tuple[str, ...] = ()
    """Kinds of messages beyond the first ones that the collector takes: see FEATURE_STALLS."""


class Refused(NamedTuple):
    """The collector will not talk with this agent. It closes the stream after this; try again only after minutes."""

    reason: str
    message: str = ""


class Ack(NamedTuple):
    """Every report up to `sequence` is committed: durable in the store."""

    sequence: int


class CaptureRequest(NamedTuple):
    """Show the next slow slice in which a function froze its loop, in detail."""

    request_id: int
    place_id: int
    """Of the call site's path and function: see fingerprint.place_id."""


class Control(NamedTuple):
    """What the collector wants of an agent, in full: what is None is the agent's own to decide. It replaces the Control
    before it, and stays in force when the connection is lost."""

    revision: int
    """Grows with every change; 0 where nothing was ever wanted."""
    active: bool | None = None
    """False: the agent pauses. It measures nothing, and stays connected."""
    threshold_us: int | None = None
    trace_depth: int | None = None
    """Frames of a trace that are kept, those of application code aside."""
    captures: tuple[CaptureRequest, ...] = ()


class Controlled(NamedTuple):
    """What is in force in an agent. Sent after the Welcome and whenever it changes; the latest one is true."""

    revision: int
    """Of the Control that is in force; 0 for none."""
    active: bool
    threshold_us: int
    trace_depth: int
    refused: str = ""
    """Why the agent did not take (all of) the last Control."""


class Frame(NamedTuple):
    """One line of a trace. `path` is a module path (`shop/orders.py`), `function` a qualified name."""

    path: str
    line: int
    function: str
    kind: int = FRAME_APPLICATION

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.function}"


class SiteDefinition(NamedTuple):
    """The static facts of a site, sent once per connection before the first report that counts it."""

    site_id: int
    operation: str
    """As in the catalogue (`open`, `socket.socket.connect`), or `cpu`, `wait`, `gc`, `gil`, `loop`, `other`."""
    fingerprint: int
    cause: str
    reason: str
    weight: int
    """Severity weight of the operation: 0, 1, 10 or 50."""
    frames: tuple[Frame, ...]
    """From the call to the call site, innermost first: the first is the entry point."""
    call_site: int = 0
    """Index in `frames` of the call site."""
    advice: str = ""


class TraceDefinition(NamedTuple):
    """One full trace seen at a site, innermost frame first: who called the call site."""

    trace_id: int
    site_id: int
    frames: tuple[Frame, ...]


class Define(NamedTuple):
    """Definitions that the reports after this one on the same connection refer to by id."""

    sites: tuple[SiteDefinition, ...] = ()
    traces: tuple[TraceDefinition, ...] = ()


class SiteDelta(NamedTuple):
    """What a site added in the window of a report."""

    site_id: int
    count: int  # type: ignore[assignment]  # a tuple's count() is not missed here
    """Blocking calls (or over-threshold slices, where no hook or wrapper sees the call)."""
    slow_count: int
    """Over-threshold slices that contain the site."""
    blocked_us: int
    max_us: int
    """Longest single blocked time of the window."""
    bins: tuple[int, ...] = ()
    """Histogram of the blocked times, sparse: bin, count, bin, count, … (see histogram.py)."""


class LoopDelta(NamedTuple):
    """What one loop thread did in the window of a report."""

    number: int
    """1, 2, 3, … in its process; 0 for all those that are too many to be kept apart."""
    thread_name: str
    loop: str
    """`asyncio` or `uvloop`; empty where it is not known yet."""
    observed_us: int
    """How long it was watched."""
    blocked_us: int
    """Of that, in slices over the threshold, and in turns of many short callbacks that were over it together."""
    starved_us: int = 0
    """Of that, without a CPU because the host gave none."""
    slow_slices: int = 0
    waiting: int = 0
    """Callbacks that waited behind those slices, summed over them: 0 where the loop does not show it."""
    waiting_max: int = 0
    lag_us: int = 0
    """Sum over all timers of how late each one ran."""
    lag_max_us: int = 0
    lag_bins: tuple[int, ...] = ()
    """Histogram of how late timers ran, sparse (see histogram.py)."""


class SlowSite(NamedTuple):
    """A site's part in one slow event."""

    site_id: int
    count: int  # type: ignore[assignment]  # a tuple's count() is not missed here
    blocked_us: int
    trace_id: int = 0
    """0 where no full trace was kept."""
    arguments: Mapping[str, ContextValue] = MappingProxyType({})
    """Of its costliest call, by position or name; empty unless the service allows it."""


class CapturedMoment(NamedTuple):
    """One blocking call of a captured slice, or one look of the watchdog at it."""

    at_us: int
    """When it began, after the start of the slice."""
    blocked_us: int
    """How long it took without the calls inside it; -1 for a look."""
    site_id: int
    """0 for a look."""
    trace: int
    """Index in Capture.traces; -1 where there was no room for another one."""


class Capture(NamedTuple):
    """The detail of a slow event that a collector asked for. It needs no definitions."""

    request_id: int
    moments: tuple[CapturedMoment, ...] = ()
    """In order of time."""
    traces: tuple[tuple[Frame, ...], ...] = ()
    """Whole stacks, innermost frame first."""


class SlowEvent(NamedTuple):
    """One over-threshold slice."""

    started_at_ms: int
    elapsed_us: int
    threshold_us: int
    cause: str
    severity_score: int
    sites: tuple[SlowSite, ...] = ()
    task_name: str = ""
    thread_name: str = ""
    loop: str = ""
    cpu_us: int = -1
    """CPU time of the loop's thread in the slice; -1 where it was not measured."""
    gc_us: int = 0
    context: Mapping[str, ContextValue] = MappingProxyType({})
    capture: Capture | None = None
    waiting: int = -1
    """Callbacks that were ready or due when it ended: what it cost others. -1 where the loop does not show it."""


class Stall(NamedTuple):
    """A slice that runs, or ran, for longer than the agent's `stall_after`. It adds nothing to any count: its calls are
    counted when they end, in the deltas of a report."""

    slice_ns: int
    """Start of the slice on the agent's monotonic clock: names the stall among those of its instance."""
    started_at_ms: int
    blocked_us: int
    """So far; in all, once it has ended."""
    state: str = FROZEN
    site_id: int = 0
    """Where it is now (frozen) or was longest (ended); 0 where nobody could look."""
    frames: tuple[Frame, ...] = ()
    """The whole stack when it was last looked at, innermost first; empty where nobody could look."""
    counted: bool = False
    """The call that freezes is in the deltas already, only its time is not (only its start can be seen)."""
    thread_name: str = ""


class Overhead(NamedTuple):
    """What an agent costs the loops that it watches, and how closely it looks therefore."""

    level: int = 0
    """How much of its detail the agent has given up to keep within its budget: 0 for none, 3 for counts only."""
    share_ppm: int = 0
    """Part of the busiest loop thread's time that the agent took in the last second or so, in millionths."""
    budget_ppm: int = 0
    """What it may take, in millionths; 0 where it never gives up detail."""
    since_ms: int = 0
    """Since when (Unix time) the level holds; 0 where it was never another."""
    reductions: int = 0
    """How often it gave up detail: steps to a higher level since the start."""


class Health(NamedTuple):
    """The agent's own totals since it started."""

    recorded: int = 0
    """Blocking calls counted."""
    slices: int = 0
    """Slices run on all loops."""
    agent_cpu_us: int = 0
    """CPU time of the agent's own threads."""
    overhead: Overhead | None = None
    """None where the agent does not tell."""


class Report(NamedTuple):
    """What one agent saw in one window of time. Once written to a socket it never changes; a resend is identical."""

    sequence: int
    """1, 2, 3, … per instance: the collector applies each one exactly once."""
    started_at_ms: int
    """Start of the window. A window never crosses a full minute."""
    span_ms: int
    deltas: tuple[SiteDelta, ...] = ()
    slow_events: tuple[SlowEvent, ...] = ()
    dropped: Mapping[str, int] = MappingProxyType({})
    """Blocking calls, and slow events (reasons ending in `_events`), that will never arrive, by reason."""
    health: Health = Health()
    stalls: tuple[Stall, ...] = ()
    """Those that have ended."""
    loops: tuple[LoopDelta, ...] = ()
    """The process's loop threads, idle ones too."""


class Farewell(NamedTuple):
    """The agent stops on purpose; its last report has `last_sequence`."""

    last_sequence: int


class Datagram(NamedTuple):
    """Everything a receiver needs to use one report without having seen another. Several make up one window."""

    identity: Identity
    report: Report | None = None
    define: Define = Define()
    farewell: Farewell | None = None
    version: int = PROTOCOL_VERSION
    stall: Stall | None = None


Message = Hello | Welcome | Refused | Ack | Define | Report | Farewell | Datagram | Stall | Control | Controlled
