"""Slices that were asked for in detail, and what came."""

import json
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.control import CaptureAnswer, CapturedSlice, CaptureMoment, CaptureState
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.evidence import frame_answers
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.store.control import CAPTURE_FOR_MS, WAITING
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.schema import captures

_MAX_CAPTURES: Final = 20


async def captures_at(connection: AsyncConnection, which: "ColumnElement[bool]", now_ms: int) -> list[CaptureAnswer]:
    """Those of a hotspot, or of somebody's settings, the latest first."""
    statement = (
        select(captures).where(which).order_by(captures.c.requested_at_ms.desc(), captures.c.id).limit(_MAX_CAPTURES)
    )
    return [_answer(row, now_ms) for row in await connection.execute(statement)]


def _answer(row: Row[Any], now_ms: int) -> CaptureAnswer:
    expired = row.state == WAITING and row.requested_at_ms <= now_ms - CAPTURE_FOR_MS
    state: CaptureState = "expired" if expired else row.state
    return CaptureAnswer(
        id=to_hex(row.id),
        hotspot=to_hex(row.hotspot_id),
        state=state,
        requested_at=to_rfc3339(row.requested_at_ms),
        requested_by=row.requested_by,
        captured_at=None if row.captured_at_ms is None else to_rfc3339(row.captured_at_ms),
        agent=row.agent_id,
        slice=None if row.event is None else _slice(json.loads(row.event)),
    )


def _slice(event: dict[str, Any]) -> CapturedSlice:
    capture = event["capture"]
    return CapturedSlice(
        started_at=to_rfc3339(event["started_at_ms"]),
        elapsed_ms=milliseconds(event["elapsed_us"]),
        threshold_ms=milliseconds(event["threshold_us"]),
        cause=event["cause"],
        task_name=event["task_name"],
        thread_name=event["thread_name"],
        loop=event["loop"],
        cpu_ms=milliseconds(event["cpu_us"]) if event["cpu_us"] >= 0 else None,
        gc_ms=milliseconds(event["gc_us"]),
        context=event["context"],
        moments=[
            CaptureMoment(
                at_ms=milliseconds(at_us),
                blocked_ms=milliseconds(blocked_us) if blocked_us >= 0 else None,
                site_id=None if site_id is None else to_hex(site_id),
                trace=trace if trace >= 0 else None,
            )
            for at_us, blocked_us, site_id, trace in capture["moments"]
        ],
        traces=[frame_answers(frames) for frames in capture["traces"]],
    )
