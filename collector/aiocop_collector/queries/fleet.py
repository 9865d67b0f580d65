"""`GET /services`, `/operations` and `/agents`: who reports, and how it is with them."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.control import AgentControl
from aiocop_collector.answers.models import (
    AgentAnswer,
    AgentsAnswer,
    OperationAnswer,
    OperationsAnswer,
    OverheadAnswer,
    ServiceAnswer,
    ServicesAnswer,
    StallInProgress,
)
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.control import agent_control, service_controls
from aiocop_collector.queries.filters import Filters
from aiocop_collector.queries.groupings import GROUPINGS
from aiocop_collector.queries.hotspots import window_answer
from aiocop_collector.queries.loops import health_fields, loop_answers, loops_by_service
from aiocop_collector.queries.memory import Memory
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.scope import Scope, open_scope
from aiocop_collector.queries.windows import Window, parse_instant, parse_window
from aiocop_collector.store.agents import chunks, read_overhead
from aiocop_collector.store.control import load_all_wanted
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.loops import read_recent
from aiocop_collector.store.schema import agents, hotspots, releases, services, sites, stalls
from aiocop_collector.store.totals import counters_of


@dataclass(frozen=True, slots=True)
class FleetQuestion:
    """The parameters of `GET /services` and `/operations`, as they came."""

    since: str | None = None
    until: str | None = None
    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()

    async def scope(self, connection: AsyncConnection, memory: Memory, now_s: float) -> Scope:
        """Grouped by operation. Raises BadParameterError."""
        horizons = await load_horizons(connection)
        window = parse_window(self.since, self.until, now_s, horizons)
        filters = Filters(service=self.service, environment=self.environment)
        return await open_scope(connection, memory, window, filters, GROUPINGS["operation"], now_s, horizons)


@dataclass(frozen=True, slots=True)
class AgentsQuestion:
    """The parameters of `GET /agents`, as they came."""

    since: str | None = None
    """Only agents that reported since then; without it all that the store remembers."""
    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    limit: int = 1000


class _ActiveSite(NamedTuple):
    """What a site is, and its counters over the window."""

    service_id: int
    hotspot_id: int
    operation: str
    weight: int
    calls: int
    slow_count: int
    blocked_us: int
    max_us: int


@dataclass(slots=True)
class _Cost:
    """What sites add up to."""

    hotspots: set[int] = field(default_factory=set)
    services: set[int] = field(default_factory=set)
    weight: int = 0
    count: int = 0
    slow_count: int = 0
    blocked_us: int = 0
    max_us: int = 0

    def add(self, site: _ActiveSite) -> None:
        self.hotspots.add(site.hotspot_id)
        self.services.add(site.service_id)
        self.weight = max(self.weight, site.weight)
        self.count += site.calls
        self.slow_count += site.slow_count
        self.blocked_us += site.blocked_us
        self.max_us = max(self.max_us, site.max_us)


async def ask_services(
    connection: AsyncConnection, memory: Memory, question: FleetQuestion, now_s: float
) -> ServicesAnswer:
    """Every known service, by blocked time in the window."""
    scope = await question.scope(connection, memory, now_s)
    costs: dict[int, _Cost] = defaultdict(_Cost)
    for site in await _active_sites(connection, scope):
        costs[site.service_id].add(site)
    running = dict(tuple(row) for row in await connection.execute(_agents_in(scope.window)))
    statement = select(services)
    if question.service:
        statement = statement.where(services.c.name.in_(question.service))
    if question.environment:
        statement = statement.where(services.c.environment.in_(question.environment))
    rows = (await connection.execute(statement)).all()
    controls = await service_controls(
        connection, {row.id: (row.name, row.environment) for row in rows}, int(now_s * 1000)
    )
    names: dict[int, list[str]] = defaultdict(list)
    by_age = select(releases.c.service_id, releases.c.name).order_by(releases.c.first_seen_ms, releases.c.name)
    for service_id, name in await connection.execute(by_age):
        names[service_id].append(name)
    loops = await loops_by_service(connection, scope.window)
    rows = sorted(
        await connection.execute(statement), key=lambda row: (-costs[row.id].blocked_us, row.name, row.environment)
    )
    return ServicesAnswer(
        window=window_answer(scope.window),
        services=[
            ServiceAnswer(
                name=row.name,
                environment=row.environment,
                releases=names[row.id],
                hotspots=len(costs[row.id].hotspots),
                count=costs[row.id].count,
                blocked_ms=milliseconds(costs[row.id].blocked_us),
                agents=running.get(row.id, 0),
                control=controls[row.id],
                first_seen=to_rfc3339(row.first_seen_ms),
                last_seen=to_rfc3339(row.last_seen_ms),
                **health_fields(loops.get(row.id)),
            )
            for row in rows
        ],
    )


async def ask_operations(
    connection: AsyncConnection, memory: Memory, question: FleetQuestion, now_s: float
) -> OperationsAnswer:
    """The operations that froze loops in the window, costliest first."""
    scope = await question.scope(connection, memory, now_s)
    costs: dict[str, _Cost] = defaultdict(_Cost)
    for site in await _active_sites(connection, scope):
        costs[site.operation].add(site)
    return OperationsAnswer(
        window=window_answer(scope.window),
        operations=[
            OperationAnswer(
                name=operation,
                severity_score=cost.weight,
                hotspots=len(cost.hotspots),
                services=len(cost.services),
                count=cost.count,
                slow_count=cost.slow_count,
                blocked_ms=milliseconds(cost.blocked_us),
                max_ms=milliseconds(cost.max_us),
            )
            for operation, cost in sorted(costs.items(), key=lambda item: (-item[1].blocked_us, item[0]))
        ],
    )


async def _active_sites(connection: AsyncConnection, scope: Scope) -> list[_ActiveSite]:
    """Of all that matches."""
    sums, max_us = scope.by_site()
    statement = (
        select(sites.c.id, sites.c.service_id, sites.c.hotspot_id, sites.c.operation, sites.c.weight)
        .select_from(sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id))
        .where(*scope.filters.site_conditions())
    )
    found = []
    for site_id, service_id, hotspot_id, operation, weight in await connection.execute(statement):
        packed = sums.get(site_id)
        if packed is not None:
            found.append(
                _ActiveSite(service_id, hotspot_id, operation, weight, *counters_of(packed), max_us=max_us[site_id])
            )
    return found


async def ask_agents(connection: AsyncConnection, question: AgentsQuestion, now_s: float) -> AgentsAnswer:
    """Raises BadParameterError."""
    conditions = []
    if question.since is not None:
        conditions.append(agents.c.last_seen_ms >= parse_instant("since", question.since, now_s))
    if question.service:
        conditions.append(services.c.name.in_(question.service))
    if question.environment:
        conditions.append(services.c.environment.in_(question.environment))
    source = agents.join(services, services.c.id == agents.c.service_id).outerjoin(
        releases, releases.c.id == agents.c.release_id
    )
    total = (await connection.execute(select(func.count()).select_from(source).where(*conditions))).scalar_one()
    statement = (
        select(agents, services.c.name.label("service"), services.c.environment, releases.c.name.label("release"))
        .select_from(source)
        .where(*conditions)
        .order_by(agents.c.last_seen_ms.desc(), agents.c.id)
        .limit(question.limit)
    )
    rows = (await connection.execute(statement)).all()
    frozen = await _frozen(connection, [row.id for row in rows])
    now_ms = int(now_s * 1000)
    wanted = await load_all_wanted(connection, now_ms)
    return AgentsAnswer(
        total=total,
        agents=[_agent(row, frozen.get(row.id, []), agent_control(row, wanted, now_ms)) for row in rows],
    )


async def _frozen(connection: AsyncConnection, agent_ids: list[str]) -> dict[str, list[StallInProgress]]:
    """The stalls in progress of these agents."""
    found: dict[str, list[StallInProgress]] = defaultdict(list)
    statement = (
        select(stalls.c.id, stalls.c.agent_id, stalls.c.started_at_ms, stalls.c.blocked_us)
        .where(stalls.c.state == "frozen")
        .order_by(stalls.c.blocked_us.desc(), stalls.c.id)
    )
    for part in chunks(agent_ids):
        for row in await connection.execute(statement.where(stalls.c.agent_id.in_(part))):
            found[row.agent_id].append(
                StallInProgress(
                    id=to_hex(row.id),
                    started_at=to_rfc3339(row.started_at_ms),
                    blocked_ms=milliseconds(row.blocked_us),
                )
            )
    return found


def _agents_in(window: Window) -> Select[Any]:
    """(service_id, agents)."""
    return (
        select(agents.c.service_id, func.count().label("agents"))
        .where(agents.c.last_seen_ms >= window.since_s * 1000, agents.c.first_seen_ms < window.until_s * 1000)
        .group_by(agents.c.service_id)
    )


def _overhead(stored: str | None) -> OverheadAnswer | None:
    overhead = read_overhead(stored)
    if overhead is None:
        return None
    return OverheadAnswer(
        share=overhead.share_ppm / 1e6,
        budget=overhead.budget_ppm / 1e6 if overhead.budget_ppm else None,
        level=overhead.level,
        since=to_rfc3339(overhead.since_ms) if overhead.since_ms else None,
        reductions=overhead.reductions,
    )


def _agent(row: Row[Any], frozen: list[StallInProgress], control: AgentControl) -> AgentAnswer:
    said_farewell = row.farewell_sequence is not None
    return AgentAnswer(
        id=row.id,
        service=row.service,
        environment=row.environment,
        release=row.release or "",
        pid=row.pid,
        host=row.host,
        python=row.python,
        loop=row.loop,
        agent_version=row.agent_version,
        transport=row.transport,
        started_at=to_rfc3339(row.started_at_ms),
        first_seen=to_rfc3339(row.first_seen_ms),
        last_seen=to_rfc3339(row.last_seen_ms),
        committed_sequence=row.committed_sequence,
        reports_received=row.reports_received,
        reports_lost=row.reports_lost,
        reports_duplicated=row.reports_duplicated,
        tail=None if row.transport != "udp" else "complete" if said_farewell else "unknown",
        dropped=json.loads(row.dropped),
        recorded=row.recorded,
        slices=row.slices,
        agent_cpu_ms=milliseconds(row.agent_cpu_us),
        loops=loop_answers(read_recent(row.loops)),
        overhead=_overhead(row.overhead),
        stalls=frozen,
        control=control,
    )
