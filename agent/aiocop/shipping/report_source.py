"""What the shipper asks of whoever counts: the seam between aggregate and shipper."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

from aiocop_wire import Control, Controlled, Define, Health, LoopDelta, SiteDelta, SlowEvent, Stall
from aiocop_wire.light_typing import NamedTuple, Protocol


class Window(NamedTuple):
    """All that was counted since the last take."""

    deltas: tuple[SiteDelta, ...]
    slow_events: tuple[SlowEvent, ...]
    dropped: Mapping[str, int]
    """Totals since the start, by reason: blocking calls, and slow events where the reason ends in `_events`."""
    loops: tuple[LoopDelta, ...] = ()
    """What the process's loops did, idle ones too."""


class ReportSource(Protocol):
    """Counts blocking calls. Only the shipper's thread calls `take` and `define`."""

    def take(self) -> Window:
        """Everything counted since the last take; it is the shipper's from now on."""

    def define(self, site_ids: Collection[int], trace_ids: Collection[int]) -> Define:
        """The static facts of these ids. An id that is not known any more is left out."""

    def recorded(self) -> int:
        """Blocking calls counted so far in this process, those dropped before a take among them. Any thread."""

    def health(self) -> Health:
        """Totals of the agent without the shipper's own CPU time, which the shipper adds."""


class StallSource(Protocol):
    """Freezes in progress. Whoever fills it wakes the shipper."""

    ended: deque[Stall]
    """Those that ended; the shipper takes them away."""

    def going_on(self) -> list[Stall]:
        """Those that go on, as last seen."""


class Controllable(Protocol):
    """What a collector may change. Only the shipper's thread calls it, and it never waits."""

    accepts: bool
    """Whether it may change anything."""

    def connected(self, *, controlled: bool) -> None:
        """A connection begins, to a collector that controls agents or does not."""

    def want(self, control: Control) -> None:
        """A collector wants this."""

    def settle(self, now_ns: int) -> None:
        """Put in force what is wanted and due."""

    def next_turn_ns(self) -> int:
        """When `settle` is due; NEVER_NS while nothing is wanted."""

    def in_force(self) -> Controlled:
        """What holds now."""
