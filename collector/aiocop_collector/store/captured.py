"""Slices that were asked for in detail, as they come: the first one answers its request, and it is not asked again."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import ids
from aiocop_collector.store.control import CAPTURED, WAITING, next_revision
from aiocop_collector.store.fold import SampledEvent, SiteIds
from aiocop_collector.store.schema import captures, control_settings
from aiocop_wire import Capture


async def store_captured(
    connection: AsyncConnection, events: Iterable[SampledEvent], site_ids: SiteIds, now_ms: int
) -> None:
    """Keep what `events` captured, where it was asked of the agent's service and is waited for."""
    captured = [(sampled, sampled.event.capture) for sampled in events if sampled.event.capture is not None]
    if not captured:
        return
    revision = await next_revision(connection)  # before the rest, in the order of locks (control.py)
    for sampled, capture in captured:
        request_id = ids.to_signed(capture.request_id)
        detail = json.loads(sampled.to_json()) | {"capture": _detail(sampled, capture, site_ids)}
        answered = await connection.execute(
            update(captures)
            .where(
                captures.c.id == request_id,
                captures.c.service_id == sampled.reporter.service_id,
                captures.c.state == WAITING,
            )
            .values(
                state=CAPTURED,
                captured_at_ms=now_ms,
                agent_id=sampled.reporter.agent_id,
                event=json.dumps(detail, separators=(",", ":")),
            )
        )
        if answered.rowcount:
            asked = select(captures.c.settings_id).where(captures.c.id == request_id).scalar_subquery()
            await connection.execute(
                update(control_settings).where(control_settings.c.id == asked).values(revision=revision)
            )


def _detail(sampled: SampledEvent, capture: Capture, site_ids: SiteIds) -> dict[str, Any]:
    service_id = sampled.reporter.service_id
    return {
        "moments": [
            (
                moment.at_us,
                moment.blocked_us,
                site_ids.of(service_id, moment.site_id) if moment.site_id else None,
                moment.trace,
            )
            for moment in capture.moments
        ],
        "traces": [[tuple(frame) for frame in frames] for frames in capture.traces],
    }
