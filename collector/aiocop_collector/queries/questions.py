"""Every question the collector answers, each from one consistent view of the store."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from aiocop_collector.answers.control import AgentSettingsAnswer, ServiceSettingsAnswer
from aiocop_collector.answers.diff import DiffAnswer
from aiocop_collector.answers.models import (
    AgentsAnswer,
    HotspotDetail,
    HotspotsAnswer,
    OperationsAnswer,
    ServicesAnswer,
    StallsAnswer,
    Timeline,
)
from aiocop_collector.precedence import Precedence
from aiocop_collector.queries.control import (
    SettingsChange,
    agent_settings,
    change_agent,
    change_service,
    service_settings,
)
from aiocop_collector.queries.detail import ask_hotspot
from aiocop_collector.queries.diff import DiffQuestion, ask_diff
from aiocop_collector.queries.fleet import AgentsQuestion, FleetQuestion, ask_agents, ask_operations, ask_services
from aiocop_collector.queries.hotspots import HotspotsQuestion, ask_hotspots
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.stalls import StallsQuestion, ask_stalls
from aiocop_collector.queries.timeline import ask_timeline
from aiocop_collector.queries.triage import Decision, decide
from aiocop_collector.store.database import WRITES
from aiocop_collector.store.snapshot import snapshot


class Queries:
    """Asks the store. Every method raises BadParameterError for a value it cannot use.

    `clock_s` gives Unix seconds: what `15m` is counted back from.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        clock_s: Callable[[], float] = time.time,
        precedence: Precedence | None = None,
    ) -> None:
        self._engine = engine
        self._clock_s = clock_s
        self._precedence = precedence or Precedence()
        self._memory = Memory()

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[AsyncConnection]:
        """One view of the store, while commits give way."""
        with self._precedence.question():
            async with snapshot(self._engine) as connection:
                yield connection

    async def hotspots(self, question: HotspotsQuestion) -> HotspotsAnswer:
        """What froze loops, ranked: one page."""
        async with self._snapshot() as connection:
            return await ask_hotspots(connection, self._memory, question, self._clock_s())

    async def hotspot(self, hotspot_id: str, since: str | None = None, until: str | None = None) -> HotspotDetail:
        """One hotspot in full. Raises UnknownHotspotError."""
        async with self._snapshot() as connection:
            return await ask_hotspot(connection, self._memory, hotspot_id, since, until, self._clock_s())

    async def timeline(self, hotspot_id: str, since: str | None = None, until: str | None = None) -> Timeline:
        """One hotspot over time. Raises UnknownHotspotError."""
        async with self._snapshot() as connection:
            return await ask_timeline(connection, hotspot_id, since, until, self._clock_s())

    async def decide(self, hotspot_id: str, decision: Decision, who: str) -> HotspotDetail:
        """Keep what `who` decided about a hotspot, and show it as it is then. Raises UnknownHotspotError."""
        async with self._engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                await decide(connection, hotspot_id, decision, who, self._clock_s())
        return await self.hotspot(hotspot_id)

    async def control_service(
        self, name: str, environment: str | None, change: SettingsChange, who: str
    ) -> ServiceSettingsAnswer:
        """Keep what `who` wants of a service's agents, and show it as it is then. Raises UnknownHotspotError."""
        now_ms = int(self._clock_s() * 1000)
        async with self._engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                await change_service(connection, name, environment, change, who, now_ms)
        async with self._snapshot() as connection:
            return await service_settings(connection, name, environment, now_ms)

    async def control_agent(self, agent_id: str, change: SettingsChange, who: str) -> AgentSettingsAnswer:
        """The same of one agent. Raises UnknownAgentError, UnknownHotspotError."""
        now_ms = int(self._clock_s() * 1000)
        async with self._engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                await change_agent(connection, agent_id, change, who, now_ms)
        async with self._snapshot() as connection:
            return await agent_settings(connection, agent_id, now_ms)

    async def diff(self, question: DiffQuestion) -> DiffAnswer:
        """What changed between two releases or two stretches of time."""
        async with self._snapshot() as connection:
            return await ask_diff(connection, self._memory, question, self._clock_s())

    async def services(self, question: FleetQuestion) -> ServicesAnswer:
        """Services with what froze them."""
        async with self._snapshot() as connection:
            return await ask_services(connection, self._memory, question, self._clock_s())

    async def operations(self, question: FleetQuestion) -> OperationsAnswer:
        """Blocking operations across the fleet."""
        async with self._snapshot() as connection:
            return await ask_operations(connection, self._memory, question, self._clock_s())

    async def agents(self, question: AgentsQuestion) -> AgentsAnswer:
        """Processes that report, and what became of their reports."""
        async with self._snapshot() as connection:
            return await ask_agents(connection, question, self._clock_s())

    async def stalls(self, question: StallsQuestion) -> StallsAnswer:
        """Freezes in progress, and those that ended or whose process died."""
        async with self._snapshot() as connection:
            return await ask_stalls(connection, question, self._clock_s())
