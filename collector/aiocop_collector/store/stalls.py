"""The rows of `stalls` inside a transaction: what agents tell of freezes in progress, and what their deaths prove.

    frozen ──its end is told, or seen on the heartbeat──> ended
       └────the process died────> died ──its end is told all the same──> ended

A stall that goes on, or has ended, adds nothing to any count: the calls of its slice are counted by the agent when they
end. One that died has nobody left to count it: it adds 1 to its site's count (unless the call was counted when it
started) and its time, once, because the row says so and is written under the agent's lock. Should the agent tell of its
end after all, the lock was lost by accident, and what was added is taken away again.

A stall whose agent is gone without evidence (the host went down, the collector was away) stays `frozen` as of
`last_seen_ms`: nobody knows better.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.arrivals import StallSighting
from aiocop_collector.store import ids
from aiocop_collector.store.agents import chunks, clean
from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.fold import Fold, Reporter, Sighting
from aiocop_collector.store.schema import hotspots, sites, stalls
from aiocop_collector.store.sites import UNKNOWN, Defined, frames_json
from aiocop_collector.store.statements import REPLACE, Statements
from aiocop_wire import Frame, Report, SiteDefinition, SiteDelta, bin_of, fingerprint, site_id

MAX_STALLS_PER_AGENT: Final = 1_000
"""The most recent ones kept."""

_CPU: Final = "cpu"
_WIRE_RANGE: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class StallRow:
    """One row, in the order of the table's columns."""

    id: int
    agent_id: str
    service_id: int
    release_id: int
    slice_ns: int
    state: str
    started_at_ms: int
    last_seen_ms: int
    blocked_us: int
    site_id: int | None
    wire_site_id: int | None
    reported: int
    counted: int
    gil_held: int | None
    died_count: int
    thread_name: str
    frames: str

    def values(self) -> tuple[Any, ...]:
        return tuple([getattr(self, column.name) for column in stalls.columns])


@dataclass(frozen=True, slots=True)
class StallNews:
    """What one arrival says of an agent's stalls."""

    reporter: Reporter
    sightings: tuple[StallSighting, ...]
    running: frozenset[int] | None = None


