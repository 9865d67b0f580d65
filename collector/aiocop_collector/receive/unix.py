"""The stream server: accepts agents on a bound unix socket and runs a session for each."""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Final

from aiocop_collector.counters import Counters
from aiocop_collector.log import Log
from aiocop_collector.receive.controls import Controls
from aiocop_collector.receive.greeting import first_read, open_stream
from aiocop_collector.receive.heartbeats import Heartbeats, Lifeline
from aiocop_collector.receive.session import HELLO_TIMEOUT_S, Session
from aiocop_collector.sockets import remove_unix
from aiocop_collector.store.writer import Store
from aiocop_wire import UnixAddress

_ACCEPTED_PER_TURN: Final = 128
_RETRY_S: Final = 1.0


class UnixReceiver:
    """One listening socket and its sessions."""

    def __init__(
        self,
        bound: socket.socket,
        address: UnixAddress,
        store: Store,
        counters: Counters,
        heartbeats: Heartbeats,
        controls: Controls | None = None,
    ) -> None:
        self.address = str(address)
        """As it is printed when the collector is ready."""
        self._socket = bound
        self._path = address
        self._inode = Path(address.path).stat().st_ino
        self._store = store
        self._counters = counters
        self._heartbeats = heartbeats
        self._controls = controls
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._log = Log("receive")

    @property
    def is_listening(self) -> bool:
        return self._accepting

    async def start(self) -> None:
        """Accept from now on."""
        self._socket.setblocking(False)  # noqa: FBT003 - its signature
        self._accepting = True
        self._listen()

    def stop(self) -> None:
        """Accept no more, and give the path free. Open streams go on until `finish`."""
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._socket)
            if self._retry is not None:
                self._retry.cancel()
        remove_unix(self._socket, self._path, self._inode)

    async def take_in(self) -> None:
        """Nothing to do: what a stream's agent was not told to be committed, it does not count as delivered."""

    async def finish(self) -> None:
        """Send what the sessions were told, and end them."""
        tasks = list(self._sessions)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _listen(self) -> None:
        self._retry = None
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Take in who waits. Not asyncio's server: it reads without asking for descriptors (see greeting.py)."""
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTED_PER_TURN):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor or memory left: those who wait stay in the backlog for a moment.
                self._log.error("no stream can be accepted", error=error.strerror)
                loop.remove_reader(self._socket)
                self._retry = loop.call_later(_RETRY_S, self._listen)
                return
            self._counters.add("connections")
            connection.setblocking(False)  # noqa: FBT003 - its signature
            task = loop.create_task(self._serve(connection), name="aiocop-collector-session")
            self._sessions.add(task)
            task.add_done_callback(self._ended)

    async def _serve(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(connection.close)
            try:
                first, descriptor = await asyncio.wait_for(first_read(connection), HELLO_TIMEOUT_S)
                if not first:
                    return
                lifeline = Lifeline(self._heartbeats, descriptor)
                cleanup.callback(lifeline.end)
                reader, writer = await open_stream(connection, first)
            except asyncio.TimeoutError:
                self._counters.add("hello_timeouts")
                return
            except OSError as error:
                self._log.info("stream ended", error=str(error))
                return
            cleanup.pop_all()  # from here on the connection is its transport's
            try:
                await Session(reader, writer, self._store, self._counters, lifeline, self._controls).run()
            finally:
                lifeline.end()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("a stream ended by a defect of the collector", exc_info=error)
