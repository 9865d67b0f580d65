"""How the loops of services fared in a window, and those of agents lately."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.models import LoopAnswer
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.histograms import percentiles
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.windows import Window
from aiocop_collector.store.loops import LoopTotals, RecentLoop
from aiocop_collector.store.schema import BIN_COLUMNS, LOOP_COUNTERS, LOOPS
from aiocop_collector.store.spans import cover
from aiocop_wire import BIN_COUNT


async def loops_by_service(connection: AsyncConnection, window: Window) -> Mapping[int, LoopTotals]:
    """As text, like the other sums of 86 bins (queries/histograms.py); all numbers in it are our own."""
    largest = ("waiting_max", "lag_max_us")
    sums = [f"max({name})" if name in largest else f"CAST(sum({name}) AS BIGINT)" for name in LOOP_COUNTERS]
    sums += [f"CAST(coalesce(sum({name}), 0) AS BIGINT)" for name in BIN_COLUMNS]
    columns = ", ".join((*LOOP_COUNTERS, *BIN_COLUMNS))
    parts = " UNION ALL ".join(
        f"SELECT service_id, {columns} FROM {LOOPS[part.resolution.name].name} WHERE {part.where()}"  # noqa: S608 see above
        for part in cover(window.since_s, window.until_s, window.resolution, {}, window.until_s, {}).buckets
    )
    statement = f"SELECT service_id, {', '.join(sums)} FROM ({parts}) AS facts GROUP BY service_id"  # noqa: S608 see above
    found: dict[int, LoopTotals] = {}
    for row in await connection.exec_driver_sql(statement):
        counters, bins = row[1 : len(LOOP_COUNTERS) + 1], row[len(LOOP_COUNTERS) + 1 :]
        found[row[0]] = LoopTotals(list(counters), {index: count for index, count in enumerate(bins) if count})
    return found


def health_fields(totals: LoopTotals | None) -> dict[str, Any]:
    """The fields of LoopHealthAnswer; without totals nobody has told."""
    if totals is None:
        totals = LoopTotals()
    told = totals.named()
    observed_us = told["observed_us"]
    timers = sum(totals.bins.values())
    bins = tuple([totals.bins.get(index, 0) for index in range(BIN_COUNT)]) if timers else None
    lag = percentiles(bins, told["lag_max_us"])
    return {
        "loop_ms": milliseconds(observed_us),
        "loop_blocked_ms": milliseconds(told["blocked_us"]),
        "blocked_share": round(told["blocked_us"] / observed_us, 6) if observed_us else None,
        "starved_ms": milliseconds(told["starved_us"]),
        "slow_slices": told["slow_slices"],
        "waiting": told["waiting"],
        "waiting_max": told["waiting_max"],
        "timers": timers,
        "lag_mean_ms": round(told["lag_us"] / 1000 / timers, 3) if timers else None,
        "lag_p50_ms": lag.p50_ms,
        "lag_p95_ms": lag.p95_ms,
        "lag_p99_ms": lag.p99_ms,
        "lag_max_ms": milliseconds(told["lag_max_us"]) if timers else None,
    }


def loop_answers(loops: Iterable[RecentLoop]) -> list[LoopAnswer]:
    """The loops of one agent."""
    return [
        LoopAnswer(
            thread_name=loop.thread_name,
            loop=loop.loop,
            since=to_rfc3339(loop.parts[0][0]),
            **health_fields(loop.totals()),
        )
        for loop in loops
    ]
