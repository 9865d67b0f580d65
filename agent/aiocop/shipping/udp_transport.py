"""Datagrams to the collector over UDP. Nothing comes back: `delivered` means that the kernel took the datagram.

    waiting ──resolve, open──> probing ──no objection in 50 ms──> connected
       ^                          │                                  │
       └───── any error: back-off ┴──────────────────────────────────┘

The socket is connected, so that the kernel tells of an ICMP "port unreachable" that an earlier datagram caused. The
probe is a report without counts: where nobody listens it is the probe that is lost and not the counts. An error means
that the datagram at hand was not sent: it stays and goes again. Each datagram has a sequence number of its own; one is
used up only by a datagram that the kernel took.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Collection
from select import POLLIN, POLLOUT
from socket import AF_UNSPEC, SO_SNDBUF, SOCK_DGRAM, SOL_SOCKET
from typing import Final

from aiocop._stdlib import getaddrinfo, raw_socket, time_ns
from aiocop.shipping.datagrams import Part, cut, smaller
from aiocop.shipping.fit import fit_site, fit_stall
from aiocop.shipping.ledger import Ledger
from aiocop.shipping.pending import PendingWindow
from aiocop.shipping.report_source import ReportSource
from aiocop.shipping.reports import used_sites, used_traces
from aiocop.shipping.transport import (
    CONNECTED,
    NEVER_NS,
    ONE_MS_NS,
    ONE_S_NS,
    PROBING,
    STOPPED,
    WAITING,
    ReconnectingTransport,
    logger,
)
from aiocop_wire import (
    Datagram,
    Define,
    Farewell,
    Health,
    Identity,
    Report,
    SlowEvent,
    Stall,
    UdpAddress,
    encode,
)
from aiocop_wire.limits import LOOPBACK_DATAGRAM_BYTES, NETWORK_DATAGRAM_BYTES
from aiocop_wire.seal import SEAL_BYTES, seal

_PROBE_NS: Final = 50 * ONE_MS_NS
_PACE_NS: Final = 10 * ONE_MS_NS
_BURST: Final = 32
_RESOLVE_AGAIN_NS: Final = 300 * ONE_S_NS
_DEFINE_AGAIN_NS: Final = 60 * ONE_S_NS
_DEFINE_FIRST: Final = 3
_FAREWELLS: Final = 3
_STALL_ENDS: Final = 3
_SEND_BUFFER_BYTES: Final = 1 << 20
_MAX_DEFINED: Final = 20_000
_WOULD_BLOCK: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)


class _Outgoing:
    """A part that waits to be sent, with the window it belongs to."""

    __slots__ = ("part", "span_ms", "started_at_ms", "tickets")

    def __init__(self, part: Part, started_at_ms: int, span_ms: int, tickets: int) -> None:
        self.part = part
        self.started_at_ms = started_at_ms
        self.span_ms = span_ms
        self.tickets = tickets
        """How many tickets it settles: 1, but 0 for all but the last of those that replace one too large."""


class UdpTransport(ReconnectingTransport):
    """See aiocop.shipping.transport.Transport. `acknowledged` reads `sent` here. With a key, all is sealed."""

    def __init__(
        self,
        *,
        address: UdpAddress,
        identity: Callable[[], Identity],
        source: ReportSource,
        ledger: Ledger,
        health: Callable[[], Health],
        key: bytes = b"",
    ) -> None:
        super().__init__(str(address))
        self._collector = address
        self._key = key
        self._seal_bytes = SEAL_BYTES if key else 0
        self._resolves = not _is_literal(address.host)
        self._identity = identity
        self._source = source
        self._ledger = ledger
        self._health = health
        self._told_stalls: dict[int, int] = {}
        self._limit_bytes = NETWORK_DATAGRAM_BYTES
        self._outgoing: deque[_Outgoing] = deque()
        self._queued = 0  # parts ever put into _outgoing, and of these …
        self._done = 0  # … how many left it: the tickets
        self._sequence = 0
        self._site_uses: dict[int, tuple[int, int]] = {}  # id: (uses so far, defined last at)
        self._trace_uses: dict[int, tuple[int, int]] = {}
        self._blocked = False

    @property
    def reports_acknowledged(self) -> int:
        return self.reports_sent

    # What the shipper asks

    def interest(self) -> int:
        return POLLIN | POLLOUT if self._blocked else POLLIN

    def next_turn_ns(self) -> int:
        if self.state == STOPPED or (self.state == CONNECTED and (self._blocked or not self._outgoing)):
            return NEVER_NS
        return self._deadline_ns

    def ready(self) -> bool:
        return self.state == CONNECTED and not self._outgoing

    def ticket(self) -> int:
        return self._queued

    def settled(self, ticket: int) -> bool:
        return self._done >= ticket

    # Turns

    def turn(self, now_ns: int, mask: int) -> None:
        if self.state == WAITING:
            if now_ns >= self._deadline_ns:
                self._open(now_ns)
        elif self._socket is not None:
            if mask & ~POLLOUT and not self._is_healthy(now_ns):
                return
            if self.state == PROBING and now_ns >= self._deadline_ns:
                self._be_connected(now_ns)
            if self.state == CONNECTED:
                self._blocked = False
                self._send_burst(now_ns)

    def _open(self, now_ns: int) -> None:
        try:
            found = getaddrinfo(self._collector.host, self._collector.port, AF_UNSPEC, SOCK_DGRAM)
            family, kind, protocol, _, where = found[0]
            opened = raw_socket(family, kind, protocol)
        except OSError as error:
            self._fail(now_ns, f"{self.address}: {error.strerror or error}")
            return
        self._socket = opened
        opened.setblocking(False)  # noqa: FBT003 - its signature
        opened.setsockopt(SOL_SOCKET, SO_SNDBUF, _SEND_BUFFER_BYTES)
        code = opened.connect_ex(where)
        if code:
            self._fail(now_ns, f"{self.address}: {os.strerror(code)}")
            return
        host = str(where[0])
        loopback = host.startswith("127.") or host == "::1"
        self._limit_bytes = LOOPBACK_DATAGRAM_BYTES if loopback else NETWORK_DATAGRAM_BYTES
        self._connected_at_ns = now_ns
        self.state = PROBING
        self._deadline_ns = now_ns + _PROBE_NS
        self._emit(now_ns, self._encode(_Outgoing(Part(), time_ns() // ONE_MS_NS, 0, 0)))

    def _is_healthy(self, now_ns: int) -> bool:
        """Fetch the error that poll told of, or the datagram nobody asked for."""
        if self._socket is None:
            return False
        try:
            self._socket.recv(1)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self._fail(now_ns, f"{self.address}: {error.strerror}")
                return False
        return True

    def _be_connected(self, now_ns: int) -> None:
        if self.failures:
            logger.debug("aiocop: nothing objects to datagrams for %s any more", self.address)
        self.state = CONNECTED
        self.was_connected = True
        self._deadline_ns = now_ns

    # Sending

    def show_stalls(self, now_ns: int, stalls: Collection[Stall]) -> None:  # noqa: ARG002 - of the protocol
        told: dict[int, int] = {}
        for stall in stalls:
            if self._told_stalls.get(stall.slice_ns) != stall.blocked_us:
                self._send_stall(stall)
            told[stall.slice_ns] = stall.blocked_us
        self._told_stalls = told

    def _send_stall(self, stall: Stall) -> None:
        """A datagram of its own, without a sequence: the next look at a stall replaces one that was lost."""
        if self.state != CONNECTED or self._socket is None:
            return
        define = self._source.define([stall.site_id], [])
        datagram = Datagram(
            identity=self._identity(),
            define=Define(tuple([fit_site(site) for site in define.sites])),
            stall=fit_stall(stall),
        )
        data = encode(datagram)
        while len(data) > self._limit_bytes and stall.frames:
            stall = stall._replace(frames=stall.frames[: len(stall.frames) // 2])
            data = encode(datagram._replace(stall=fit_stall(stall)))
        if len(data) > self._limit_bytes:
            data = encode(datagram._replace(stall=stall, define=Define()))
        try:
            self._socket.send(data)
            self.bytes_sent += len(data)
        except OSError as error:
            self.last_error = f"{self.address}: {error.strerror}"

    def send(
        self, now_ns: int, window: PendingWindow, events: tuple[SlowEvent, ...], stalls: tuple[Stall, ...] = ()
    ) -> None:
        for stall in stalls:
            for _ in range(_STALL_ENDS):
                self._send_stall(stall)
        define = self._due_definitions(now_ns, window, events)
        budget_bytes = self._limit_bytes - self._seal_bytes
        parts = list(cut(window.deltas, events, define, window.loops, budget_bytes=budget_bytes)) or [Part()]
        if self._resolves and now_ns - self._connected_at_ns >= _RESOLVE_AGAIN_NS:
            self._disconnect()  # the name may stand for another host by now
            self.state = WAITING
            self._deadline_ns = now_ns
        self._outgoing.extend(_Outgoing(part, window.started_at_ms, window.span_ms, 1) for part in parts)
        self._queued += len(parts)
        self._ledger.dispatch(window.calls, len(events))
        self._deadline_ns = now_ns

    def _due_definitions(self, now_ns: int, window: PendingWindow, events: tuple[SlowEvent, ...]) -> Define:
        sites = _due(self._site_uses, used_sites(window.deltas, events), now_ns)
        traces = _due(self._trace_uses, used_traces(events), now_ns)
        return self._source.define(sites, traces) if sites or traces else Define()

    def _send_burst(self, now_ns: int) -> None:
        """As many datagrams as a receiver's buffer takes easily; the rest after a pause."""
        self._deadline_ns = now_ns + _PACE_NS
        for _ in range(_BURST):
            if not self._outgoing or self.state != CONNECTED:
                return
            head = self._outgoing[0]
            data = self._encode(head)
            # What cannot be made smaller goes as it is: IP cuts it up, and a count is worth more than one packet.
            parts = smaller(head.part) if len(data) > self._limit_bytes else ()
            if parts:
                self._replace_head(parts)
                continue
            if not self._emit(now_ns, data):
                return
            self._outgoing.popleft()
            self._done += head.tickets
            self._ledger.deliver(head.part.calls, len(head.part.events))

    def _replace_head(self, parts: tuple[Part, ...]) -> None:
        """Put smaller parts in the place of the first."""
        head = self._outgoing.popleft()
        tickets = head.tickets
        for part in reversed(parts):
            self._outgoing.appendleft(_Outgoing(part, head.started_at_ms, head.span_ms, tickets))
            tickets = 0

    def _encode(self, outgoing: _Outgoing) -> bytes:
        part = outgoing.part
        report = Report(
            sequence=self._sequence + 1,
            started_at_ms=outgoing.started_at_ms,
            span_ms=outgoing.span_ms,
            deltas=part.deltas,
            slow_events=part.events,
            dropped=self._ledger.dropped(),
            health=self._health(),
            loops=part.loops,
        )
        return self._sealed(Datagram(identity=self._identity(), report=report, define=part.define))

    def _sealed(self, datagram: Datagram) -> bytes:
        data = encode(datagram)
        return seal(data, self._key, time_ns() // ONE_MS_NS) if self._key else data

    def _emit(self, now_ns: int, data: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(data)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                self._blocked = True
            elif error.errno == errno.ENOBUFS:
                self._deadline_ns = now_ns + _PACE_NS  # poll would say writable at once
            elif error.errno == errno.EMSGSIZE and self._limit_bytes > NETWORK_DATAGRAM_BYTES:
                self._limit_bytes = NETWORK_DATAGRAM_BYTES
            else:
                self._fail(now_ns, f"{self.address}: {error.strerror}")
            return False
        self._sequence += 1
        self.reports_sent += 1
        self.bytes_sent += len(data)
        return True

    def farewell(self, now_ns: int) -> None:  # noqa: ARG002 - of the protocol
        data = self._sealed(Datagram(identity=self._identity(), farewell=Farewell(self._sequence)))
        for _ in range(_FAREWELLS):
            if self.state == CONNECTED and self._socket is not None:
                try:
                    self._socket.send(data)
                except OSError as error:
                    self.last_error = f"{self.address}: {error.strerror}"

    # Endings

    def _disconnect(self) -> None:
        super()._disconnect()
        self._blocked = False


def _due(uses: dict[int, tuple[int, int]], used: frozenset[int], now_ns: int) -> list[int]:
    """Which definitions go along this time: at the first uses, then now and then, so that a lost one heals."""
    if len(uses) > _MAX_DEFINED:
        uses.clear()
    due = []
    for number in used:
        count, defined_at_ns = uses.get(number, (0, 0))
        if count < _DEFINE_FIRST or now_ns - defined_at_ns >= _DEFINE_AGAIN_NS:
            due.append(number)
            defined_at_ns = now_ns
        uses[number] = (count + 1, defined_at_ns)
    return due


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
