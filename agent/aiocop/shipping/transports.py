"""The transport for an address; and the one place where the agent loads a module by its name.

Few services report over UDP. What only these need (udp_transport, datagrams, aiocop_wire.seal, hmac) is imported when a
shipper is made for such an address, so that it costs the others no time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiocop.shipping.ledger import Ledger
from aiocop.shipping.report_source import Controllable, ReportSource
from aiocop.shipping.transport import Transport
from aiocop.shipping.unix_transport import UnixTransport
from aiocop_wire import Address, Health, Identity, UdpAddress, UnixAddress

if TYPE_CHECKING:
    from aiocop.shipping.udp_transport import UdpTransport


def make_transport(
    addresses: tuple[Address, ...],
    identity: Callable[[], Identity],
    source: ReportSource,
    ledger: Ledger,
    health: Callable[[], Health],
    heartbeat_descriptor: Callable[[], int],
    udp_key: bytes,
    control: Controllable | None,
) -> Transport:
    """For the first address, if that is UDP; else for all Unix addresses. Raises ValueError where there is none."""
    if not addresses:
        raise ValueError("a shipper needs an address")
    first = addresses[0]
    if isinstance(first, UdpAddress):
        transport: type[UdpTransport] = importlib.import_module("aiocop.shipping.udp_transport").UdpTransport
        return transport(address=first, identity=identity, source=source, ledger=ledger, health=health, key=udp_key)
    unix = tuple(address for address in addresses if isinstance(address, UnixAddress))
    return UnixTransport(
        addresses=unix,
        identity=identity,
        source=source,
        ledger=ledger,
        health=health,
        heartbeat_descriptor=heartbeat_descriptor,
        control=control,
    )
