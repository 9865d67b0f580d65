"""`GET /stalls`: loops that are frozen now, and those of the window that ended or died frozen."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import InstantsAnswer, StallAnswer, StallsAnswer
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.errors import BadParameterError
from aiocop_collector.queries.evidence import frames_from_json
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.windows import parse_instant
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import agents, hotspots, releases, services, sites, stalls

_DAY_MS = 86_400_000
_FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class StallsQuestion:
    """The parameters of `GET /stalls`, as they came."""

    since: str | None = None
    until: str | None = None
    service: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    limit: int = 100

    def window_ms(self, now_s: float) -> tuple[int, int]:
        """Unix milliseconds of its start and end. Raises BadParameterError."""
        until_ms = int(now_s * 1000) + 1 if self.until is None else parse_instant("until", self.until, now_s)
        since_ms = until_ms - _DAY_MS if self.since is None else parse_instant("since", self.since, now_s)
        if since_ms >= until_ms:
            raise BadParameterError("since", f"{self.since} is not before until ({self.until or 'now'})")
        return since_ms, until_ms


async def ask_stalls(connection: AsyncConnection, question: StallsQuestion, now_s: float) -> StallsAnswer:
    """What is frozen now first, then the most recent. Raises BadParameterError."""
    since_ms, until_ms = question.window_ms(now_s)
    conditions: list[ColumnElement[bool]] = [
        stalls.c.started_at_ms < until_ms,
        # What may still be frozen is of now, however long ago it began.
        or_(stalls.c.last_seen_ms >= since_ms, stalls.c.state == _FROZEN),
    ]
    if question.service:
        conditions.append(services.c.name.in_(question.service))
    if question.environment:
        conditions.append(services.c.environment.in_(question.environment))
    if question.state:
        conditions.append(stalls.c.state.in_(question.state))
    source = (
        stalls.join(services, services.c.id == stalls.c.service_id)
        .outerjoin(agents, agents.c.id == stalls.c.agent_id)
        .outerjoin(releases, releases.c.id == stalls.c.release_id)
        .outerjoin(sites, sites.c.id == stalls.c.site_id)
        .outerjoin(hotspots, hotspots.c.id == sites.c.hotspot_id)
    )
    total = (await connection.execute(select(func.count()).select_from(source).where(*conditions))).scalar_one()
    statement = (
        select(
            stalls,
            services.c.name.label("service"),
            services.c.environment,
            releases.c.name.label("release"),
            agents.c.pid,
            agents.c.host,
            sites.c.hotspot_id,
            sites.c.operation,
            sites.c.line,
            hotspots.c.path,
            hotspots.c.function,
        )
        .select_from(source)
        .where(*conditions)
        .order_by(case((stalls.c.state == _FROZEN, 0), else_=1), stalls.c.started_at_ms.desc(), stalls.c.id)
        .limit(question.limit)
    )
    return StallsAnswer(
        window=InstantsAnswer(since=to_rfc3339(since_ms), until=to_rfc3339(until_ms)),
        total=total,
        stalls=[_stall(row) for row in await connection.execute(statement)],
    )


def _stall(row: Row[Any]) -> StallAnswer:
    return StallAnswer(
        id=to_hex(row.id),
        service=row.service,
        environment=row.environment,
        release=row.release or "",
        agent=row.agent_id,
        pid=row.pid,
        host=row.host,
        state=row.state,
        started_at=to_rfc3339(row.started_at_ms),
        last_seen=to_rfc3339(row.last_seen_ms),
        blocked_ms=milliseconds(row.blocked_us),
        hotspot=None if row.hotspot_id is None else to_hex(row.hotspot_id),
        call_site=_call_site(row),
        # Not the operation of a call that only happened to be the last one before.
        operation=row.operation if row.reported or row.state == "died" else None,
        gil_held=None if row.gil_held is None else bool(row.gil_held),
        thread_name=row.thread_name,
        trace=frames_from_json(row.frames),
    )


def _call_site(row: Row[Any]) -> str | None:
    if row.path is None:
        return None
    return f"{row.path}:{row.line}:{row.function}" if row.function else str(row.path)
