"""The datagram receiver: one loop that empties the socket whenever it is readable.

With a key only sealed datagrams are taken (see aiocop_wire.seal). A repeated one is told by its sequence, which the
store remembers for longer than a seal is fresh.

A reader on the socket and not asyncio's DatagramProtocol, which measured 20 000-30 000 datagrams a second where this
takes 130 000-360 000 (ARCHITECTURE.md); what is not read in time the kernel drops, and the sequence numbers show it.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from aiocop_collector.arrivals import Arrival, StallSighting
from aiocop_collector.counters import Counters
from aiocop_collector.store.writer import Store
from aiocop_wire import Datagram, UdpAddress, WireError, decode
from aiocop_wire.limits import MAX_DATAGRAM_BYTES
from aiocop_wire.seal import is_sealed, unseal

_DATAGRAMS_PER_TURN: Final = 256
"""Then the loop serves others; the socket is still readable and comes back in the next turn."""

_SO_MEMINFO: Final = 55  # asm-generic/socket.h; Python has no name for it
_MEMINFO: Final = struct.Struct("9I")
_SK_MEMINFO_DROPS: Final = 8  # linux/sock_diag.h: datagrams that found the buffer full, since the socket was made


class UdpReceiver:
    """One bound datagram socket."""

    def __init__(
        self,
        bound: socket.socket,
        store: Store,
        counters: Counters,
        *,
        key: bytes | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        host, port = bound.getsockname()[:2]
        self.address = str(UdpAddress(host, port))
        """As it is printed when the collector is ready: with the port really bound."""
        self._socket = bound
        self._store = store
        self._counters = counters
        self._buffer = bytearray(MAX_DATAGRAM_BYTES)
        self._view = memoryview(self._buffer)
        self._waiting: asyncio.Task[None] | None = None
        self._listening = False
        self._bytes_taken = 0
        self._key = key
        self._clock_s = clock_s
        self._dropped_by_kernel = 0

    @property
    def is_listening(self) -> bool:
        return self._listening

    async def start(self) -> None:
        """Receive from now on."""
        self._listening = True
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    def stop(self) -> None:
        """Take in what the kernel holds, then receive no more."""
        if not self._listening:
            self._socket.close()
            return
        self._listening = False
        if self._waiting is not None:
            self._waiting.cancel()
        asyncio.get_running_loop().remove_reader(self._socket)
        while self._receive_some():
            pass
        self._count_drops()
        self._socket.close()

    async def finish(self) -> None:
        """Nothing is answered on datagrams; the task that waited for room, if there was one, is seen off."""
        if self._waiting is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._waiting

    async def take_in(self) -> None:
        """Hand over everything that had reached the socket by now, also while more keeps coming."""
        if not self._listening:
            return
        # Datagrams leave the kernel's buffer in order: after a whole buffer of them, those of before are out.
        enough = self._bytes_taken + self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        while self._listening and self._bytes_taken < enough:
            if self._store.is_full:
                await self._store.room()
            elif not self._receive_some() and not self._store.is_full:
                return
            else:
                await asyncio.sleep(0)

    def _drain(self) -> None:
        self._receive_some()
        self._count_drops()
        if self._store.is_full and self._listening:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            self._waiting = loop.create_task(self._wait_for_room(), name="aiocop-collector-udp")

    async def _wait_for_room(self) -> None:
        """The kernel's buffer fills meanwhile, and then drops: counted by sequence numbers as lost."""
        await self._store.room()
        self._waiting = None
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    def _receive_some(self) -> bool:
        """Whether there may be more."""
        receive, view, take = self._socket.recv_into, self._view, self._take
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                size_bytes = receive(view)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                # An ICMP error for something sent from this address; the socket is as good as before.
                continue
            self._bytes_taken += size_bytes
            take(view[:size_bytes])
            if self._store.is_full:
                return False
        return True

    def _count_drops(self) -> None:
        """Take over the kernel's count. After it has dropped, there is always something to read."""
        try:
            dropped = _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[
                _SK_MEMINFO_DROPS
            ]
        except OSError:
            return  # before Linux 4.12
        if dropped != self._dropped_by_kernel:
            self._counters.add("datagrams_dropped_by_kernel", (dropped - self._dropped_by_kernel) & 0xFFFFFFFF)
            self._dropped_by_kernel = dropped

    def _take(self, data: memoryview) -> None:
        try:
            if self._key is not None:
                data = unseal(data, self._key, int(self._clock_s() * 1000))
            elif is_sealed(data):
                self._counters.add("refused_sealed")
                return
            message = decode(data, max_bytes=MAX_DATAGRAM_BYTES)
        except WireError as error:
            self._counters.add(f"refused_{error.reason}")
            return
        if not isinstance(message, Datagram):
            self._counters.add("refused_unexpected")
            return
        self._counters.add("reports_udp")
        define = message.define
        self._store.offer(
            Arrival(
                message.identity,
                "udp",
                len(data),
                message.report,
                define.sites,
                define.traces,
                message.farewell,
                stalls=(StallSighting.reported(message.stall),) if message.stall is not None else (),
            )
        )
