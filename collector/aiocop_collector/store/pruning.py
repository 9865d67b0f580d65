"""Deleting what is too old, or too much: in batches, each a transaction of its own, so that reports never wait long.

By age first (retention.py). When the store is still larger than it may be, the oldest minutes go, then the oldest
hours, then the oldest days, until it is 5 % below the limit. Fine buckets go first because they are the most rows and
because coarser ones answer for them: what is lost is resolution of the past, and counts only when days have to go.
"""

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from aiocop_collector.log import Log
from aiocop_collector.store import schema
from aiocop_collector.store.database import writing
from aiocop_collector.store.horizons import load_horizons, raise_horizon
from aiocop_collector.store.partitions import (
    STEP_S,
    create_partition,
    drop_partition,
    ended_partitions,
    is_divided,
    missing_partitions,
)
from aiocop_collector.store.retention import (
    ROWS_PER_BATCH,
    Expired,
    buckets_before,
    evidence_before,
    expired,
    horizon_s,
)
from aiocop_collector.store.size import Size, give_back, measure

_TARGET_SHARE: Final = 0.95
"""How far below its limit a store is brought that was above it, so that it is not there again at once."""

_MINUTE, _HOUR, _DAY = schema.RESOLUTIONS


@dataclass(frozen=True, slots=True)
class _Stage:
    """One resolution, when the store is too large."""

    resolution: schema.Resolution
    step_s: int
    """So much is given up at a time."""
    shortest_s: int
    """So much of it stays in any case: what happens now must be seen, and triage looks at the last hour's minutes."""


