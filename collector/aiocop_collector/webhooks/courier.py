"""Delivering the outbox: one task, with back-off and a rate limit for each webhook.

At least once: a message is claimed for LEASE_S before it is sent, and given a result after; whoever dies in between
leaves it to be sent again, with the same `webhook-id`. Of several collectors on one store the elected one delivers, so
that the rate limit holds for all of them; should two believe it of themselves, they never hold the same claim. An
attempt tries briefly (stamina); then the row waits, twice as long each time, until GIVE_UP_MS.
"""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

import httpx
import stamina
from sqlalchemy import Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from standardwebhooks import Webhook as Signature

from aiocop_collector.config_file import Webhook
from aiocop_collector.errors import SettingsError
from aiocop_collector.log import Log
from aiocop_collector.store.database import WRITES, reason_of
from aiocop_collector.store.election import Election, webhook_duty
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import outbox
from aiocop_collector.webhooks.message_texts import body_of
from aiocop_wire import __version__

LEASE_S: Final = 120.0
GIVE_UP_MS: Final = 86_400_000
FIRST_WAIT_S: Final = 5.0
LONGEST_WAIT_S: Final = 3600.0
IDLE_S: Final = 3.0
"""How often the outbox is looked at unasked: the other collectors write to it too."""

_TIMEOUT_S: Final = 10.0
_TRIES: Final = 2
_PER_ROUND: Final = 20
_MINUTE_S: Final = 60.0


class _NotTakenError(Exception):
    """The receiver answered with something else than success."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.status = response.status_code
        after = response.headers.get("retry-after", "")
        self.retry_after_s = min(float(after[:9]), LONGEST_WAIT_S) if after.isascii() and after.isdigit() else 0.0


class _Pace:
    """At most so many messages in any minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sent_s: deque[float] = deque()

    def wait_s(self, now_s: float) -> float:
        """How long the next one has to wait."""
        while self._sent_s and self._sent_s[0] <= now_s - _MINUTE_S:
            self._sent_s.popleft()
        return 0.0 if len(self._sent_s) < self._most else self._sent_s[0] + _MINUTE_S - now_s

    def count(self, now_s: float) -> None:
        self._sent_s.append(now_s)


