"""Everything one commit does, in an order that keeps it exactly-once and free of deadlocks.

1. Lock the agents' rows by id; find out which reports are new. 2. Fold those. 3. Resolve sites, and what rules say of
them. 4. Write dimensions, roll-ups, histograms, presence, traces, events; every table's rows sorted by key. 5. Reopen
hotspots whose decision the activity contradicts. 6. Write the agents' rows back. The caller commits, and only then are
senders told and memories changed.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.arrivals import Arrival
from aiocop_collector.rules_file import Rules
from aiocop_collector.store import ids, schema
from aiocop_collector.store.activity import Activity, activity_of
from aiocop_collector.store.agents import AgentRecord, clean, lock_agents, write_agents
from aiocop_collector.store.announcing import Announced, Announcer
from aiocop_collector.store.captured import store_captured
from aiocop_collector.store.condense import hold_spans, strike_off
from aiocop_collector.store.dimensions import write_sites
from aiocop_collector.store.driver import Statement, execute_rows
from aiocop_collector.store.fold import MAX_EVENTS_PER_HOTSPOT, Fold, Reporter, SeenOn, Sighting, SiteIds
from aiocop_collector.store.loops import LoopFold
from aiocop_collector.store.reopening import Process, reopen
from aiocop_collector.store.ruling import apply_rules_to_defined
from aiocop_collector.store.sites import Defined, KnownSite, SiteMemory, frames_json
from aiocop_collector.store.stalls import StallBook, reported_ends
from aiocop_collector.store.statements import ADD, LARGEST, REPLACE, SMALLEST, Statements

MAX_TRACES_PER_SITE: Final = 20
"""The most recently seen full traces kept."""

_MAX_REMEMBERED_PRESENCE: Final = 100_000
_ROLLUP_MERGE: Final = {"count": ADD, "slow_count": ADD, "blocked_us": ADD, "max_us": LARGEST}
_KEY: Final = ("bucket_s", "site_id", "release_id")
_SEEN_MERGE: Final = {"first_seen_ms": SMALLEST, "last_seen_ms": LARGEST}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is true once the transaction is committed."""

    committed: Mapping[bytes, int]
    """By instance: every stream report up to here is in the store."""
    sites: Mapping[int, KnownSite]
    presence: Mapping[SeenOn, set[int]]
    """Who counted what on which day that was not known to be stored: sites by the agents' own numbers."""
    clocks_clamped: int
    sites_unknown: int
    activity: Activity
    announced: Announced = field(default_factory=Announced)


class Memory:
    """What earlier commits of this process have made true, so that it need not be asked or written again."""

    def __init__(self, statements: Statements) -> None:
        self.statements = statements
        self.site_ids = SiteIds()
        self.sites = SiteMemory()
        self.presence: dict[SeenOn, set[int]] = {}
        self._presences = 0

    def learn(self, outcome: Outcome) -> None:
        """Call after the commit, and only then."""
        self.sites.learn(outcome.sites)
        added = sum(map(len, outcome.presence.values()))
        if self._presences + added > _MAX_REMEMBERED_PRESENCE:
            self.presence.clear()
            self._presences = 0
        self._presences += added
        for seen_on, sites in outcome.presence.items():
            self.presence.setdefault(seen_on, set()).update(sites)


