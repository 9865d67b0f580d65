"""A stream to the collector over a Unix socket: hello, welcome, reports, acknowledgements (docs/wire.md).

    waiting ──connect, hello──> greeting ──welcome──> connected
       ^                            │ refused             │
       │                            v                     │
       └───────────────── refused (5 min)                 │
       └── any failure: back-off <────────────────────────┘

A report is frozen when `send` takes it. Frozen reports stay until they are acknowledged; after a reconnect those that
the collector has not committed go again, byte for byte. Nothing here waits: every stage has a deadline instead, input
is bounded in size and rate, and whatever is not the protocol ends the connection.
"""

from __future__ import annotations

import errno
import struct
from collections import deque
from collections.abc import Callable, Collection
from select import POLLIN, POLLOUT
from socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET
from typing import Final

from aiocop._stdlib import raw_socket
from aiocop.shipping.fit import fit_stall
from aiocop.shipping.incoming import Incoming
from aiocop.shipping.ledger import Ledger
from aiocop.shipping.pending import PendingWindow
from aiocop.shipping.report_source import Controllable, ReportSource
from aiocop.shipping.reports import LENGTH_BYTES, FrozenReport, freeze, freeze_definitions
from aiocop.shipping.transport import (
    CONNECTED,
    GREETING,
    NEVER_NS,
    ONE_S_NS,
    REFUSED,
    STOPPED,
    WAITING,
    ReconnectingTransport,
    logger,
)
from aiocop_wire import (
    FEATURE_CONTROL,
    FEATURE_STALLS,
    Ack,
    Control,
    Controlled,
    Farewell,
    Health,
    Hello,
    Identity,
    Message,
    Refused,
    SlowEvent,
    Stall,
    UnixAddress,
    UnknownVersionError,
    Welcome,
    WireError,
    decode,
    encode,
    frame,
)

_WELCOME_DEADLINE_NS: Final = 5 * ONE_S_NS
_WRITE_DEADLINE_NS: Final = 10 * ONE_S_NS
_ACK_DEADLINE_NS: Final = 60 * ONE_S_NS
_REFUSED_WAIT_NS: Final = 300 * ONE_S_NS
_MAX_UNACKNOWLEDGED_REPORTS: Final = 8
_MAX_UNACKNOWLEDGED_BYTES: Final = 1 << 20
_MAX_DEFINED: Final = 50_000
_RECEIVE_BYTES: Final = 1 << 16
_REFUSED_REASON: Final = "refused"
_DESCRIPTOR: Final = struct.Struct("@i")
_WOULD_BLOCK: Final = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)


