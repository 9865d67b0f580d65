"""The rows of `agents` inside a transaction: locked first, in the order of their ids, and written back last.

The lock is what makes a report count once: whoever holds an agent's row is the only one, among all collectors on one
store, that can find out that a sequence is new.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.arrivals import Arrival, Transport
from aiocop_collector.store import ids
from aiocop_collector.store.delivery import Delivery
from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.loops import RecentLoop, add_recent, read_recent, recent_text
from aiocop_collector.store.schema import agents
from aiocop_collector.store.statements import Statements
from aiocop_wire import Controlled, Health, Identity, Overhead

IDS_PER_QUERY: Final = 500
"""Values in one IN (…): below every limit on a statement's parameters."""

_T = TypeVar("_T")


class AgentRecord:
    """One agent's row, as read under its lock and changed by what is applied."""

    def __init__(self, identity: Identity, transport: Transport, row: Mapping[str, Any]) -> None:
        self.id = identity.instance.hex()
        self.identity = identity
        self.transport = transport
        self.service_id = ids.service_id(identity.service, identity.environment)
        self.release_id = ids.release_id(self.service_id, identity.release)
        self.delivery = Delivery(
            committed_sequence=row["committed_sequence"],
            received_ranges=json.loads(row["received_ranges"]),
            farewell_sequence=row["farewell_sequence"],
            received=row["reports_received"],
            duplicated=row["reports_duplicated"],
        )
        self._first_seen_ms: int = row["first_seen_ms"]
        self._dropped: Mapping[str, int] = json.loads(row["dropped"])
        self._health = Health(row["recorded"], row["slices"], row["agent_cpu_us"], read_overhead(row["overhead"]))
        self._told = read_told(row["control"])
        self._loops: str | None = row["loops"]
        self._recent: list[RecentLoop] | None = None  # what `_loops` says, once a report adds to it
        self._dropped_before = self._dropped
        self._duplicated_before: int = row["reports_duplicated"]

    def newly_dropped(self) -> dict[str, int]:
        """By reason, what was added since the row was read."""
        before = self._dropped_before
        added = {reason: total - before.get(reason, 0) for reason, total in self._dropped.items()}
        return {reason: amount for reason, amount in added.items() if amount > 0}

    @property
    def newly_duplicated(self) -> int:
        """Reports found to be in the store already since the row was read."""
        return self.delivery.duplicated - self._duplicated_before

    def admit(self, arrival: Arrival, now_ms: int) -> bool:
        """Whether the arrival's report is new. Its totals are taken over when it is the latest."""
        if arrival.allows_control is not None:
            self._told = ControlTold(arrival.allows_control, self._told.in_force, self._told.at_ms)
        if arrival.controlled is not None:
            self._told = ControlTold(self._told.accepts, arrival.controlled, now_ms)
        if arrival.farewell is not None:
            self.delivery.bid_farewell(arrival.farewell.last_sequence)
        report = arrival.report
        if report is None:
            return False
        latest = report.sequence > self.delivery.highest
        ordered = arrival.transport == "unix"
        admit = self.delivery.admit_ordered if ordered else self.delivery.admit_unordered
        if not admit(report.sequence):
            return False
        if report.loops:
            ended_at_ms = report.started_at_ms + report.span_ms
            if self._recent is None:
                self._recent = read_recent(self._loops)
            add_recent(self._recent, report.loops, report.started_at_ms, ended_at_ms)
        if latest:
            self._dropped = dict(report.dropped)
            self._health = report.health
        return True

    def values(self, now_ms: int) -> tuple[Any, ...]:
        """In the order of the table's columns."""
        identity, delivery = self.identity, self.delivery
        return (
            self.id,
            self.service_id,
            self.release_id,
            identity.pid,
            clean(identity.host),
            clean(identity.python),
            clean(identity.loop),
            clean(identity.agent_version),
            self.transport,
            identity.started_at_ms,
            self._first_seen_ms,
            now_ms,
            delivery.committed_sequence,
            json.dumps(delivery.ranges.pairs(), separators=(",", ":")),
            delivery.farewell_sequence,
            delivery.received,
            delivery.lost,
            delivery.duplicated,
            json.dumps(dict(self._dropped), separators=(",", ":")),
            self._health.recorded,
            self._health.slices,
            self._health.agent_cpu_us,
            _overhead_text(self._health.overhead),
            _told_text(self._told),
            self._loops if self._recent is None else recent_text(self._recent),
        )


