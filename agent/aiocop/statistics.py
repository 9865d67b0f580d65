"""What the agent tells about itself."""

from __future__ import annotations

from collections.abc import Mapping

from aiocop_wire.light_typing import NamedTuple


class RemoteControlStatus(NamedTuple):
    """What a collector changed. None and 0 where it did not."""

    allowed: bool = False
    """Whether the configuration lets it."""
    revision: int = 0
    """Of the settings in force."""
    paused: bool = False
    threshold_ms: float | None = None
    trace_depth: int | None = None
    captured: int = 0
    """Slow slices that were shown in detail because the collector asked for it."""
    refused: int = 0
    """Settings that were out of bounds, or came in a wrong order."""


class OverheadStatus(NamedTuple):
    """What the agent costs the loops it watches, and the detail it has given up for that; see the governor."""

    level: int
    """0 looks at everything, 1 and 2 at less, 3 only counts."""
    share: float
    """Part of the busiest loop thread's time that the agent took in the last second or so, 0 to 1."""
    budget: float
    """What it may take; 0 where it never gives up detail."""
    since: float
    """Unix time from which the level holds; 0 where it was never another."""
    reductions: int
    """How often it gave up detail since start()."""


class Statistics(NamedTuple):
    """One look at the agent. `recorded == acknowledged + pending + dropped blocking calls`, whenever it is taken."""

    active: bool
    recorded: int
    """Blocking calls counted since start()."""
    slices: int
    """Callbacks measured since start()."""
    shipped: int
    """Blocking calls that were written to a socket at least once."""
    acknowledged: int
    """Blocking calls that the collector has committed; over udp, that were sent."""
    pending: int
    """Blocking calls that are neither acknowledged nor dropped yet."""
    dropped: Mapping[str, int]
    """What will never arrive, by reason; reasons ending in `_events` count slow events, the others blocking calls."""
    connection: str
    """State of the shipper; `off` where nothing is shipped."""
    collector: str
    """The address reported to; empty where nothing is shipped."""
    last_error: str
    """Why the last connection failed."""
    faults: int
    """Exceptions inside the agent, which cost a slice or a call its entry; 0, or a bug to report."""
    allowed: Mapping[str, int]
    """How often each rule of allow() matched; 0 is a dead rule."""
    callback_failures: int
    """Exceptions of callbacks and context providers."""
    scrub_failures: int
    """Values of arguments and context that were not shipped because `scrub` raised."""
    agent_cpu_ns: int
    """CPU time of the agent's own threads."""
    remote_control: RemoteControlStatus
    """What the collector changed."""
    overhead: OverheadStatus
    """What the agent costs the loops it watches."""
