"""What agents are to do: read from the store when it changes, and told to those that are connected here and allow it.

Twice a second, while anybody listens, one row is read: the store's revision. So a change that was made at any collector
on the store reaches every agent within about half a second, and costs nothing where nothing changes. An agent that
comes is told with the next look, which its coming brings about at once; many that come together share it.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from aiocop_collector.log import Log
from aiocop_collector.store.control import AllWanted, load_all_wanted, read_revision
from aiocop_collector.store.database import reason_of
from aiocop_wire import Control, Identity

LOOK_EVERY_S: Final = 0.5


class Listener:
    """One connected agent that allows remote control."""

    def __init__(self, identity: Identity, tell: Callable[[Control], None]) -> None:
        self.identity = identity
        self._tell = tell
        self._told = -1

    def hear(self, wanted: AllWanted) -> None:
        """Be told what is wanted, where that is new."""
        identity = self.identity
        control = wanted.of_agent(identity.instance.hex(), identity.service, identity.environment)
        if control.revision > self._told:
            self._told = control.revision
            self._tell(control)


class Controls:
    """The agents connected to this collector that can be told something."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._listeners: set[Listener] = set()
        self._new: set[Listener] = set()
        self._came = asyncio.Event()
        self._wanted = AllWanted(revision=-1)
        self._error: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = Log("receive")

    def start(self) -> None:
        """Begin to look. The database must be migrated."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aiocop-collector-controls")

    async def stop(self) -> None:
        """Tell nobody anything more. Repeated calls are harmless."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def join(self, identity: Identity, tell: Callable[[Control], None]) -> Listener:
        """From now on, until `leave`, `tell` is called with what this agent is to do. It must not raise."""
        listener = Listener(identity, tell)
        self._listeners.add(listener)
        self._new.add(listener)
        self._came.set()
        return listener

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        self._new.discard(listener)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._came.wait(), LOOK_EVERY_S if self._listeners else None)
            self._came.clear()
            try:
                await self._look()
            except (SQLAlchemyError, OSError, sqlite3.Error) as error:
                self._note(reason_of(error))
                await asyncio.sleep(LOOK_EVERY_S)
                if self._new:
                    self._came.set()
            else:
                self._note(None)

    async def _look(self) -> None:
        new = set(self._new)
        async with self._engine.connect() as connection:
            changed = await read_revision(connection) != self._wanted.revision
            if changed:
                self._wanted = await load_all_wanted(connection, int(time.time() * 1000))
        for listener in set(self._listeners) if changed else new:
            listener.hear(self._wanted)
        self._new -= new

    def _note(self, error: str | None) -> None:
        if error != self._error:
            self._error = error
            if error is not None:
                self._log.warning("agents cannot be told what is wanted of them", error=error)
