"""The stream server: accepts agents on a bound unix socket and runs a session for each."""

import asyncio
import socket
from pathlib import Path

import structlog

from aiocop_collector.counters import Counters
from aiocop_collector.receive.session import Session
from aiocop_collector.sockets import BACKLOG, remove_unix
from aiocop_collector.store import Store
from aiocop_wire import UnixAddress


class UnixReceiver:
    """One listening socket and its sessions."""

    def __init__(self, bound: socket.socket, address: UnixAddress, store: Store, counters: Counters) -> None:
        self.address = str(address)
        """As it is printed when the collector is ready."""
        self._socket = bound
        self._path = address
        self._inode = Path(address.path).stat().st_ino
        self._store = store
        self._counters = counters
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("aiocop_collector.receive")

    @property
    def is_listening(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        """Accept from now on."""
        self._server = await asyncio.start_unix_server(self._accept, sock=self._socket, backlog=BACKLOG)

    def stop(self) -> None:
        """Accept no more, and give the path free. Open streams go on until `finish`."""
        if self._server is not None:
            self._server.close()
            self._server = None
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

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counters.add("connections")
        session = Session(reader, writer, self._store, self._counters)
        task = asyncio.get_running_loop().create_task(session.run(), name="aiocop-collector-session")
        self._sessions.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("a stream ended by a defect of the collector", exc_info=error)