class Courier:
    """Runs between `start` and `stop`. Raises SettingsError when made with a secret that cannot be used."""

    def __init__(
        self,
        engine: AsyncEngine,
        webhooks: Sequence[Webhook],
        election: Election,
        *,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._webhooks: Mapping[str, Webhook] = {webhook.name: webhook for webhook in webhooks}
        self._signatures = {webhook.name: _signature(webhook) for webhook in webhooks}
        self._paces = {webhook.name: _Pace(webhook.max_per_minute) for webhook in webhooks}
        self._election = election
        self._clock_s = clock_s
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = Log("webhooks")

    def start(self) -> None:
        """Deliver from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aiocop-collector-courier")

    async def stop(self) -> None:
        """End, whatever is under way: it will be sent again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def wake(self) -> None:
        """There may be something to deliver."""
        self._woken.set()

    async def _run(self) -> None:
        headers = {"User-Agent": f"aiocop-collector/{__version__}"}
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, headers=headers) as client:
            while True:
                self._woken.clear()
                try:
                    wait_s = await self._deliver_due(client)
                except Exception as error:  # noqa: BLE001 the border to receivers and database: the next message may do
                    self._log.warning("a round of deliveries failed", error=reason_of(error))
                    wait_s = FIRST_WAIT_S
                if wait_s > 0:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), wait_s)

    async def _deliver_due(self, client: httpx.AsyncClient) -> float:
        """Deliver what may be delivered now. How many seconds nothing more is to be done."""
        now_s = self._clock_s()
        ours = [name for name in self._webhooks if self._election.holds(webhook_duty(name))]
        held = {name: self._paces[name].wait_s(now_s) for name in ours}
        free = [name for name, wait_s in held.items() if wait_s <= 0]
        waits_s = [wait_s for wait_s in held.values() if wait_s > 0]
        async with self._engine.connect() as connection:
            due = select(outbox).where(outbox.c.webhook.in_(free), outbox.c.due_at_ms <= int(now_s * 1000))
            rows = (await connection.execute(due.order_by(outbox.c.due_at_ms, outbox.c.id).limit(_PER_ROUND))).all()
            later = select(func.min(outbox.c.due_at_ms)).where(
                outbox.c.webhook.in_(free), outbox.c.due_at_ms > int(now_s * 1000)
            )
            next_ms = (await connection.execute(later)).scalar()
        for row in rows:
            pace = self._paces[row.webhook]
            elected = self._election.holds(webhook_duty(row.webhook))
            if elected and pace.wait_s(self._clock_s()) <= 0 and await self._claim(row):
                pace.count(self._clock_s())
                await self._deliver(client, row)
        if rows:
            return 0.0
        if next_ms is not None:
            waits_s.append(max(0.05, next_ms / 1000 - now_s))
        return min([IDLE_S, *waits_s])

    async def _claim(self, row: Row[Any]) -> bool:
        """Whether the message is ours to send: nobody else changed the row since it was read."""
        mine = update(outbox).where(outbox.c.id == row.id, outbox.c.due_at_ms == row.due_at_ms)
        until_ms = int((self._clock_s() + LEASE_S) * 1000)
        return await self._write(mine.values(due_at_ms=until_ms, attempts=row.attempts + 1)) == 1

    async def _deliver(self, client: httpx.AsyncClient, row: Row[Any]) -> None:
        webhook = self._webhooks[row.webhook]
        after_s = 0.0
        try:
            async for attempt in stamina.retry_context(
                on=_is_passing, attempts=_TRIES, timeout=None, wait_initial=0.2, wait_max=1.0, wait_jitter=0.2
            ):
                with attempt:
                    await self._send(client, webhook, row)
        except _NotTakenError as error:
            result, after_s = str(error), error.retry_after_s
        except httpx.HTTPError as error:
            result = f"{type(error).__name__}: {error}"
        else:
            await self._write(update(outbox).where(outbox.c.id == row.id).values(due_at_ms=None, result="delivered"))
            return
        now_ms = int(self._clock_s() * 1000)
        wait_s = max(after_s, min(FIRST_WAIT_S * 2.0 ** min(row.attempts, 20), LONGEST_WAIT_S))
        due_ms = None if now_ms - row.at_ms > GIVE_UP_MS else now_ms + int(wait_s * 1000)
        await self._write(update(outbox).where(outbox.c.id == row.id).values(due_at_ms=due_ms, result=result[:500]))
        self._log.warning(
            "message not delivered", webhook=webhook.name, event_type=row.event, error=result, given_up=due_ms is None
        )

    async def _send(self, client: httpx.AsyncClient, webhook: Webhook, row: Row[Any]) -> None:
        body = body_of(webhook.format, json.loads(row.message))
        message_id = f"msg_{to_hex(row.id)}"
        now = datetime.fromtimestamp(int(self._clock_s()), timezone.utc)
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
        }
        signature = self._signatures[webhook.name]
        if signature is not None:
            headers["webhook-signature"] = signature.sign(message_id, now, body)
        response = await client.post(str(webhook.url), content=body.encode(), headers=headers)
        if not response.is_success:
            raise _NotTakenError(response)

    async def _write(self, statement: Any) -> int:
        """Rows changed."""
        async with self._engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                return int((await connection.execute(statement)).rowcount)


def _is_passing(error: Exception) -> bool:
    """Whether it is worth another try at once."""
    if isinstance(error, _NotTakenError):
        return error.status >= httpx.codes.INTERNAL_SERVER_ERROR
    return isinstance(error, httpx.TransportError)


def _signature(webhook: Webhook) -> Signature | None:
    secret = webhook.secret()
    if secret is None:
        return None
    try:
        return Signature(secret)
    except (ValueError, RuntimeError) as error:
        raise SettingsError(
            f"the secret of webhook {webhook.name} is not one: it is whsec_ and base64, as made by "
            "printf 'whsec_%s' $(openssl rand -base64 24)"
        ) from error
