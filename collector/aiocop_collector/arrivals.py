"""What the receivers hand to the store: one report with what was defined just before it, and whom to tell."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aiocop_wire import Controlled, Farewell, Frame, Identity, Report, SiteDefinition, Stall, TraceDefinition

Transport = Literal["unix", "udp"]
StallState = Literal["frozen", "died", "ended"]


@dataclass(frozen=True, slots=True)
class Sender:
    """One stream, as the store sees it. Both functions are called on the event loop's thread and must not raise."""

    committed: Callable[[int], None]
    """Every report of the agent up to this sequence is durable."""
    rejected: Callable[[str], None]
    """The database will never take what this stream sent; the text says why."""


@dataclass(frozen=True, slots=True)
class StallSighting:
    """What is known of a stall at one moment: from the agent's own message, or from its heartbeat."""

    state: StallState
    slice_ns: int
    """Names the stall among those of its agent."""
    started_at_ms: int
    blocked_us: int
    site_id: int = 0
    """Where the agent itself says that it is; 0 where it says nothing. As on the wire."""
    last_site_id: int = 0
    """The site that was entered last, as the heartbeat tells; 0 for none. Perhaps one that nobody knows."""
    frames: tuple[Frame, ...] = ()
    counted: bool = False
    """The call that freezes is in the counts already, without its time."""
    thread_name: str = ""
    gil_held: bool | None = None
    """Whether native code keeps all threads of the process from running; None where nobody could see."""
    only_if_known: bool = False
    """Not enough by itself to make it a stall."""

    @classmethod
    def reported(cls, stall: Stall) -> "StallSighting":
        """As the agent tells it. Its watchdog could run to do so."""
        return cls(
            state="ended" if stall.state == "ended" else "frozen",
            slice_ns=stall.slice_ns,
            started_at_ms=stall.started_at_ms,
            blocked_us=stall.blocked_us,
            site_id=stall.site_id,
            frames=stall.frames,
            counted=stall.counted,
            thread_name=stall.thread_name,
            gil_held=False,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """Never changed and never merged with another before the transaction that applies it."""

    identity: Identity
    transport: Transport
    size_bytes: int
    """Length of the messages it was decoded from: what the pending queue is bounded by."""
    report: Report | None = None
    sites: tuple[SiteDefinition, ...] = ()
    traces: tuple[TraceDefinition, ...] = ()
    farewell: Farewell | None = None
    sender: Sender | None = None
    """None for datagrams: nobody waits for an answer."""
    stalls: tuple[StallSighting, ...] = ()
    running: frozenset[int] | None = None
    """The slices that run in the agent, where its heartbeat tells: a stall of any other has ended."""
    allows_control: bool | None = None
    """Whether the agent lets itself be controlled, where it said so or not: in its hello."""
    controlled: Controlled | None = None
    """What is in force in the agent."""
