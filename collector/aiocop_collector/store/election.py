"""Duties that one collector does for all that share a store, and who that is: the holder of an advisory lock.

    upkeep          deleting what is too old, summing spans
    webhook NAME    delivering the messages of one webhook; only collectors that know the webhook stand for it

On PostgreSQL each duty is a session-level advisory lock, all of them on one connection of the collector's own: when the
collector is killed or cut off, the server gives them to whoever asks next, within CONFIRM_S of noticing. On SQLite
there is nobody else: every duty is held.

Holding a duty is about not doing the same work twice, never about correctness: for a moment two collectors may each
believe that they hold it. So what is done under it must be harmless when done twice at once: deleting is, spans are
summed under a lock of their transaction, messages are claimed row by row.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from aiocop_collector.log import Log
from aiocop_collector.store import ids
from aiocop_collector.store.database import reason_of

UPKEEP: Final = "upkeep"

CONFIRM_S: Final = 1.0
"""How often the connection is asked whether it still lives, and duties that nobody holds are asked for. By asking
again and again: a session that waits for a lock would keep PostgreSQL from cleaning up dead rows."""

STALE_S: Final = 5.0
"""Without an answer for this long we no longer believe to hold anything. Shorter than _IDLE_MS: a collector that was
frozen knows better before another one is elected."""

_IDLE_MS: Final = 8_000
"""After this long without a question PostgreSQL (14 and later) ends the session: that is how it notices a collector
that is frozen or whose host is gone. Of one that was killed the kernel tells it at once."""

_APPLICATION: Final = "aiocop-collector election"

_END_IDLE: Final = text("SELECT set_config(name, :idle_ms, false) FROM pg_settings WHERE name = 'idle_session_timeout'")
_ASK: Final = text("SELECT key, pg_try_advisory_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


def webhook_duty(name: str) -> str:
    """The duty to deliver a webhook's messages."""
    return f"webhook {name}"


class Election:
    """Stands for duties between `start` and `stop`. Used on the event loop's thread only."""

    def __init__(
        self, engine: AsyncEngine, duties: Iterable[str], *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = engine.url
        self._alone = engine.dialect.name != "postgresql"
        self._duty_of = {ids.duty_key(duty): duty for duty in duties}
        self._held: set[str] = set()
        self._confirmed_s = 0.0
        self._clock_s = clock_s
        self._error: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = Log("election")

    def holds(self, duty: str) -> bool:
        """Whether this collector is the one to do it now. Ask again before each piece of work."""
        if self._alone:
            return True
        return duty in self._held and self._clock_s() - self._confirmed_s < STALE_S

    def standing(self) -> Mapping[str, bool]:
        """Every duty this collector stands for, and whether it holds it."""
        return {duty: self.holds(duty) for duty in self._duty_of.values()}

    def start(self) -> None:
        """Stand for the duties from now on."""
        if not self._alone:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="aiocop-collector-election")

    async def stop(self) -> None:
        """Give the duties away. Call when the work that is done under them has ended."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        # Not from the engine's pool: the connection is held for good, and must be closed to release the locks.
        engine = create_async_engine(
            self._url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "timeout": STALE_S,
                "command_timeout": STALE_S,
                "server_settings": {"application_name": _APPLICATION},
            },
        )
        while True:
            try:
                async with engine.connect() as connection:
                    try:
                        await self._stand(connection)
                    finally:
                        await connection.invalidate()  # a polite farewell may wait for a peer that is gone
            except Exception as error:  # noqa: BLE001 the border to the database: whatever it is, another one may lead meanwhile
                self._lost(reason_of(error))
            finally:
                self._held.clear()
            await asyncio.sleep(CONFIRM_S)

    async def _stand(self, connection: AsyncConnection) -> None:
        """Until the connection is lost."""
        await connection.execute(_END_IDLE, {"idle_ms": str(_IDLE_MS)})
        while True:
            asked_s = self._clock_s()
            wanted = [key for key, duty in self._duty_of.items() if duty not in self._held]
            granted = {self._duty_of[key] for key, got in await connection.execute(_ASK, {"keys": wanted}) if got}
            self._held |= granted
            self._confirmed_s = asked_s  # any answer says that the session lives, and with it its locks
            if self._error is not None:
                self._log.info("standing for duties again")
                self._error = None
            for duty in sorted(granted):
                self._log.info("elected", duty=duty)
            await asyncio.sleep(CONFIRM_S)

    def _lost(self, reason: str) -> None:
        if self._held:
            self._log.warning("no longer elected", duties=sorted(self._held), error=reason)
        elif reason != self._error:
            self._log.warning("cannot stand for duties", error=reason)
        self._error = reason
