"""What the collector answers: one model per answer or repeated item, as they appear in the API's JSON.

Times are RFC 3339 in UTC (`…Z`), durations milliseconds (`_ms`), ids sixteen hexadecimal digits. `count` is exact;
percentiles come from histograms (within 10 % from 1 ms on, 0.1 ms below).
"""

from typing import Literal

from pydantic import ConfigDict, Field

from aiocop_collector.answers.base import Answer, FrameAnswer, HistoryEntry, Time, Values
from aiocop_collector.answers.control import AgentControl, CaptureAnswer, ServiceControl
from aiocop_collector.answers.examples import EXAMPLE_DETAIL, EXAMPLE_HOTSPOT, EXAMPLE_WINDOW
from aiocop_collector.answers.words import GroupBy, Reason, SeverityLevel, Status


class WindowAnswer(Answer):
    """The time an answer covers: what was asked for, widened to whole buckets."""

    since: Time
    until: Time = Field(description="Exclusive.")
    resolution_s: int = Field(description="Size of the buckets that were read, in seconds: 60, 3600 or 86400.")


class Totals(Answer):
    """What a set of sites cost in a window."""

    count: int = Field(description="Blocking calls, or over-threshold slices for what no hook sees. Exact.")
    slow_count: int = Field(description="Over-threshold slices that contain it.")
    blocked_ms: float = Field(description="Loop time it froze.")
    max_ms: float = Field(description="Longest single freeze.")


class OperationTotals(Answer):
    """One blocking operation of a row."""

    name: str
    count: int
    blocked_ms: float


class Hotspot(Answer):
    """One row: a call site that froze loops, and what it cost in the window."""

    id: str | None = Field(description="Stable; null under any grouping but call_site.")
    service: str | None
    environment: str | None
    call_site: str | None = Field(description="`path:line:function` at its costliest line, or `<gc>`, `<loop>`, ….")
    entry_point: str | None = Field(description="The blocking call itself, at the costliest site.")
    reason: Reason | None
    severity_level: SeverityLevel
    severity_score: int = Field(description="Highest weight of its operations: 0, 1, 10 or 50.")
    status: Status | None
    operations: list[OperationTotals] = Field(description="Costliest first.")
    count: int = Field(description="Blocking calls, or over-threshold slices for what no hook sees. Exact.")
    slow_count: int = Field(description="Over-threshold slices that contain it.")
    blocked_ms: float = Field(description="Loop time it froze.")
    share: float = Field(description="Its part of all matching blocked time, 0 … 1.")
    max_ms: float = Field(description="Longest single freeze.")
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    processes: int = Field(description="Distinct agents that saw it on the days of the window.")
    first_seen: Time = Field(description="Of all time.")
    last_seen: Time = Field(description="Of all time.")
    first_release: str | None
    last_release: str | None
    advice: str | None = Field(description="What to use instead.")


class HotspotGroup(Hotspot):
    """One row under another grouping than call_site. What varies among its sites is null."""

    key: str = Field(description="The value all of the row's sites share: what it was grouped by.")


class HotspotsAnswer(Answer):
    """`GET /hotspots`: the question this product answers."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "window": EXAMPLE_WINDOW,
                "group_by": "call_site",
                "total": 17,
                "next_cursor": None,
                "hotspots": [EXAMPLE_HOTSPOT],
            }
        }
    )

    window: WindowAnswer
    group_by: GroupBy
    total: int = Field(description="Rows that match, on all pages.")
    next_cursor: str | None = Field(description="Pass it as `cursor`, with the same parameters, for the next page.")
    hotspots: list[HotspotGroup | Hotspot]


class SiteAnswer(Totals):
    """One (operation, fingerprint) of a hotspot."""

    id: str
    operation: str
    fingerprint: str
    cause: str = Field(description="io, wait, cpu, gc, gil or loop.")
    reason: Reason
    severity_score: int
    line: int = Field(description="Of the call site, as last defined.")
    entry_point: str
    advice: str
    frames: list[FrameAnswer] = Field(description="From the call to the call site, innermost first.")
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    first_seen: Time
    last_seen: Time
    first_release: str | None
    last_release: str | None


class LineTotals(Totals):
    """One line of the hotspot's function."""

    line: int


class EntryPointTotals(Totals):
    """One blocking call as seen from the hotspot."""

    entry_point: str


class ReleaseTotals(Totals):
    """One release in which the hotspot was active in the window."""

    name: str
    first_seen: Time = Field(description="Of the release itself, of all time.")
    last_seen: Time = Field(description="Of the release itself, of all time.")


