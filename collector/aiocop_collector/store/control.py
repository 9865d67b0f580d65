"""What people want of agents (`PATCH /services/{name}`, `PATCH /agents/{id}`), as rows, and what of it holds for which.

Three levels, the narrower wins field by field: an agent, a service in one environment, a service in all of them.
Settings are kept for services nobody has seen yet. Each change takes the next revision of the store, under the lock of
the one row of `control_revision`, so that who sees a revision sees everything up to it; collectors poll that row.

Locks are taken in this order, by people's changes and by the writer alike: agents, `control_revision`, the rest.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeVar

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import ids
from aiocop_collector.store.schema import captures, control_revision, control_settings
from aiocop_wire import CaptureRequest, Control, stable_id
from aiocop_wire.limits import MAX_CAPTURE_REQUESTS

CAPTURE_FOR_MS: Final = 3_600_000
"""How long a capture is waited for; agents forget it then too (docs/wire.md)."""

WAITING: Final = "waiting"
CAPTURED: Final = "captured"
CANCELLED: Final = "cancelled"

_NEXT_REVISION: Final = text(
    "INSERT INTO control_revision (id, revision) VALUES (1, 1) "
    "ON CONFLICT (id) DO UPDATE SET revision = control_revision.revision + 1"
)

Scope = Literal["service", "agent"]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose settings: a service's, in one environment or (None) in all, or one agent's."""

    scope: Scope
    name: str
    """Of the service; of an agent its id."""
    environment: str | None = None

    @property
    def id(self) -> int:
        return ids.settings_id(self.scope, self.name, self.environment)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings of one subject. None: nothing is wanted, the next wider level decides, at last the agent itself."""

    active: bool | None = None
    """False pauses; at most one of this and the next is set."""
    active_share: float | None = None
    """Services only: which part of the agents is active, chosen by their ids, so that a larger part contains a smaller
    one."""
    threshold_ms: float | None = None
    trace_depth: int | None = None

    def is_active(self, agent_id: str) -> bool | None:
        """Whether an agent is to be active, as far as this level says."""
        if self.active_share is not None:
            return stable_id("share", agent_id) < self.active_share * (1 << 64)
        return self.active


@dataclass(frozen=True, slots=True)
class SettingsRow:
    """Settings as they are stored."""

    subject: Subject
    revision: int
    wanted: Wanted
    changed_at_ms: int
    changed_by: str


@dataclass(frozen=True, slots=True)
class AllWanted:
    """All that is wanted of all agents, as of one revision."""

    revision: int = 0
    settings: Mapping[int, SettingsRow] = field(default_factory=dict)
    requests: Mapping[int, tuple[CaptureRequest, ...]] = field(default_factory=dict)
    """Captures that are waited for, by settings."""

    def of_service(self, service: str, environment: str) -> list[SettingsRow]:
        """The levels that hold for a service in an environment, the narrower first."""
        return self._rows(Subject("service", service, environment), Subject("service", service))

    def of_agent(self, agent_id: str, service: str, environment: str) -> Control:
        """What is wanted of one agent."""
        rows = [*self._rows(Subject("agent", agent_id)), *self.of_service(service, environment)]
        wanted = [row.wanted for row in rows]
        threshold_ms = first(level.threshold_ms for level in wanted)
        requests = [request for row in rows for request in self.requests.get(row.subject.id, ())]
        return Control(
            revision=max((row.revision for row in rows), default=0),
            active=first(level.is_active(agent_id) for level in wanted),
            threshold_us=None if threshold_ms is None else round(threshold_ms * 1000),
            trace_depth=first(level.trace_depth for level in wanted),
            captures=tuple(requests[-MAX_CAPTURE_REQUESTS:]),
        )

    def _rows(self, *subjects: Subject) -> list[SettingsRow]:
        found = [self.settings.get(subject.id) for subject in subjects]
        return [row for row in found if row is not None]


def first(values: Iterable[_T | None]) -> _T | None:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)


async def read_revision(connection: AsyncConnection) -> int:
    """The store's revision: how many changes there were."""
    return (await connection.execute(select(control_revision.c.revision))).scalar() or 0


async def next_revision(connection: AsyncConnection) -> int:
    """Take the next revision, and hold its lock until the transaction ends."""
    await connection.execute(_NEXT_REVISION)
    return await read_revision(connection)


async def load_all_wanted(connection: AsyncConnection, now_ms: int) -> AllWanted:
    """Everything. The revision is read first: what is newer than it is found at the next one."""
    revision = await read_revision(connection)
    settings = {row.id: _read_row(row) for row in await connection.execute(select(control_settings))}
    waiting = (
        select(captures.c.settings_id, captures.c.id, captures.c.place_id)
        .where(captures.c.state == WAITING, captures.c.requested_at_ms > now_ms - CAPTURE_FOR_MS)
        .order_by(captures.c.requested_at_ms, captures.c.id)
    )
    requests: dict[int, tuple[CaptureRequest, ...]] = {}
    for settings_id, request_id, place_id in await connection.execute(waiting):
        request = CaptureRequest(ids.to_unsigned(request_id), ids.to_unsigned(place_id))
        requests[settings_id] = (*requests.get(settings_id, ()), request)
    return AllWanted(revision, settings, requests)


async def load_settings_row(connection: AsyncConnection, subject: Subject) -> SettingsRow | None:
    """The settings of one subject; None where nothing was ever wanted."""
    found = (await connection.execute(select(control_settings).where(control_settings.c.id == subject.id))).first()
    return None if found is None else _read_row(found)


async def store_settings_row(connection: AsyncConnection, row: SettingsRow) -> None:
    """Replace the settings of one subject. The caller holds the lock of the revision."""
    await connection.execute(delete(control_settings).where(control_settings.c.id == row.subject.id))
    wanted = {name: value for name, value in asdict(row.wanted).items() if value is not None}
    await connection.execute(
        insert(control_settings).values(
            id=row.subject.id,
            scope=row.subject.scope,
            name=row.subject.name,
            environment=row.subject.environment,
            revision=row.revision,
            wanted=json.dumps(wanted, separators=(",", ":")),
            changed_at_ms=row.changed_at_ms,
            changed_by=row.changed_by,
        )
    )


def _read_row(row: Any) -> SettingsRow:
    known = Wanted.__dataclass_fields__
    wanted = {name: value for name, value in json.loads(row.wanted).items() if name in known}
    return SettingsRow(
        Subject(row.scope, row.name, row.environment),
        row.revision,
        Wanted(**wanted),
        row.changed_at_ms,
        row.changed_by,
    )
