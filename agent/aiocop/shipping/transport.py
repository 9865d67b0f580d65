"""What the shipper's thread needs of a transport, and what both transports share.

A transport never blocks: it is given a turn when its descriptor is ready, when its next turn is due, or when there is
something to send, and does what can be done at once. Only the shipper's thread uses it, except `abandon`.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from aiocop._stdlib import raw_socket, urandom
from aiocop.shipping.pending import PendingWindow
from aiocop_wire import SlowEvent, Stall
from aiocop_wire.light_typing import Protocol

logger: Final = logging.getLogger("aiocop")

ONE_MS_NS: Final = 1_000_000
ONE_S_NS: Final = 1_000_000_000
NEVER_NS: Final = 1 << 62

WAITING: Final = "waiting"
GREETING: Final = "greeting"
PROBING: Final = "probing"
CONNECTED: Final = "connected"
REFUSED: Final = "refused"
STOPPED: Final = "stopped"

_STEADY_NS: Final = 10 * ONE_S_NS
"""A connection that held for so long was a good one: the next attempt comes soon."""


class Transport(Protocol):
    """Carries reports to a collector. Times are of the monotonic clock, in nanoseconds."""

    state: str
    address: str
    failures: int
    last_error: str
    reports_sent: int
    bytes_sent: int
    was_connected: bool
    """Whether a collector has ever answered (udp: not objected)."""

    @property
    def reports_acknowledged(self) -> int: ...

    def descriptor(self) -> int:
        """What to poll; -1 while there is nothing."""

    def interest(self) -> int:
        """The poll mask for `descriptor()`."""

    def next_turn_ns(self) -> int:
        """When `turn` is due even if nothing happens; NEVER_NS for never."""

    def turn(self, now_ns: int, mask: int) -> None:
        """Connect, read, write and check deadlines, as far as possible at once. `mask` is what poll returned."""

    def hurry(self, now_ns: int) -> None:
        """Somebody waits: do not sit out the back-off."""

    def ready(self) -> bool:
        """Whether `send` may be called."""

    def show_stalls(self, now_ns: int, stalls: Collection[Stall]) -> None:
        """Tell what is frozen now, as far as that can be sent at once and was not sent yet."""

    def send(
        self, now_ns: int, window: PendingWindow, events: tuple[SlowEvent, ...], stalls: tuple[Stall, ...] = ()
    ) -> None:
        """Take these over: they are in flight until the ledger says delivered. An empty window is a sign of life.

        `stalls` are those that have ended.

        The next `turn` writes them. Where it raises, nothing was taken over.
        """

    def ticket(self) -> int:
        """Names everything sent so far."""

    def settled(self, ticket: int) -> bool:
        """Whether all that the ticket names is delivered."""

    def break_off(self, now_ns: int, reason: str) -> None:
        """Give the connection up; whatever was in flight goes again on the next one."""

    def farewell(self, now_ns: int) -> None:
        """Say, as far as possible at once, that nothing more will come."""

    def close(self) -> None:
        """Give everything back."""

    def abandon(self) -> None:
        """In a forked child: close what was inherited and say nothing to anybody."""


class Backoff:
    """Waits between attempts, doubling; each is between half and the whole, so that a fleet does not come at once."""

    def __init__(self, *, first_ns: int = 200 * ONE_MS_NS, longest_ns: int = 10 * ONE_S_NS) -> None:
        self._first_ns = first_ns
        self._longest_ns = longest_ns
        self._next_ns = first_ns

    def reset(self) -> None:
        self._next_ns = self._first_ns

    def wait_ns(self) -> int:
        """How long to wait now; the next time it is twice as long, up to the longest."""
        whole_ns = self._next_ns
        self._next_ns = min(2 * whole_ns, self._longest_ns)
        return whole_ns // 2 + int.from_bytes(urandom(4), "big") * (whole_ns // 2) // (1 << 32)


class ReconnectingTransport:
    """What both transports do about a collector that cannot be reached, or is lost: try again, later each time."""

    def __init__(self, address: str) -> None:
        self._socket: raw_socket | None = None
        self._backoff = Backoff()
        self._deadline_ns = 0  # of the state; while waiting, of the next attempt
        self._connected_at_ns = 0
        self._warned_unreachable = False
        self.state = WAITING
        self.address = address
        self.failures = 0
        self.last_error = ""
        self.reports_sent = 0
        self.bytes_sent = 0
        self.was_connected = False

    def descriptor(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def hurry(self, now_ns: int) -> None:
        if self.state == WAITING:
            self._deadline_ns = now_ns

    def break_off(self, now_ns: int, reason: str) -> None:
        self._retry_later(now_ns, reason)

    def close(self) -> None:
        self._disconnect()
        self.state = STOPPED

    def abandon(self) -> None:
        self._disconnect()
        self.state = STOPPED

    def _fail(self, now_ns: int, reason: str) -> None:
        """Nobody is there, or somebody who does not keep to the protocol. Said once, then only counted."""
        self._retry_later(now_ns, reason)
        if not self._warned_unreachable:
            self._warned_unreachable = True
            logger.warning(
                "aiocop: no collector can be reached (%s); counting goes on and is shipped when one answers", reason
            )

    def _retry_later(self, now_ns: int, reason: str) -> None:
        if self.state == CONNECTED and now_ns - self._connected_at_ns >= _STEADY_NS:
            self._backoff.reset()
        self._disconnect()
        self.state = WAITING
        self.failures += 1
        self.last_error = reason
        self._deadline_ns = now_ns + self._backoff.wait_ns()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
