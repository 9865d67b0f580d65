"""One collector: its database, its writer and its receivers, started and stopped together."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiocop_collector.config_file import Webhook, read_config
from aiocop_collector.counters import Counters
from aiocop_collector.deferred import load
from aiocop_collector.errors import CollectorError
from aiocop_collector.log import Log
from aiocop_collector.metrics import Metrics
from aiocop_collector.precedence import Precedence
from aiocop_collector.receive import Controls, Heartbeats, UdpReceiver, UnixReceiver
from aiocop_collector.rules_file import RulesFile
from aiocop_collector.settings import Settings
from aiocop_collector.sockets import bind_udp, bind_unix, default_unix_address
from aiocop_collector.store.announcing import Announcer
from aiocop_collector.store.database import open_engine, prepare, shown
from aiocop_collector.store.election import UPKEEP, Election, webhook_duty
from aiocop_collector.store.sqlite_file import in_use
from aiocop_collector.store.transaction import Outcome
from aiocop_collector.store.writer import Store
from aiocop_collector.udp_key import find_udp_key
from aiocop_wire import Address, UnixAddress

if TYPE_CHECKING:
    from aiocop_collector.webhooks.courier import Courier

STOP_TIMEOUT_S: Final = 8.0
"""How long a last commit may take: container engines send SIGKILL ten seconds after SIGTERM."""

SETTLE_TIMEOUT_S: Final = 5.0
"""How long an answer may wait for what has been received to be stored: a commit to a busy disk takes a second and
more, and nothing in an answer shows that it lacks what was flushed before."""


class Collector:
    """Owns everything between the agents' sockets and the database."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet. Raises SettingsError."""
        self._udp_key = find_udp_key(settings)
        self.engine = open_engine(settings.database)
        self.counters = Counters()
        self.precedence = Precedence()
        configuration, _ = read_config(settings.config, Settings.model_fields)
        self.metrics = Metrics(call_sites=configuration.metrics.call_sites)
        self._rules_file = RulesFile(settings.rules) if settings.rules is not None else None
        self._following: asyncio.Task[None] | None = None
        duties = (UPKEEP, *[webhook_duty(webhook.name) for webhook in configuration.webhooks])
        self.election = Election(self.engine, duties)
        self.courier = self._make_courier(configuration.webhooks)
        self.store = Store(
            self.engine,
            self.counters,
            retention=settings.retention,
            max_bytes=settings.max_size,
            on_commit=self._on_commit,
            on_exchange=self._end_streams,
            announcer=Announcer(configuration.webhooks, configuration.budgets, configuration.public_url),
            rules=self._rules_file.rules if self._rules_file is not None else None,
            election=self.election,
            precedence=self.precedence,
        )
        self.heartbeats = Heartbeats(self.store, self.counters)
        self.controls = Controls(self.engine)
        self.receivers: list[UnixReceiver | UdpReceiver] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._held = contextlib.ExitStack()
        self._settings = settings
        self._log = Log()

    async def start(self) -> None:
        """Migrate, bind, receive. Raises CollectorError, with nothing left open."""
        try:
            if self.engine.dialect.name == "sqlite":
                self._held.enter_context(in_use(Path(self.engine.url.database or "")))
            await prepare(self.engine)
            for address in self._settings.listen or (default_unix_address(),):
                self.receivers.append(self._bind(address))
            self.election.start()
            self.store.start()
            self.heartbeats.start()
            self.controls.start()
            if self.courier is not None:
                self.courier.start()
            if self._rules_file is not None:
                follow = self._rules_file.follow(self.store.use_rules)
                self._following = asyncio.get_running_loop().create_task(follow, name="aiocop-collector-rules")
            for receiver in self.receivers:
                await receiver.start()
        except CollectorError:
            await self.stop()
            raise
        self._log.info("collecting", database=shown(self.engine.url))

    async def stop(self) -> bool:
        """Receive no more, commit what is held, acknowledge it, close. Whether all of it was committed.

        Repeated calls are harmless.
        """
        receivers, self.receivers = self.receivers, []
        for receiver in receivers:
            receiver.stop()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self.heartbeats.stop()
        await self.controls.stop()
        if self.courier is not None:
            await self.courier.stop()
        committed = await self.store.stop(STOP_TIMEOUT_S)
        await self.election.stop()
        for receiver in receivers:
            await receiver.finish()
        await self.engine.dispose()
        self._held.close()
        if not committed:
            status = self.store.status()
            self._log.error("not committed, and not acknowledged", reports=status.pending_reports, error=status.error)
        return committed

    async def settle(self) -> None:
        """Return when what had been received before the call is stored, but for reports of streams, or after
        SETTLE_TIMEOUT_S, or when the database cannot store it: so that who reads the store sees what agents were told
        to be sent (`flush` over udp; over unix it waits for the acknowledgement, which comes after the commit).
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._settle(), SETTLE_TIMEOUT_S)

    async def _settle(self) -> None:
        for receiver in self.receivers:
            await receiver.take_in()
        await self.store.settle()

    def _on_commit(self, outcome: Outcome, seconds: float) -> None:
        self.metrics.count_commit(outcome, seconds)
        if self.courier is not None and outcome.announced.messages:
            self.courier.wake()

    def _end_streams(self) -> None:
        """Agents come back at once, and define their sites anew."""
        for receiver in self.receivers:
            if isinstance(receiver, UnixReceiver):
                task = asyncio.get_running_loop().create_task(receiver.finish(), name="aiocop-collector-ending")
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    def _make_courier(self, webhooks: Sequence[Webhook]) -> "Courier | None":
        """None without webhooks, which spares their HTTP client's import. Raises SettingsError."""
        if not webhooks:
            return None
        courier: Courier = load("aiocop_collector.webhooks.courier").Courier(self.engine, webhooks, self.election)
        return courier

    def _bind(self, address: Address) -> UnixReceiver | UdpReceiver:
        if isinstance(address, UnixAddress):
            bound = bind_unix(address, mode=self._settings.socket_mode, group=self._settings.socket_group)
            return UnixReceiver(bound, address, self.store, self.counters, self.heartbeats, self.controls)
        return UdpReceiver(bind_udp(address), self.store, self.counters, key=self._udp_key)