class StallBook:
    """One use: collects the news of a transaction, then `settle`s them."""

    def __init__(self, connection: AsyncConnection, statements: Statements, fold: Fold, *, now_ms: int) -> None:
        self._connection = connection
        self._statements = statements
        self._fold = fold
        self._now_ms = now_ms
        self._news: list[StallNews] = []
        self._rows: dict[int, StallRow] = {}
        self._changed: set[int] = set()

    def note(self, reporter: Reporter, sightings: Iterable[StallSighting], running: frozenset[int] | None) -> None:
        """Take in what an arrival says."""
        told = tuple(sightings)
        if told or running is not None:
            self._news.append(StallNews(reporter, told, running))

    async def settle(self, defined: dict[int, Defined]) -> None:
        """Change the rows. What deaths add goes into the fold, and the sites it needs into `defined`."""
        if not self._news:
            return
        await self._load()
        for news in self._news:
            for sighting in news.sightings:
                await self._see(news.reporter, sighting, defined)
            if news.running is not None:
                self._close_all_but(news.reporter, news.running)

    def frozen(self) -> list[StallRow]:
        """Those that are known to be frozen by what was told now."""
        return [row for stall_id in sorted(self._changed) if (row := self._rows[stall_id]).state == "frozen"]

    async def write(self) -> None:
        """Write the rows that changed, and delete the oldest of agents that have very many."""
        rows = [self._rows[stall_id] for stall_id in sorted(self._changed)]
        if not rows:
            return
        merge = {column.name: REPLACE for column in stalls.columns if not column.primary_key}
        upsert = self._statements.upsert(stalls, merge)
        await execute_rows(self._connection, upsert, [row.values() for row in rows])
        trim = self._statements.keep_newest(stalls, "agent_id", "started_at_ms", MAX_STALLS_PER_AGENT)
        agent_ids = sorted({row.agent_id for row in rows})
        await execute_rows(self._connection, trim, [(agent_id, agent_id) for agent_id in agent_ids])

    async def _load(self) -> None:
        wanted = sorted({_id_of(news.reporter, item.slice_ns) for news in self._news for item in news.sightings})
        for part in chunks(wanted):
            await self._read(stalls.c.id.in_(part))
        told = sorted({news.reporter.agent_id for news in self._news if news.running is not None})
        for agents in chunks(told):
            await self._read(and_(stalls.c.agent_id.in_(agents), stalls.c.state == "frozen"))

    async def _read(self, condition: Any) -> None:
        for row in (await self._connection.execute(select(stalls).where(condition))).mappings():
            self._rows[row["id"]] = StallRow(**row)

    async def _see(self, reporter: Reporter, sighting: StallSighting, defined: dict[int, Defined]) -> None:
        stall_id = _id_of(reporter, sighting.slice_ns)
        known = self._rows.get(stall_id)
        if known is None:
            if sighting.only_if_known:
                return
            known = _new_row(stall_id, reporter, sighting, self._now_ms)
        if known.state == "ended" or (known.state == "died" and sighting.state != "ended"):
            # The end that the agent tells goes before the one that was only seen; of two, the later look.
            if sighting.state == "ended" and sighting.blocked_us >= known.blocked_us:
                self._put(_merged(reporter, known, sighting, self._now_ms))
            return
        if known.state == "died":
            self._count(reporter, known, -1)
        seen = _merged(reporter, known, sighting, self._now_ms)
        if sighting.state == "died":
            seen = await self._bury(reporter, seen, defined)
        self._put(seen)

    def _close_all_but(self, reporter: Reporter, running: frozenset[int]) -> None:
        for row in list(self._rows.values()):
            if row.agent_id == reporter.agent_id and row.state == "frozen" and row.slice_ns not in running:
                self._put(replace(row, state="ended"))

    def _put(self, row: StallRow) -> None:
        self._rows[row.id] = row
        self._changed.add(row.id)

    async def _bury(self, reporter: Reporter, row: StallRow, defined: dict[int, Defined]) -> StallRow:
        """The row of a stall whose process died, with its counts added."""
        if not row.reported:
            definition = await self._cpu_site(reporter, row.site_id)
            row = replace(
                row,
                site_id=ids.site_id(reporter.service_id, definition.site_id),
                wire_site_id=ids.to_signed(definition.site_id),
            )
            sighting = Sighting(row.last_seen_ms, row.last_seen_ms, reporter.release_id, reporter.release_id)
            defined.setdefault(row.site_id or 0, Defined(reporter.service_id, definition, sighting))
        row = replace(row, died_count=0 if row.counted else 1)
        self._count(reporter, row, 1)
        return row

    async def _cpu_site(self, reporter: Reporter, last_site: int | None) -> SiteDefinition:
        """Native code held the GIL, or the agent had no time to speak: the line is that of the site entered last.

        That call may have ended long before, so it is not blamed: the operation is `cpu`, at the same call site.
        """
        found = None
        if last_site is not None:
            statement = (
                select(hotspots.c.path, hotspots.c.function, sites.c.line)
                .select_from(sites.join(hotspots, hotspots.c.id == sites.c.hotspot_id))
                .where(sites.c.id == last_site, sites.c.service_id == reporter.service_id)
            )
            found = (await self._connection.execute(statement)).first()
        place = Frame(UNKNOWN, 0, "") if found is None else Frame(found.path, found.line, found.function)
        # As the agent does where it knows the function and not the line.
        number = fingerprint([(place.path, place.function, 0)])
        return SiteDefinition(
            site_id(_CPU, number),
            _CPU,
            number,
            "cpu",
            "cpu_blocking",
            0,
            (place,),
            0,
            "Move it to a process or a thread.",
        )

    def _count(self, reporter: Reporter, row: StallRow, sign: int) -> None:
        """Add what a death adds (1), or take it away (-1): in the minute the process was last seen."""
        if row.wire_site_id is None:
            return
        delta = SiteDelta(
            site_id=row.wire_site_id % _WIRE_RANGE,
            count=sign * row.died_count,
            slow_count=sign,
            blocked_us=sign * row.blocked_us,
            max_us=max(0, sign * row.blocked_us),
            bins=(bin_of(row.blocked_us * 1_000), sign),
        )
        released = replace(reporter, release_id=row.release_id)
        at_ms = row.last_seen_ms
        self._fold.add(
            released,
            Report(sequence=0, started_at_ms=at_ms, span_ms=0, deltas=(delta,)),
            Sighting(at_ms, at_ms, row.release_id, row.release_id),
        )


def _id_of(reporter: Reporter, slice_ns: int) -> int:
    return ids.stall_id(reporter.agent_id, slice_ns)


def _new_row(stall_id: int, reporter: Reporter, sighting: StallSighting, now_ms: int) -> StallRow:
    return StallRow(
        id=stall_id,
        agent_id=reporter.agent_id,
        service_id=reporter.service_id,
        release_id=reporter.release_id,
        slice_ns=sighting.slice_ns,
        state="frozen",
        started_at_ms=min(sighting.started_at_ms, now_ms),
        last_seen_ms=now_ms,
        blocked_us=0,
        site_id=None,
        wire_site_id=None,
        reported=0,
        counted=0,
        gil_held=None,
        died_count=0,
        thread_name="",
        frames="[]",
    )


def _merged(reporter: Reporter, known: StallRow, sighting: StallSighting, now_ms: int) -> StallRow:
    """The row after a sighting. What the agent says itself goes before what its heartbeat shows."""
    ended = sighting.state == "ended"
    blocked_us = sighting.blocked_us if ended else max(known.blocked_us, sighting.blocked_us)
    over_ms = known.started_at_ms + blocked_us // 1_000
    seen = replace(
        known,
        state=sighting.state,
        last_seen_ms=now_ms if sighting.state == "frozen" else min(now_ms, over_ms),
        blocked_us=blocked_us,
        gil_held=known.gil_held if sighting.gil_held is None else int(sighting.gil_held),
        thread_name=clean(sighting.thread_name) or known.thread_name,
        frames=frames_json(sighting.frames) if sighting.frames else known.frames,
    )
    wire_site = sighting.site_id or (0 if known.reported else sighting.last_site_id)
    if not wire_site:
        return seen
    return replace(
        seen,
        site_id=ids.site_id(reporter.service_id, wire_site),
        wire_site_id=ids.to_signed(wire_site),
        reported=int(bool(sighting.site_id)),
        counted=int(sighting.counted),
    )


def reported_ends(report: Report) -> Sequence[StallSighting]:
    """The stalls that a report says have ended."""
    return [StallSighting.reported(stall) for stall in report.stalls]
