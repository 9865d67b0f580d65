"""What the shipper tells about itself."""

from __future__ import annotations

from collections.abc import Mapping

from aiocop_wire.light_typing import NamedTuple


class ShippingStatistics(NamedTuple):
    """One consistent look: `recorded == acknowledged + pending + sum of the drops of blocking calls`, always."""

    recorded: int
    """Blocking calls counted in this process since the agent started."""
    acknowledged: int
    """Of these, how many the collector has committed. Over udp, where nothing comes back: how many were sent."""
    pending: int
    """Counted, and neither acknowledged nor dropped: still folding, queued, or on their way."""
    dropped: Mapping[str, int]
    """What will never arrive, by reason; reasons that end in `_events` count slow events, the others blocking calls."""
    shipped: int
    """Blocking calls in reports that were written to a socket at least once."""
    slow_events_acknowledged: int
    slow_events_pending: int
    reports_sent: int
    """Reports (udp: datagrams), without resends."""
    reports_acknowledged: int
    bytes_sent: int
    """Everything written to a socket, resends and definitions included."""
    connection: str
    """`stopped`, `waiting` (for the next attempt), `greeting` (udp: `probing`), `connected` or `refused`."""
    collector: str
    """The address in use, or the first that will be tried."""
    connection_failures: int
    last_error: str
    """Why the last attempt or connection failed; empty while none did."""
    agent_cpu_ns: int
    """CPU time of the shipper's thread."""
    scrub_failures: int
    """Values that were not shipped because the user's hook raised."""
