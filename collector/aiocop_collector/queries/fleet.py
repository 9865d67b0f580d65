"""`GET /services`, `/operations` and `/agents`: who reports, and how it is with them."""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, select
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
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.scope import Scope, exact_sum, open_scope
from aiocop_collector.queries.windows import Window, parse_instant, parse_window
from aiocop_collector.store.agents import chunks, read_overhead
from aiocop_collector.store.control import load_all_wanted
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.loops import read_recent
from aiocop_collector.store.schema import agents, hotspots, releases, services, sites, stalls


@dataclass(frozen=True, slots=True)
class FleetQuestion:
    """The parameters of `GET /services` and `/operations`, as they came."""

    since: str | None = None
    until: str | None = None
    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()

    async def scope(self, connection: AsyncConnection, now_s: float) -> Scope:
        """Raises BadParameterError."""
        window = parse_window(self.since, self.until, now_s, await load_horizons(connection))
        filters = Filters(service=self.service, environment=self.environment)
        return await open_scope(connection, window, filters, GROUPINGS["operation"])


@dataclass(frozen=True, slots=True)
class AgentsQuestion:
    """The parameters of `GET /agents`, as they came."""

    since: str | None = None
    """Only agents that reported since then; without it all that the store remembers."""
    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    limit: int = 1000


async def ask_services(connection: AsyncConnection, question: FleetQuestion, now_s: float) -> ServicesAnswer:
    """Every known service, by blocked time in the window."""
    scope = await question.scope(connection, now_s)
    totals = scope.totals()
    costs = (
        select(
            sites.c.service_id,
            func.count(hotspots.c.id.distinct()).label("hotspots"),
            exact_sum(totals.c["count"]).label("calls"),
            exact_sum(totals.c.blocked_us).label("blocked_us"),
        )
        .select_from(scope.joined(totals))
        .where(*scope.group_conditions())
        .group_by(sites.c.service_id)
        .subquery("costs")
    )
    running = _agents_in(scope.window)
    blocked_us = func.coalesce(costs.c.blocked_us, 0)
    statement = (
        select(
            services,
            func.coalesce(costs.c.hotspots, 0).label("hotspots"),
            func.coalesce(costs.c.calls, 0).label("calls"),
            blocked_us.label("blocked_us"),
            func.coalesce(running.c.agents, 0).label("agents"),
        )
        .select_from(
            services.outerjoin(costs, costs.c.service_id == services.c.id).outerjoin(
                running, running.c.service_id == services.c.id
            )
        )
        .order_by(blocked_us.desc(), services.c.name, services.c.environment)
    )
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
    return ServicesAnswer(
        window=window_answer(scope.window),
        services=[
            ServiceAnswer(
                name=row.name,
                environment=row.environment,
                releases=names[row.id],
                hotspots=row.hotspots,
                count=row.calls,
                blocked_ms=milliseconds(row.blocked_us),
                agents=row.agents,
                control=controls[row.id],
                first_seen=to_rfc3339(row.first_seen_ms),
                last_seen=to_rfc3339(row.last_seen_ms),
                **health_fields(loops.get(row.id)),
            )
            for row in rows
        ],
    )


async def ask_operations(connection: AsyncConnection, question: FleetQuestion, now_s: float) -> OperationsAnswer:
    """The operations that froze loops in the window, costliest first."""
    scope = await question.scope(connection, now_s)
    totals = scope.totals()
    blocked_us = exact_sum(totals.c.blocked_us)
    statement = (
        select(
            sites.c.operation,
            func.max(sites.c.weight).label("weight"),
            func.count(hotspots.c.id.distinct()).label("hotspots"),
            func.count(sites.c.service_id.distinct()).label("services"),
            exact_sum(totals.c["count"]).label("calls"),
            exact_sum(totals.c.slow_count).label("slow_count"),
            blocked_us.label("blocked_us"),
            func.max(totals.c.max_us).label("max_us"),
        )
        .select_from(scope.joined(totals))
        .where(*scope.group_conditions())
        .group_by(sites.c.operation)
        .order_by(blocked_us.desc(), sites.c.operation)
    )
    return OperationsAnswer(
        window=window_answer(scope.window),
        operations=[
            OperationAnswer(
                name=row.operation,
                severity_score=row.weight,
                hotspots=row.hotspots,
                services=row.services,
                count=row.calls,
                slow_count=row.slow_count,
                blocked_ms=milliseconds(row.blocked_us),
                max_ms=milliseconds(row.max_us),
            )
            for row in await connection.execute(statement)
        ],
    )


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


def _agents_in(window: Window) -> Any:
    return (
        select(agents.c.service_id, func.count().label("agents"))
        .where(agents.c.last_seen_ms >= window.since_s * 1000, agents.c.first_seen_ms < window.until_s * 1000)
        .group_by(agents.c.service_id)
        .subquery("running")
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