class Transaction:
    """One use: made for one open transaction of `connection`."""

    def __init__(
        self,
        connection: AsyncConnection,
        memory: Memory,
        *,
        now_ms: int,
        announcer: Announcer | None = None,
        rules: Rules | None = None,
        give_way: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`give_way` is called between its steps, some milliseconds apart."""
        self._announcer = announcer
        self._rules = rules
        self._give_way = give_way or _go_on
        self._connection = connection
        self._statements = memory.statements
        self._memory = memory
        self._now_ms = now_ms
        self._fold = Fold(memory.site_ids, now_ms=now_ms)
        self._loops = LoopFold()
        self._stalls = StallBook(connection, self._statements, self._fold, now_ms=now_ms)
        self._defined: dict[int, Defined] = {}
        self._traces: dict[int, tuple[Any, ...]] = {}
        self._services: dict[int, tuple[Any, ...]] = {}
        self._releases: dict[int, tuple[Any, ...]] = {}

    async def apply(self, arrivals: Sequence[Arrival]) -> Outcome:
        """Write all of it; nothing is committed yet."""
        groups: dict[str, list[Arrival]] = {}
        for arrival in arrivals:
            groups.setdefault(arrival.identity.instance.hex(), []).append(arrival)
        latest = {agent_id: group[-1] for agent_id, group in groups.items()}
        await hold_spans(self._connection)
        records = await lock_agents(self._connection, self._statements, latest, self._now_ms)
        for agent_id in sorted(groups):
            self._admit(records[agent_id], groups[agent_id])
            await self._give_way()
        await self._stalls.settle(self._defined)
        await self._write(schema.services, _SEEN_MERGE, self._services)
        await self._write(schema.releases, _SEEN_MERGE, self._releases)
        await self._give_way()
        sites = await write_sites(self._connection, self._statements, self._fold, self._defined, self._memory.sites)
        await apply_rules_to_defined(self._connection, self._rules, sites.defined, sites.hotspot_of, self._now_ms)
        await self._write_counts()
        presence = self._fold.presence(self._memory.presence)
        await self._execute(self._statements.upsert(schema.presence, {}), self._fold.presence_rows(presence))
        await self._write_traces()
        await self._write_events(sites.hotspot_of)
        await store_captured(self._connection, self._fold.events, self._memory.site_ids, self._now_ms)
        await self._stalls.write()
        await self._give_way()
        processes = {
            record.id: Process(record.release_id, record.identity.started_at_ms) for record in records.values()
        }
        reopened = await reopen(self._connection, self._fold, processes, sites.hotspot_of, self._now_ms)
        await write_agents(self._connection, self._statements, records, self._now_ms)
        activity = activity_of(self._fold, self._loops, records.values(), sites.hotspot_of)
        announced = Announced()
        if self._announcer is not None:
            announced = await self._announcer.announce(
                self._connection, self._statements, activity, reopened, self._stalls.frozen(), self._now_ms
            )
        return Outcome(
            committed={record.identity.instance: record.delivery.committed_sequence for record in records.values()},
            sites=sites.learned,
            presence=presence,
            clocks_clamped=self._fold.clocks_clamped,
            sites_unknown=sites.unknown,
            activity=activity,
            announced=announced,
        )

    def _admit(self, record: AgentRecord, arrivals: list[Arrival]) -> None:
        reporter = Reporter(record.id, record.service_id, record.release_id)
        arrivals.sort(key=lambda arrival: arrival.report.sequence if arrival.report else 0)
        for arrival in arrivals:
            sighting = self._fold.sighting(reporter, arrival.report)
            self._see(record, sighting)
            for site in arrival.sites:
                site_id = self._memory.site_ids.of(record.service_id, site.site_id)
                self._defined[site_id] = Defined(record.service_id, site, sighting)
            for trace in arrival.traces:
                site_id = self._memory.site_ids.of(record.service_id, trace.site_id)
                trace_id = ids.trace_id(site_id, trace.trace_id)
                self._traces[trace_id] = (trace_id, site_id, frames_json(trace.frames), sighting.last_seen_ms)
            self._stalls.note(reporter, arrival.stalls, arrival.running)
            if record.admit(arrival, self._now_ms) and arrival.report is not None:
                self._fold.add(reporter, arrival.report, sighting)
                self._loops.add(record.service_id, arrival.report.loops, sighting.first_seen_ms)
                self._stalls.note(reporter, reported_ends(arrival.report), None)

    def _see(self, record: AgentRecord, sighting: Sighting) -> None:
        identity = record.identity
        self._services[record.service_id] = _widened(
            self._services.get(record.service_id),
            (record.service_id, clean(identity.service), clean(identity.environment)),
            sighting,
        )
        self._releases[record.release_id] = _widened(
            self._releases.get(record.release_id),
            (record.release_id, record.service_id, clean(identity.release)),
            sighting,
        )

    async def _write_counts(self) -> None:
        for resolution, rows in self._fold.rows(schema.RESOLUTIONS):
            await self._execute(self._statements.upsert(resolution.rollups, _ROLLUP_MERGE), rows.rollups)
            # The order of these does not matter: who writes a histogram's row holds the roll-up's row of the same key.
            for (first, end), histograms in rows.histograms.items():
                bins = schema.BIN_COLUMNS[first:end]
                statement = self._statements.upsert(resolution.histograms, {}, columns=_KEY, bins=bins)
                await self._execute(statement, histograms)
            for statement, loops in self._loops.statements(self._statements, resolution):
                await self._execute(statement, loops)
        minutes_s = self._fold.minutes()
        if minutes_s:
            await strike_off(self._connection, minutes_s)

    async def _write_traces(self) -> None:
        merge = {"frames": REPLACE, "last_seen_ms": LARGEST}
        await self._write(schema.traces, merge, self._traces)
        sites = sorted({row[1] for row in self._traces.values()})
        trim = self._statements.keep_newest(schema.traces, "site_id", "last_seen_ms", MAX_TRACES_PER_SITE)
        await self._execute(trim, [(site_id, site_id) for site_id in sites])

    async def _write_events(self, hotspot_of: Mapping[int, int]) -> None:
        rows = self._fold.event_rows(hotspot_of)
        await self._execute(self._statements.upsert(schema.slow_events, {}), rows)
        trim = self._statements.keep_newest(schema.slow_events, "hotspot_id", "started_at_ms", MAX_EVENTS_PER_HOTSPOT)
        await self._execute(trim, [(hotspot_id, hotspot_id) for hotspot_id in sorted({row[1] for row in rows})])

    async def _write(self, table: Table, merge: Mapping[str, str], rows: Mapping[int, tuple[Any, ...]]) -> None:
        await self._execute(self._statements.upsert(table, merge), [rows[key] for key in sorted(rows)])

    async def _execute(self, statement: Statement, rows: Sequence[tuple[Any, ...]]) -> None:
        await self._give_way()
        await execute_rows(self._connection, statement, rows)


async def _go_on() -> None:
    """Give way to nobody."""


def _widened(known: tuple[Any, ...] | None, facts: tuple[Any, ...], sighting: Sighting) -> tuple[Any, ...]:
    """A row of services or releases with its first and last sighting."""
    if known is None:
        return (*facts, sighting.first_seen_ms, sighting.last_seen_ms)
    first_seen_ms, last_seen_ms = known[-2:]
    return (*facts, min(first_seen_ms, sighting.first_seen_ms), max(last_seen_ms, sighting.last_seen_ms))