_STAGES: Final = (
    _Stage(_MINUTE, step_s=3600, shortest_s=2 * 3600),
    _Stage(_HOUR, step_s=86_400, shortest_s=2 * 86_400),
    _Stage(_DAY, step_s=86_400, shortest_s=2 * 86_400),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a store may be."""

    retention: timedelta
    max_bytes: int = 0
    """0: as large as it gets."""


class Pruner:
    """Deletes by two rules. Used by the collector's writer, and by `aiocop-collector db prune`.

    Its methods yield how many rows a transaction deleted: the caller may do other things in between, or stop there.
    They raise what the database raises.
    """

    def __init__(self, engine: AsyncEngine, limits: Limits, *, clock_s: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._limits = limits
        self._clock_s = clock_s
        self._told = False
        self._log = Log("store")

    async def by_age(self) -> AsyncGenerator[int, None]:
        """Delete what is too old."""
        now_ms = self._now_ms()
        await self._make_partitions(now_ms // 1000)
        for resolution in schema.RESOLUTIONS:
            from_s = horizon_s(self._limits.retention, resolution, now_ms)
            if is_divided(self._engine.dialect, resolution):
                from_s -= from_s % STEP_S  # partitions go whole
            async for rows in self._drop_buckets(resolution, from_s):
                yield rows
        async for _, rows in self._drop(expired(self._limits.retention, now_ms)):
            yield rows
        async for rows in self._give_back():
            yield rows

    async def by_size(self) -> AsyncGenerator[int, None]:
        """Delete what is too much."""
        size = await self._measure()
        if not self._limits.max_bytes or size.used_bytes <= self._limits.max_bytes:
            return
        self._log.info("the store is too large", used_bytes=size.used_bytes, max_bytes=self._limits.max_bytes)
        target_bytes = self._limits.max_bytes * _TARGET_SHARE
        for stage in _STAGES:
            while size.used_bytes > target_bytes and (from_s := await self._next_horizon_s(stage)) is not None:
                deleted: dict[str, int] = {}
                async for table, rows in self._drop_before(stage.resolution, from_s):
                    deleted[table] = deleted.get(table, 0) + rows
                    yield rows
                size = await self._after(size, deleted)
        async for rows in self._give_back():
            yield rows
        self._tell(size)

    async def _next_horizon_s(self, stage: _Stage) -> int | None:
        """Up to where this stage deletes next; None when it may delete no more."""
        step_s = stage.step_s
        latest_s = self._now_ms() // 1000 - stage.shortest_s
        latest_s -= latest_s % stage.resolution.seconds
        async with self._engine.connect() as connection:
            starts: list[int | None] = [
                (await connection.execute(select(func.min(table.c.bucket_s)))).scalar()
                for table in stage.resolution.tables
            ]
        oldest_s = min((start_s for start_s in starts if start_s is not None), default=None)
        if oldest_s is None or oldest_s >= latest_s:
            return None
        return min(oldest_s - oldest_s % step_s + step_s, latest_s)

    async def _drop_before(self, resolution: schema.Resolution, from_s: int) -> AsyncGenerator[tuple[str, int], None]:
        await self._raise_horizon(resolution, from_s)
        async for dropped in self._drop_partitions(resolution, from_s):
            yield dropped
        async for dropped in self._drop(buckets_before(resolution, from_s)):
            yield dropped
        if resolution is _DAY:
            async for dropped in self._drop(evidence_before(from_s * 1000)):
                yield dropped

    async def _drop_buckets(self, resolution: schema.Resolution, from_s: int) -> AsyncGenerator[int, None]:
        await self._raise_horizon(resolution, from_s)
        async for _, rows in self._drop_partitions(resolution, from_s):
            yield rows
        async for _, rows in self._drop(buckets_before(resolution, from_s)):
            yield rows

    async def _raise_horizon(self, resolution: schema.Resolution, from_s: int) -> None:
        async with self._engine.connect() as connection:
            if (await load_horizons(connection)).get(resolution.seconds, -1) >= from_s:
                return
        async with writing(self._engine) as connection:
            await raise_horizon(connection, resolution, from_s)

    async def _make_partitions(self, now_s: int) -> None:
        async with self._engine.connect() as connection:
            missing = await missing_partitions(connection, now_s)
        for partition in missing:
            async with writing(self._engine) as connection:
                await create_partition(connection, partition)

    async def _drop_partitions(
        self, resolution: schema.Resolution, from_s: int
    ) -> AsyncGenerator[tuple[str, int], None]:
        async with self._engine.connect() as connection:
            partitions = await ended_partitions(connection, resolution, from_s)
        for partition in partitions:
            async with writing(self._engine) as connection:
                rows = await drop_partition(connection, partition)
            yield partition.table.name, rows

    async def _drop(self, old: Iterable[Expired]) -> AsyncGenerator[tuple[str, int], None]:
        for one in old:
            rows = ROWS_PER_BATCH
            while rows >= ROWS_PER_BATCH:
                async with writing(self._engine) as connection:
                    rows = await one.delete_batch(connection)
                yield one.table.name, rows

    async def _give_back(self) -> AsyncGenerator[int, None]:
        more = True
        while more:
            async with self._engine.connect() as connection:
                more = await give_back(connection)
            yield 0

    async def _measure(self) -> Size:
        async with self._engine.connect() as connection:
            return await measure(connection)

    async def _after(self, size: Size, deleted: dict[str, int]) -> Size:
        """The size with these rows gone. PostgreSQL's own figures lag behind by seconds: they are counted off."""
        if not size.row_bytes:
            return await self._measure()
        gone_bytes = int(sum(rows * size.row_bytes.get(table, 0.0) for table, rows in deleted.items()))
        return Size(size.used_bytes - gone_bytes, size.files_bytes, size.row_bytes)

    def _tell(self, size: Size) -> None:
        above = size.used_bytes > self._limits.max_bytes
        if above and not self._told:
            self._log.warning(
                "the store stays larger than it may be: what is left is of the last days and is kept; raise --max-size",
                used_bytes=size.used_bytes,
                max_bytes=self._limits.max_bytes,
            )
        self._told = above

    def _now_ms(self) -> int:
        return int(self._clock_s() * 1000)
