"""What the receivers hand to the store: one report with what was defined just before it, and whom to tell."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from aiocop_wire import Farewell, Identity, Report, SiteDefinition, TraceDefinition

Transport = Literal["unix", "udp"]


@dataclass(frozen=True, slots=True)
class Sender:
    """One stream, as the store sees it. Both functions are called on the event loop's thread and must not raise."""

    committed: Callable[[int], None]
    """Every report of the agent up to this sequence is durable."""
    rejected: Callable[[str], None]
    """The database will never take what this stream sent; the text says why."""


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
