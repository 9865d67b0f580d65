"""One agent's stream: hello and welcome, then reports in and acknowledgements out, until either side ends it.

Memory per stream is bounded: one message of at most MAX_MESSAGE_BYTES, definitions of at most that many bytes waiting
for the report that counts them, and MAX_UNREAD_BYTES of answers.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from aiocop_collector.arrivals import Arrival, Sender, StallSighting
from aiocop_collector.counters import Counters
from aiocop_collector.log import Log
from aiocop_collector.receive.controls import Controls, Listener
from aiocop_collector.receive.heartbeats import Lifeline
from aiocop_collector.store.writer import Store
from aiocop_wire import (
    FEATURE_CONTROL,
    FEATURE_STALLS,
    Ack,
    Controlled,
    Define,
    Farewell,
    FrameReader,
    Hello,
    Identity,
    Message,
    Refused,
    Report,
    SiteDefinition,
    Stall,
    TraceDefinition,
    Welcome,
    WireError,
    __version__,
    decode,
    encode,
    frame,
)
from aiocop_wire.limits import MAX_MESSAGE_BYTES

MAX_UNREAD_BYTES: Final = 64 << 10
"""Acknowledgements an agent may leave unread (about 3000) before it is cut off."""

HELLO_TIMEOUT_S: Final = 10.0

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a peer may take to read the last answers."""

_READ_BYTES: Final = 64 << 10


class Session:
    """Runs in a task of its own; the store calls back on the same loop."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        store: Store,
        counters: Counters,
        lifeline: Lifeline | None = None,
        controls: Controls | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._store = store
        self._counters = counters
        self._lifeline = lifeline
        self._controls = controls
        self._listener: Listener | None = None
        self._sender = Sender(committed=self._acknowledge, rejected=self._reject)
        self._acknowledged = 0
        self._sites: list[SiteDefinition] = []
        self._traces: list[TraceDefinition] = []
        self._defined_bytes = 0
        self._log = Log("receive")

    async def run(self) -> None:
        """Until the stream ends. Closes it, and raises nothing but cancellation."""
        try:
            await self._converse()
        except WireError as error:
            self._counters.add(f"refused_{error.reason}")
            self._log.warning("stream ended: its message cannot be used", reason=error.reason, error=str(error))
            self._refuse(error.reason, str(error))
        except (SQLAlchemyError, OSError) as error:
            # A stream that broke, or a database that cannot say what is committed: the agent keeps all and comes back.
            self._log.info("stream ended", error=str(error))
        finally:
            if self._controls is not None and self._listener is not None:
                self._controls.leave(self._listener)
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._writer.wait_closed(), CLOSE_TIMEOUT_S)
            self._writer.transport.abort()

    async def _converse(self) -> None:
        async with contextlib.aclosing(self._messages()) as messages:
            identity = await self._greet(messages)
            if identity is None:
                return
            async for message, size_bytes in messages:
                if not self._take(identity, message, size_bytes):
                    self._counters.add("refused_unexpected")
                    self._refuse("unexpected", f"{type(message).__name__.lower()} has no place here")
                    return
                if self._store.is_full:
                    await self._store.room()
            if self._defined_bytes:
                self._offer(identity, None, 0)

    async def _greet(self, messages: AsyncGenerator[tuple[Message, int], None]) -> Identity | None:
        """Hello and welcome. None when the peer said nothing, or something else."""
        try:
            hello, size_bytes = await asyncio.wait_for(anext(messages), HELLO_TIMEOUT_S)
        except StopAsyncIteration:
            return None
        except asyncio.TimeoutError:
            self._counters.add("hello_timeouts")
            return None
        if not isinstance(hello, Hello):
            self._counters.add("refused_unexpected")
            self._refuse("unexpected", "a stream starts with hello")
            return None
        self._acknowledged = await self._store.committed_sequence(hello.identity.instance)
        # Before its first report already, so that /agents shows a service in which nothing has frozen yet.
        allows_control = FEATURE_CONTROL in hello.features
        self._store.offer(Arrival(hello.identity, "unix", size_bytes, allows_control=allows_control))
        if self._lifeline is not None:
            # Before the welcome: who has been welcomed and dies at once must have been seen alive.
            self._lifeline.hello(hello.identity)
        self._write(Welcome(self._acknowledged, __version__, features=(FEATURE_STALLS, FEATURE_CONTROL)))
        if allows_control and self._controls is not None:
            self._listener = self._controls.join(hello.identity, self._write)
        return hello.identity

    async def _messages(self) -> AsyncGenerator[tuple[Message, int], None]:
        frames = FrameReader()
        while data := await self._reader.read(_READ_BYTES):
            for raw in frames.feed(data):
                yield decode(raw), len(raw)

    def _take(self, identity: Identity, message: Message, size_bytes: int) -> bool:
        """Whether the message is one that an agent may send after its hello."""
        if isinstance(message, Report):
            self._counters.add("reports_unix")
            self._offer(identity, message, size_bytes)
        elif isinstance(message, Define):
            if self._defined_bytes + size_bytes > MAX_MESSAGE_BYTES:
                self._offer(identity, None, 0)
            self._sites += message.sites
            self._traces += message.traces
            self._defined_bytes += size_bytes
        elif isinstance(message, Stall):
            # With what was defined before it: its site may be new.
            self._offer(identity, None, size_bytes, (StallSighting.reported(message),))
        elif isinstance(message, Controlled):
            self._store.offer(Arrival(identity, "unix", size_bytes, controlled=message))
        elif isinstance(message, Farewell):
            if self._lifeline is not None:
                self._lifeline.farewell()
            self._store.offer(Arrival(identity, "unix", size_bytes, farewell=message))
        else:
            return False
        return True

    def _offer(
        self, identity: Identity, report: Report | None, size_bytes: int, stalls: tuple[StallSighting, ...] = ()
    ) -> None:
        """Hand over a report, and what was defined for it: definitions are dated by the report that follows them."""
        sites, traces, size_bytes = tuple(self._sites), tuple(self._traces), size_bytes + self._defined_bytes
        self._sites, self._traces, self._defined_bytes = [], [], 0
        self._store.offer(
            Arrival(identity, "unix", size_bytes, report, sites, traces, sender=self._sender, stalls=stalls)
        )

    def _acknowledge(self, sequence: int) -> None:
        self._acknowledged = max(self._acknowledged, sequence)
        self._write(Ack(self._acknowledged))
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._counters.add("slow_readers")
            self._writer.transport.abort()

    def _reject(self, message: str) -> None:
        self._refuse("rejected", message)
        self._writer.close()

    def _refuse(self, reason: str, message: str) -> None:
        self._write(Refused(reason, message))

    def _write(self, message: Message) -> None:
        if not self._writer.is_closing():
            self._writer.write(frame(encode(message)))