class TraceAnswer(Answer):
    """One full stack that led to a site: who called the call site."""

    id: str
    site_id: str
    operation: str
    last_seen: Time
    frames: list[FrameAnswer] = Field(description="Innermost first, from the call to the slice's own callback.")


class HotspotAgent(Answer):
    """A process that saw the hotspot on a day of the window."""

    id: str
    pid: int
    host: str
    release: str | None
    last_seen: Time


class SlowSiteAnswer(Answer):
    """A site's part in a slow event. The site may belong to another hotspot."""

    site_id: str
    trace_id: str | None
    count: int
    blocked_ms: float
    arguments: Values = Field(
        description="Of its costliest call in the slice, by position or name; empty unless the service ships them."
    )


class SlowEventAnswer(Answer):
    """One over-threshold slice that contains the hotspot."""

    id: str
    agent: str
    started_at: Time
    elapsed_ms: float
    threshold_ms: float
    cause: str
    severity_score: int
    task_name: str
    thread_name: str
    loop: str
    cpu_ms: float | None = Field(description="CPU time of the loop's thread in the slice; null if not measured.")
    gc_ms: float
    sites: list[SlowSiteAnswer]
    waiting: int | None = Field(
        description="Callbacks that were ready or due when it ended; null where the loop does not show them."
    )
    context: Values = Field(description="What the service lets slow events say of the request, such as its route.")
    capture: str | None = Field(description="Id of the capture that it answered, among the hotspot's `captures`.")


class HotspotDetail(Hotspot):
    """`GET /hotspots/{id}`: one hotspot, all that is known of it."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_DETAIL})

    window: WindowAnswer
    note: str
    owner: str = Field(
        description="Who looks after it: a person's choice, else a rule's; empty where nobody was named."
    )
    resolved_in_release: str | None = Field(
        description="While resolved: the last release that may still have it. A later one that has it reopens it."
    )
    ignored_until: Time | None = Field(description="While ignored: when activity reopens it.")
    ignored_below_ms_per_hour: int | None = Field(
        description="While ignored: blocked time in 60 minutes above which activity reopens it."
    )
    history: list[HistoryEntry] = Field(description="Who changed what, the latest first, at most 100.")
    sites: list[SiteAnswer] = Field(description="Costliest in the window first.")
    lines: list[LineTotals]
    entry_points: list[EntryPointTotals]
    releases: list[ReleaseTotals]
    traces: list[TraceAnswer] = Field(description="The most recently seen, at most 100.")
    agents: list[HotspotAgent] = Field(description="The most recently seen, at most 1000.")
    slow_events: list[SlowEventAnswer] = Field(description="The most recent, at most 50.")
    captures: list[CaptureAnswer] = Field(
        description="Slices that were asked for in detail, the latest first, at most 20."
    )
    waiting_max: int | None = Field(
        description="Most callbacks that waited behind one of these events; null if unknown."
    )
    waiting_mean: float | None = Field(description="How many waited behind one of them on average; null if unknown.")


class TimelineBucket(Totals):
    """What happened from `at` on, for `resolution_s`."""

    at: Time


class Timeline(Answer):
    """`GET /hotspots/{id}/timeline`: every bucket of the window, the empty ones too."""

    id: str
    window: WindowAnswer
    buckets: list[TimelineBucket]


class LoopHealthAnswer(Answer):
    """How loops fare. Lag is how late timers ran; what is null nobody has told, or no timer has run."""

    loop_ms: float = Field(description="How long loops were watched, summed over them.")
    loop_blocked_ms: float = Field(description="Of that, in slices over the threshold.")
    blocked_share: float | None = Field(description="The part of loop_ms in which they were blocked.")
    starved_ms: float = Field(description="Of loop_blocked_ms, without a CPU because the host gave none.")
    slow_slices: int = Field(description="Slices over the threshold.")
    waiting: int = Field(description="Callbacks that waited behind those, summed; asyncio only.")
    waiting_max: int = Field(description="Most that waited behind one.")
    timers: int = Field(description="Timers that ran.")
    lag_mean_ms: float | None
    lag_p50_ms: float | None
    lag_p95_ms: float | None
    lag_p99_ms: float | None
    lag_max_ms: float | None


class ServiceAnswer(LoopHealthAnswer):
    """One service in one environment."""

    name: str
    environment: str
    releases: list[str] = Field(description="In the order they were first seen.")
    hotspots: int = Field(description="Call sites that froze its loops in the window, ignored ones left out.")
    count: int
    blocked_ms: float
    agents: int = Field(description="Processes that reported in the window.")
    control: ServiceControl
    first_seen: Time
    last_seen: Time


class ServicesAnswer(Answer):
    """`GET /services`."""

    window: WindowAnswer
    services: list[ServiceAnswer]


class OperationAnswer(Totals):
    """One blocking operation across the fleet."""

    name: str
    severity_score: int
    hotspots: int
    services: int


class OperationsAnswer(Answer):
    """`GET /operations`, costliest first."""

    window: WindowAnswer
    operations: list[OperationAnswer]


class InstantsAnswer(Answer):
    """The time an answer covers, exactly as asked for."""

    since: Time
    until: Time = Field(description="Exclusive.")


class StallAnswer(Answer):
    """One slice that ran for longer than its agent's `stall_after_ms`."""

    id: str
    service: str
    environment: str
    release: str
    agent: str
    pid: int | None
    host: str | None
    state: Literal["frozen", "died", "ended"] = Field(
        description="died: its process ended frozen, by evidence. frozen: it was as of `last_seen`; an agent that is "
        "gone without evidence leaves it so."
    )
    started_at: Time
    last_seen: Time = Field(description="When it was last known to be frozen, or was over.")
    blocked_ms: float = Field(description="From its start to `last_seen`.")
    hotspot: str | None = Field(description="Id of the hotspot, for GET /hotspots/{id}.")
    call_site: str | None = Field(
        description="`path:line:function` where it is; the one entered last, where no thread of the process could say. "
        "Null where none is known."
    )
    operation: str | None = Field(description="The blocking call, `cpu` or `wait`; null where nobody could see.")
    gil_held: bool | None = Field(
        description="Native code kept every thread of the process from running when it was last looked at."
    )
    thread_name: str
    trace: list[FrameAnswer] = Field(description="The whole stack, innermost first; empty where nobody could look.")