class UnixTransport(ReconnectingTransport):
    """See aiocop.shipping.transport.Transport. `addresses` are tried in order at each attempt."""

    def __init__(
        self,
        *,
        addresses: tuple[UnixAddress, ...],
        identity: Callable[[], Identity],
        source: ReportSource,
        ledger: Ledger,
        health: Callable[[], Health],
        heartbeat_descriptor: Callable[[], int] = lambda: -1,
        control: Controllable | None = None,
    ) -> None:
        super().__init__(str(addresses[0]))
        self._addresses = addresses
        self._identity = identity
        self._source = source
        self._ledger = ledger
        self._health = health
        self._heartbeat_descriptor = heartbeat_descriptor
        self._control = control
        self._features: tuple[str, ...] = ()  # this and the next two: of this connection
        self._told_stalls: dict[int, int] = {}
        self._told_in_force: Controlled | None = None
        self._incoming = Incoming()
        self._outgoing: deque[bytes] = deque()
        self._outgoing_offset = 0
        self._unacknowledged: deque[FrozenReport] = deque()
        self._unacknowledged_bytes = 0
        self._unwritten: deque[FrozenReport] = deque()  # the last of the unacknowledged, not yet in _outgoing
        self._defined_sites: set[int] = set()
        self._defined_traces: set[int] = set()
        self._last_sequence = 0
        self._acknowledged_sequence = 0
        self._warned_refused = False
        self.reports_acknowledged = 0

    # What the shipper asks

    def interest(self) -> int:
        return POLLIN | POLLOUT if self._outgoing else POLLIN

    def next_turn_ns(self) -> int:
        return NEVER_NS if self.state == STOPPED else self._deadline_ns

    def ready(self) -> bool:
        return (
            self.state == CONNECTED
            and not self._outgoing
            and not self._unwritten
            and len(self._unacknowledged) < _MAX_UNACKNOWLEDGED_REPORTS
            and self._unacknowledged_bytes < _MAX_UNACKNOWLEDGED_BYTES
        )

    def ticket(self) -> int:
        return self._last_sequence

    def settled(self, ticket: int) -> bool:
        return self._acknowledged_sequence >= ticket

    # Turns

    def turn(self, now_ns: int, mask: int) -> None:
        if self.state in (WAITING, REFUSED):
            if now_ns >= self._deadline_ns:
                self._connect(now_ns)
        elif self.state != STOPPED:
            if mask & ~POLLOUT:  # input, or an error that reading will name
                self._read(now_ns)
            if self.state == CONNECTED:
                self._push_unwritten()
                self._show_in_force(now_ns)
            if self._outgoing:
                self._write(now_ns)
            if self._socket is not None and now_ns >= self._deadline_ns:
                self._check_deadline(now_ns)

    def _check_deadline(self, now_ns: int) -> None:
        if self.state == GREETING:
            self._fail(now_ns, f"it did not answer the hello within {_WELCOME_DEADLINE_NS // ONE_S_NS} s")
        elif self._outgoing:
            self._fail(now_ns, f"it took no byte for {_WRITE_DEADLINE_NS // ONE_S_NS} s")
        elif self._unacknowledged:
            self._fail(now_ns, f"it acknowledged nothing for {_ACK_DEADLINE_NS // ONE_S_NS} s")
        else:
            self._deadline_ns = now_ns + _ACK_DEADLINE_NS

    def _connect(self, now_ns: int) -> None:
        reasons = []
        for address in self._addresses:
            try:
                candidate = raw_socket(AF_UNIX, SOCK_STREAM)
            except OSError as error:  # no descriptor left in the process
                reasons.append(f"{address}: {error.strerror}")
                break
            try:
                candidate.setblocking(False)  # noqa: FBT003 - its signature
                candidate.connect(address.path)
            except OSError as error:
                reasons.append(f"{address}: {error.strerror or error}")
                candidate.close()
                continue
            self._greet(now_ns, candidate, address)
            return
        self._fail(now_ns, "; ".join(reasons))

    def _greet(self, now_ns: int, connected: raw_socket, address: UnixAddress) -> None:
        self._socket = connected
        self.address = str(address)
        self.state = GREETING
        self._deadline_ns = now_ns + _WELCOME_DEADLINE_NS
        self._incoming.restart()
        self._defined_sites = set()
        self._defined_traces = set()
        self._told_stalls = {}
        self._told_in_force = None
        accepts = self._control is not None and self._control.accepts
        hello = frame(encode(Hello(self._identity(), features=(FEATURE_CONTROL,) if accepts else ())))
        sent = self._pass_heartbeat(connected, hello)
        if sent < len(hello):
            self._outgoing.append(hello[sent:])
        self._write(now_ns)

    def _pass_heartbeat(self, connected: raw_socket, hello: bytes) -> int:
        """Send the first bytes of the hello with the heartbeat's descriptor. How many were sent.

        A collector that does not ask for descriptors never sees it; where a sandbox forbids to pass one, stalls are
        told by messages alone.
        """
        descriptor = self._heartbeat_descriptor()
        if descriptor < 0:
            return 0
        try:
            sent = connected.sendmsg([hello], [(SOL_SOCKET, SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))])
        except OSError:
            return 0
        self.bytes_sent += sent
        return sent

    # Reading

    def _read(self, now_ns: int) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self._lose(now_ns, f"the connection broke: {error.strerror}")
            return
        if not data:
            self._lose(now_ns, "it closed the connection")
            return
        try:
            for message in self._incoming.feed(now_ns, data):
                self._receive(now_ns, message)
                if self._socket is None:
                    return
        except UnknownVersionError as error:
            self._be_refused(now_ns, str(error))
        except WireError as error:
            self._fail(now_ns, f"it does not speak the protocol: {error}")

    def _receive(self, now_ns: int, message: Message) -> None:
        if type(message) is Ack and self.state == CONNECTED:
            self._acknowledge(now_ns, message.sequence)
        elif type(message) is Welcome and self.state == GREETING:
            self._be_welcome(now_ns, message)
        elif type(message) is Control and self._control is not None and self._control.accepts:
            self._control.want(message)
        elif type(message) is Refused:
            self._be_refused(now_ns, f"{message.reason}: {message.message}" if message.message else message.reason)
        else:
            self._fail(now_ns, f"it sent {type(message).__name__} where that has no place")

    def _be_welcome(self, now_ns: int, welcome: Welcome) -> None:
        self.state = CONNECTED
        self.was_connected = True
        self._connected_at_ns = now_ns
        self._deadline_ns = now_ns + _WRITE_DEADLINE_NS
        if self.failures:
            logger.debug("aiocop: the collector answers at %s", self.address)
        self._release(welcome.committed_sequence)
        # A store that knows a later sequence of this instance would take our next report for a duplicate.
        self._last_sequence = max(self._last_sequence, welcome.committed_sequence)
        self._features = welcome.features
        if self._control is not None:
            self._control.connected(controlled=FEATURE_CONTROL in welcome.features)
        self._unwritten = deque(self._unacknowledged)
        self._push_unwritten()
        self._write(now_ns)

    def _acknowledge(self, now_ns: int, sequence: int) -> None:
        if sequence > self._last_sequence:
            self._fail(now_ns, f"it acknowledged report {sequence}, and the last one sent is {self._last_sequence}")
            return
        self._release(sequence)
        self._deadline_ns = now_ns + _ACK_DEADLINE_NS
        self._backoff.reset()

    def _release(self, sequence: int) -> None:
        while self._unacknowledged and self._unacknowledged[0].sequence <= sequence:
            report = self._unacknowledged.popleft()
            self._unacknowledged_bytes -= len(report.data)
            self._ledger.deliver(report.calls, report.events)
            self.reports_acknowledged += 1
        self._acknowledged_sequence = max(self._acknowledged_sequence, sequence)

    def _be_refused(self, now_ns: int, reason: str) -> None:
        if not self._warned_refused:
            self._warned_refused = True
            minutes = _REFUSED_WAIT_NS // (60 * ONE_S_NS)
            logger.warning(
                "aiocop: the collector at %s refuses this agent (%s); the next attempt is in %d minutes",
                self.address,
                reason,
                minutes,
            )
        self._disconnect()
        self._drop_unreadable()
        self.state = REFUSED
        self.failures += 1
        self.last_error = f"refused: {reason}"
        self._deadline_ns = now_ns + _REFUSED_WAIT_NS

    def _drop_unreadable(self) -> None:
        """A report that breaks the protocol by a mistake of ours would be refused for ever, and all after it wait."""
        for report in list(self._unacknowledged):
            try:
                decode(memoryview(report.data)[LENGTH_BYTES:])
            except WireError:
                self._unacknowledged.remove(report)
                self._unacknowledged_bytes -= len(report.data)
                self._ledger.drop_in_flight(report.calls, report.events, _REFUSED_REASON)

    # Writing

    def show_stalls(self, now_ns: int, stalls: Collection[Stall]) -> None:
        if self.state != CONNECTED or FEATURE_STALLS not in self._features:
            return
        told: dict[int, int] = {}
        for stall in stalls:
            told_us = self._told_stalls.get(stall.slice_ns, -1)
            # Nothing is queued up behind a collector that does not read: a later look replaces this one anyway.
            if told_us != stall.blocked_us and not self._outgoing:
                told_us = stall.blocked_us
                self._define(frozenset([stall.site_id]) if stall.site_id else frozenset(), frozenset())
                self._outgoing.append(frame(encode(fit_stall(stall))))
                self._write(now_ns)
            told[stall.slice_ns] = told_us
        self._told_stalls = told

    def _show_in_force(self, now_ns: int) -> None:
        """Tell which settings hold, where that is new to the collector and it wants to know."""
        if self._control is None or FEATURE_CONTROL not in self._features or self._outgoing:
            return
        in_force = self._control.in_force()
        if in_force != self._told_in_force:
            self._told_in_force = in_force
            self._outgoing.append(frame(encode(in_force)))
            self._write(now_ns)

    def send(
        self, now_ns: int, window: PendingWindow, events: tuple[SlowEvent, ...], stalls: tuple[Stall, ...] = ()
    ) -> None:
        reports = freeze(
            window,
            events,
            first_sequence=self._last_sequence + 1,
            dropped=self._ledger.dropped(),
            health=self._health(),
            stalls=stalls,
        )
        self._deadline_ns = now_ns + _WRITE_DEADLINE_NS
        for report in reports:
            self._last_sequence = report.sequence
            self._unacknowledged.append(report)
            self._unacknowledged_bytes += len(report.data)
            self._unwritten.append(report)
            self._ledger.dispatch(report.calls, report.events)
            self.reports_sent += 1

    def _push_unwritten(self) -> None:
        while self._unwritten:
            self._push(self._unwritten[0])
            self._unwritten.popleft()

    def _push(self, report: FrozenReport) -> None:
        """What raises here ends the connection (see `break_off`): a later report must never overtake this one."""
        self._define(report.site_ids, report.trace_ids)
        self._outgoing.append(report.data)

    def _define(self, site_ids: frozenset[int], trace_ids: frozenset[int]) -> None:
        sites = site_ids - self._defined_sites
        traces = trace_ids - self._defined_traces
        if len(self._defined_traces) > _MAX_DEFINED:
            self._defined_traces.clear()  # bounded memory; defining one again does no harm
        if sites or traces:
            self._outgoing.extend(freeze_definitions(self._source.define(sites, traces)))
            self._defined_sites |= sites
            self._defined_traces |= traces

    def _write(self, now_ns: int) -> None:
        if self._socket is None:
            return
        while self._outgoing:
            head = self._outgoing[0]
            try:
                sent = self._socket.send(memoryview(head)[self._outgoing_offset :])
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self._lose(now_ns, f"the connection broke: {error.strerror}")
                return
            self.bytes_sent += sent
            if self.state == CONNECTED:
                self._deadline_ns = now_ns + _WRITE_DEADLINE_NS
            self._outgoing_offset += sent
            if self._outgoing_offset == len(head):
                self._outgoing.popleft()
                self._outgoing_offset = 0
        if self.state == CONNECTED:
            self._deadline_ns = now_ns + _ACK_DEADLINE_NS

    def farewell(self, now_ns: int) -> None:
        if self.state == CONNECTED:
            self._outgoing.append(frame(encode(Farewell(self._last_sequence))))
            self._write(now_ns)

    # Endings

    def _lose(self, now_ns: int, reason: str) -> None:
        """The connection is gone, as when a collector restarts: worth a word only when nobody answers afterwards."""
        if self.state == CONNECTED:
            self._retry_later(now_ns, reason)
        else:
            self._fail(now_ns, reason)

    def _disconnect(self) -> None:
        super()._disconnect()
        self._outgoing.clear()
        self._outgoing_offset = 0
        self._unwritten.clear()
