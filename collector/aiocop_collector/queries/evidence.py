"""What was kept of single moments of a hotspot: full traces, the processes that saw it, whole slow events."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.base import FrameAnswer, FrameKind
from aiocop_collector.answers.models import (
    HotspotAgent,
    SlowEventAnswer,
    SlowSiteAnswer,
    TraceAnswer,
)
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import agents, presence, releases, sites, slow_events, traces

_MAX_TRACES: Final = 100
_MAX_AGENTS: Final = 1_000
_MAX_SLOW_EVENTS: Final = 50
_FRAME_KINDS: Final[tuple[FrameKind, ...]] = ("application", "library", "standard")  # as numbered by aiocop_wire


def frames_from_json(text: str) -> list[FrameAnswer]:
    """The frames in a column of sites or traces: `[[path, line, function, kind], …]`."""
    return frame_answers(json.loads(text))


def frame_answers(frames: Iterable[Sequence[Any]]) -> list[FrameAnswer]:
    """Frames as the store holds them."""
    return [
        FrameAnswer(path=path, line=line, function=function, kind=_FRAME_KINDS[kind])
        for path, line, function, kind in frames
    ]


async def traces_of(connection: AsyncConnection, hotspot_id: int) -> list[TraceAnswer]:
    """The most recently seen first."""
    statement = (
        select(traces.c.id, traces.c.site_id, traces.c.last_seen_ms, traces.c.frames, sites.c.operation)
        .select_from(traces.join(sites, sites.c.id == traces.c.site_id))
        .where(sites.c.hotspot_id == hotspot_id)
        .order_by(traces.c.last_seen_ms.desc(), traces.c.id)
        .limit(_MAX_TRACES)
    )
    return [
        TraceAnswer(
            id=to_hex(row.id),
            site_id=to_hex(row.site_id),
            operation=row.operation,
            last_seen=to_rfc3339(row.last_seen_ms),
            frames=frames_from_json(row.frames),
        )
        for row in await connection.execute(statement)
    ]


async def agents_of(connection: AsyncConnection, hotspot_id: int, window: Window) -> list[HotspotAgent]:
    """Who saw it on a day of the window, the most recently seen first."""
    saw_it = (
        select(presence.c.agent_id)
        .where(
            presence.c.day_s >= window.day_starts_s[0],
            presence.c.day_s < window.until_s,
            presence.c.site_id.in_(select(sites.c.id).where(sites.c.hotspot_id == hotspot_id)),
        )
        .distinct()
    )
    statement = (
        select(agents.c.id, agents.c.pid, agents.c.host, agents.c.last_seen_ms, releases.c.name)
        .select_from(agents.outerjoin(releases, releases.c.id == agents.c.release_id))
        .where(agents.c.id.in_(saw_it))
        .order_by(agents.c.last_seen_ms.desc(), agents.c.id)
        .limit(_MAX_AGENTS)
    )
    return [
        HotspotAgent(id=row.id, pid=row.pid, host=row.host, release=row.name, last_seen=to_rfc3339(row.last_seen_ms))
        for row in await connection.execute(statement)
    ]


async def slow_events_of(connection: AsyncConnection, hotspot_id: int, window: Window) -> list[SlowEventAnswer]:
    """Those that started in the window, the most recent first."""
    started_at_ms = slow_events.c.started_at_ms
    statement = (
        select(slow_events.c.id, slow_events.c.agent_id, started_at_ms, slow_events.c.event)
        .where(
            slow_events.c.hotspot_id == hotspot_id,
            started_at_ms >= window.since_s * 1000,
            started_at_ms < window.until_s * 1000,
        )
        .order_by(started_at_ms.desc(), slow_events.c.id)
        .limit(_MAX_SLOW_EVENTS)
    )
    return [
        _slow_event(row.id, row.agent_id, row.started_at_ms, json.loads(row.event))
        for row in await connection.execute(statement)
    ]


def _slow_event(event_id: int, agent: str, started_at_ms: int, event: dict[str, Any]) -> SlowEventAnswer:
    return SlowEventAnswer(
        id=to_hex(event_id),
        agent=agent,
        started_at=to_rfc3339(started_at_ms),
        elapsed_ms=milliseconds(event["elapsed_us"]),
        threshold_ms=milliseconds(event["threshold_us"]),
        cause=event["cause"],
        severity_score=event["severity_score"],
        task_name=event["task_name"],
        thread_name=event["thread_name"],
        loop=event["loop"],
        cpu_ms=milliseconds(event["cpu_us"]) if event["cpu_us"] >= 0 else None,
        gc_ms=milliseconds(event["gc_us"]),
        sites=[
            SlowSiteAnswer(
                site_id=to_hex(site["site_id"]),
                trace_id=to_hex(site["trace_id"]) if site["trace_id"] is not None else None,
                count=site["count"],
                blocked_ms=milliseconds(site["blocked_us"]),
                arguments=site.get("arguments", {}),  # kept by a collector before there were any: without
            )
            for site in event["sites"]
        ],
        context=event["context"],
        capture=event.get("capture"),
        waiting=event.get("waiting"),  # an older collector did not keep it
    )