def read_overhead(text: str | None) -> Overhead | None:
    """What `agents.overhead` holds; None for an agent that never told."""
    return Overhead(*json.loads(text)[: len(Overhead._fields)]) if text else None


FULL_DETAIL: Final = "[0,"
"""How it begins for an agent that has given up no detail."""


def _overhead_text(overhead: Overhead | None) -> str | None:
    return None if overhead is None else json.dumps(overhead, separators=(",", ":"))


class ControlTold(NamedTuple):
    """What an agent said about remote control."""

    accepts: bool = False
    in_force: Controlled | None = None
    at_ms: int = 0
    """When it said what is in force."""


def read_told(text: str | None) -> ControlTold:
    """What `agents.control` holds."""
    if not text:
        return ControlTold()
    accepts, in_force, at_ms = json.loads(text)[:3]
    return ControlTold(accepts, None if in_force is None else Controlled(*in_force[: len(Controlled._fields)]), at_ms)


def _told_text(told: ControlTold) -> str | None:
    return None if told == ControlTold() else json.dumps(told, separators=(",", ":"))


def clean(text: str) -> str:
    """PostgreSQL cannot store a zero character; nobody writes one on purpose."""
    return text.replace("\x00", "\ufffd")


def chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Pieces that fit one IN (…)."""
    for start in range(0, len(items), IDS_PER_QUERY):
        yield items[start : start + IDS_PER_QUERY]


async def lock_agents(
    connection: AsyncConnection, statements: Statements, latest: Mapping[str, Arrival], now_ms: int
) -> dict[str, AgentRecord]:
    """Lock the rows of these agents (by id, with their latest arrival), making those that are missing."""
    wanted = sorted(latest)
    present: set[str] = set()
    for part in chunks(wanted):
        present.update((await connection.execute(select(agents.c.id).where(agents.c.id.in_(part)))).scalars())
    missing = [_new_row(latest[agent_id], now_ms) for agent_id in wanted if agent_id not in present]
    await execute_rows(connection, statements.upsert(agents, {}), missing)
    records: dict[str, AgentRecord] = {}
    for part in chunks(wanted):
        locked = select(agents).where(agents.c.id.in_(part)).order_by(agents.c.id).with_for_update()
        for row in (await connection.execute(locked)).mappings():
            arrival = latest[row["id"]]
            records[row["id"]] = AgentRecord(arrival.identity, arrival.transport, dict(row))
    return records


async def write_agents(
    connection: AsyncConnection, statements: Statements, records: Mapping[str, AgentRecord], now_ms: int
) -> None:
    """Write the locked rows back."""
    columns = [column.name for column in agents.columns][1:]
    rows = [(*values[1:], values[0]) for values in (records[key].values(now_ms) for key in sorted(records))]
    await execute_rows(connection, statements.update(agents, columns), rows)


def _new_row(arrival: Arrival, now_ms: int) -> tuple[Any, ...]:
    nothing_yet = {
        "committed_sequence": 0,
        "received_ranges": "[]",
        "farewell_sequence": None,
        "reports_received": 0,
        "reports_duplicated": 0,
        "first_seen_ms": now_ms,
        "dropped": "{}",
        "recorded": 0,
        "slices": 0,
        "agent_cpu_us": 0,
        "overhead": None,
        "control": None,
        "loops": None,
    }
    return AgentRecord(arrival.identity, arrival.transport, nothing_yet).values(now_ms)