class StallsAnswer(Answer):
    """`GET /stalls`: what is frozen now first, then the most recent."""

    window: InstantsAnswer
    total: int = Field(description="Stalls that match; at most `limit` of them are listed.")
    stalls: list[StallAnswer]


class StallInProgress(Answer):
    """A loop of an agent that is frozen, as of when it was last seen; see GET /stalls."""

    id: str
    started_at: Time
    blocked_ms: float


class OverheadAnswer(Answer):
    """What an agent costs the loops that it watches, as it last said."""

    share: float = Field(description="Its part of the busiest loop thread's time, 0 to 1.")
    budget: float | None = Field(description="What it may take; null where it never gives up detail for it.")
    level: int = Field(description="Detail given up for the budget: 0 none, 1 and 2 part of it, 3 all but counts.")
    since: Time | None = Field(description="From when on the level holds; null where it was never another.")
    reductions: int = Field(description="How often it gave up detail.")


class LoopAnswer(LoopHealthAnswer):
    """One loop thread of a process, lately."""

    thread_name: str = Field(description="Empty for all loops beyond the first 63 together.")
    loop: str = Field(description="asyncio or uvloop.")
    since: Time = Field(
        description="What is told happened since then, one to two minutes before the agent was last seen."
    )


class AgentAnswer(Answer):
    """One process (from `start()` to its end), and what became of its reports."""

    id: str
    service: str
    environment: str
    release: str
    pid: int
    host: str
    python: str
    loop: str
    agent_version: str
    transport: str = Field(description="unix or udp.")
    started_at: Time
    first_seen: Time
    last_seen: Time
    committed_sequence: int
    reports_received: int
    reports_lost: int
    reports_duplicated: int
    tail: Literal["complete", "unknown"] | None = Field(
        description="udp only: whether the agent's farewell said how many reports there were; null on a stream."
    )
    dropped: dict[str, int] = Field(description="What will never arrive, by reason, as the agent last said.")
    recorded: int = Field(description="Blocking calls the agent has counted.")
    slices: int
    agent_cpu_ms: float = Field(description="CPU time of the agent's own threads.")
    loops: list[LoopAnswer] = Field(description="How each of its loops fared lately; empty for one that does not tell.")
    overhead: OverheadAnswer | None = Field(description="Null for an agent that does not tell.")
    stalls: list[StallInProgress] = Field(description="Loops of it that are frozen now, longest first.")
    control: AgentControl


class AgentsAnswer(Answer):
    """`GET /agents`, the most recently seen first."""

    total: int = Field(description="Agents that match; at most `limit` of them are listed.")
    agents: list[AgentAnswer]
