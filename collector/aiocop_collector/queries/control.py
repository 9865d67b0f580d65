"""`PATCH /services/{name}`, `PATCH /agents/{agent_id}`, and what is wanted of and holds in agents."""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.answers.control import (
    AgentControl,
    AgentSettingsAnswer,
    ControlledAgents,
    InForce,
    ServiceControl,
    ServiceSettingsAnswer,
    Unreachable,
    WantedOfAgent,
    WantedOfService,
)
from aiocop_collector.notation import to_rfc3339
from aiocop_collector.queries.captures import captures_at
from aiocop_collector.queries.changes import history_of
from aiocop_collector.queries.errors import BadParameterError, UnknownAgentError
from aiocop_collector.queries.rows import milliseconds
from aiocop_collector.queries.triage import find_hotspot
from aiocop_collector.store import ids
from aiocop_collector.store.agents import read_told
from aiocop_collector.store.changes import add_change
from aiocop_collector.store.control import (
    CANCELLED,
    CAPTURE_FOR_MS,
    WAITING,
    AllWanted,
    SettingsRow,
    Subject,
    Wanted,
    load_all_wanted,
    load_settings_row,
    next_revision,
    store_settings_row,
)
from aiocop_collector.store.schema import agents, captures, control_history, services
from aiocop_wire import Control, place_id
from aiocop_wire.limits import MAX_CAPTURE_REQUESTS

SILENT_FOR_MS: Final = 60_000
"""An agent that said nothing for so long is gone: idle ones report every ten seconds."""

_AGENT_ID: Final = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What to change of somebody's settings."""

    given: Mapping[str, Any]
    """Fields of Wanted to their new values; None takes one back. What is not in it stays."""
    captures: bool = False
    """Whether `capture` was given."""
    capture: str | None = None
    """The hotspot to ask a capture of; None takes back what is waited for."""


async def change_service(
    connection: AsyncConnection, name: str, environment: str | None, change: SettingsChange, who: str, now_ms: int
) -> None:
    """Within the caller's transaction. Raises UnknownHotspotError, BadParameterError."""
    await _change(connection, Subject("service", name, environment), change, who, now_ms)


async def change_agent(
    connection: AsyncConnection, agent_id: str, change: SettingsChange, who: str, now_ms: int
) -> None:
    """Within the caller's transaction. Raises UnknownAgentError, UnknownHotspotError, BadParameterError."""
    await _find_agent(connection, agent_id)
    await _change(connection, Subject("agent", agent_id), change, who, now_ms)


async def _change(connection: AsyncConnection, subject: Subject, change: SettingsChange, who: str, now_ms: int) -> None:
    revision = await next_revision(connection)  # also the lock under which the rest is read
    row = await load_settings_row(connection, subject) or SettingsRow(subject, 0, Wanted(), 0, "")
    wanted = _changed(row.wanted, change.given)
    before, after = asdict(row.wanted), asdict(wanted)
    changes = {name: (before[name], after[name]) for name in after if before[name] != after[name]}
    if change.captures and change.capture is None:
        cancelled = await _cancel(connection, subject)
        changes |= {"capture": (cancelled, None)} if cancelled else {}
    elif change.capture is not None and await _request(connection, subject, change.capture, who, now_ms):
        changes["capture"] = (None, change.capture)
    if changes:
        await store_settings_row(connection, SettingsRow(subject, revision, wanted, now_ms, who))
        await add_change(connection, control_history, subject.id, now_ms, who, changes)


def _changed(wanted: Wanted, given: Mapping[str, Any]) -> Wanted:
    """`active` and `active_share` say the same in two ways: the one that is set takes the other back."""
    both = ("active", "active_share")
    if all(given.get(name) is not None for name in both):
        raise BadParameterError("active_share", "it says which agents are active, so `active` cannot go with it")
    cleared = {name: None for name, other in zip(both, both[::-1], strict=True) if given.get(other) is not None}
    return replace(wanted, **{**cleared, **given})


async def _cancel(connection: AsyncConnection, subject: Subject) -> int:
    """How many captures are not waited for any more."""
    waiting = update(captures).where(captures.c.settings_id == subject.id, captures.c.state == WAITING)
    return (await connection.execute(waiting.values(state=CANCELLED))).rowcount


async def _request(connection: AsyncConnection, subject: Subject, hotspot_id: str, who: str, now_ms: int) -> bool:
    """Whether a capture is asked for that was not waited for already."""
    hotspot = await find_hotspot(connection, hotspot_id)
    if not await _belongs(connection, subject, hotspot):
        raise BadParameterError("capture", f"hotspot {hotspot_id} is not one of this {subject.scope}")
    waiting = select(captures.c.hotspot_id).where(
        captures.c.settings_id == subject.id,
        captures.c.state == WAITING,
        captures.c.requested_at_ms > now_ms - CAPTURE_FOR_MS,
    )
    waited_for = set((await connection.execute(waiting)).scalars())
    if hotspot.id in waited_for:
        return False
    if len(waited_for) >= MAX_CAPTURE_REQUESTS:
        raise BadParameterError(
            "capture", f"{MAX_CAPTURE_REQUESTS} captures are waited for already; null takes them back"
        )
    await connection.execute(
        insert(captures).values(
            id=secrets.randbits(63) | 1,
            settings_id=subject.id,
            hotspot_id=hotspot.id,
            service_id=hotspot.service_id,
            place_id=ids.to_signed(place_id(hotspot.path, hotspot.function)),
            requested_at_ms=now_ms,
            requested_by=who,
            state=WAITING,
        )
    )
    return True


async def _belongs(connection: AsyncConnection, subject: Subject, hotspot: Row[Any]) -> bool:
    if subject.scope == "agent":
        of_agent = select(agents.c.service_id).where(agents.c.id == subject.name)
        return bool((await connection.execute(of_agent)).scalar() == hotspot.service_id)
    query = select(services.c.name, services.c.environment).where(services.c.id == hotspot.service_id)
    found = (await connection.execute(query)).one()
    return found.name == subject.name and subject.environment in (None, found.environment)


async def _find_agent(connection: AsyncConnection, agent_id: str) -> Row[Any]:
    if not _AGENT_ID.fullmatch(agent_id):
        raise UnknownAgentError(agent_id)
    query = (
        select(agents, services.c.name.label("service"), services.c.environment)
        .select_from(agents.join(services, services.c.id == agents.c.service_id))
        .where(agents.c.id == agent_id)
    )
    found = (await connection.execute(query)).first()
    if found is None:
        raise UnknownAgentError(agent_id)
    return found


# --- answers ----------------------------------------------------------------------------------------------------------


async def service_settings(
    connection: AsyncConnection, name: str, environment: str | None, now_ms: int
) -> ServiceSettingsAnswer:
    """What `PATCH /services/{name}` answers."""
    subject = Subject("service", name, environment)
    row = await load_settings_row(connection, subject)
    of_it = select(services.c.id, services.c.name, services.c.environment).where(services.c.name == name)
    if environment is not None:
        of_it = of_it.where(services.c.environment == environment)
    known = {one.id: (one.name, one.environment) for one in await connection.execute(of_it)}
    counted = await _count_agents(connection, known, await load_all_wanted(connection, now_ms), now_ms)
    return ServiceSettingsAnswer(
        name=name,
        environment=environment,
        wanted=WantedOfService(**asdict(row.wanted if row else Wanted())),
        agents=_summed(counted.values()),
        captures=await captures_at(connection, captures.c.settings_id == subject.id, now_ms),
        history=await history_of(connection, control_history, subject.id),
        **_last_change([row] if row else []),
    )


async def agent_settings(connection: AsyncConnection, agent_id: str, now_ms: int) -> AgentSettingsAnswer:
    """What `PATCH /agents/{agent_id}` answers. Raises UnknownAgentError."""
    agent = await _find_agent(connection, agent_id)
    subject = Subject("agent", agent_id)
    row = await load_settings_row(connection, subject)
    return AgentSettingsAnswer(
        id=agent.id,
        service=agent.service,
        environment=agent.environment,
        wanted=_wanted_of_agent(asdict(row.wanted) if row else {}),
        control=agent_control(agent, await load_all_wanted(connection, now_ms), now_ms),
        captures=await captures_at(connection, captures.c.settings_id == subject.id, now_ms),
        history=await history_of(connection, control_history, subject.id),
        **_last_change([row] if row else []),
    )


def agent_control(agent: Row[Any], wanted: AllWanted, now_ms: int) -> AgentControl:
    """What is wanted of an agent, and what it says. `agent` is its row with its service's `service`, `environment`."""
    told = read_told(agent.control)
    control = wanted.of_agent(agent.id, agent.service, agent.environment)
    unreachable = _unreachable(agent, now_ms)
    in_force = told.in_force
    return AgentControl(
        reachable=unreachable is None,
        unreachable=unreachable,
        wanted=_wanted_of_control(control),
        revision=control.revision,
        in_force=None
        if in_force is None
        else InForce(
            revision=in_force.revision,
            active=in_force.active,
            threshold_ms=milliseconds(in_force.threshold_us),
            trace_depth=in_force.trace_depth,
            refused=in_force.refused,
            at=to_rfc3339(told.at_ms),
        ),
    )


async def service_controls(
    connection: AsyncConnection, known: Mapping[int, tuple[str, str]], now_ms: int
) -> dict[int, ServiceControl]:
    """Of each service: `known` has their names and environments by id."""
    wanted = await load_all_wanted(connection, now_ms)
    counted = await _count_agents(connection, known, wanted, now_ms)
    return {
        service_id: _service_control(wanted.of_service(name, environment), counted[service_id])
        for service_id, (name, environment) in known.items()
    }


def _service_control(rows: Sequence[SettingsRow], counted: ControlledAgents) -> ServiceControl:
    levels = [row.wanted for row in rows]
    merged: dict[str, Any] = asdict(Wanted())
    for level in reversed(levels):
        given = {name: value for name, value in asdict(level).items() if value is not None}
        if "active" in given or "active_share" in given:
            merged |= {"active": None, "active_share": None}
        merged |= given
    return ServiceControl(wanted=WantedOfService(**merged), agents=counted, **_last_change(rows))


def _last_change(rows: Sequence[SettingsRow]) -> dict[str, Any]:
    if not rows:
        return {"revision": 0, "changed_at": None, "changed_by": None}
    last = max(rows, key=lambda row: row.revision)
    return {"revision": last.revision, "changed_at": to_rfc3339(last.changed_at_ms), "changed_by": last.changed_by}


async def _count_agents(
    connection: AsyncConnection, known: Mapping[int, tuple[str, str]], wanted: AllWanted, now_ms: int
) -> dict[int, ControlledAgents]:
    counts = {service_id: [0, 0, 0] for service_id in known}
    alive = select(
        agents.c.id,
        agents.c.service_id,
        agents.c.transport,
        agents.c.control,
        agents.c.last_seen_ms,
        agents.c.farewell_sequence,
    ).where(agents.c.last_seen_ms >= now_ms - SILENT_FOR_MS, agents.c.farewell_sequence.is_(None))
    for agent in await connection.execute(alive):
        home = known.get(agent.service_id)
        if home is None:
            continue
        in_force = read_told(agent.control).in_force
        count = counts[agent.service_id]
        if in_force is not None:
            count[2] += in_force.active
        if _unreachable(agent, now_ms) is None:
            count[0] += 1
            latest = wanted.of_agent(agent.id, *home).revision
            count[1] += in_force is not None and in_force.revision >= latest
    return {
        service_id: ControlledAgents(reachable=reachable, in_force=in_force, active=active)
        for service_id, (reachable, in_force, active) in counts.items()
    }


def _summed(counted: Iterable[ControlledAgents]) -> ControlledAgents:
    every = list(counted)
    return ControlledAgents(
        reachable=sum(one.reachable for one in every),
        in_force=sum(one.in_force for one in every),
        active=sum(one.active for one in every),
    )


def _unreachable(agent: Any, now_ms: int) -> Unreachable | None:
    if agent.transport == "udp":
        return "udp"
    if agent.farewell_sequence is not None or agent.last_seen_ms < now_ms - SILENT_FOR_MS:
        return "gone"
    return None if read_told(agent.control).accepts else "not_allowed"


def _wanted_of_control(control: Control) -> WantedOfAgent:
    threshold_us = control.threshold_us
    return WantedOfAgent(
        active=control.active,
        threshold_ms=None if threshold_us is None else milliseconds(threshold_us),
        trace_depth=control.trace_depth,
    )


def _wanted_of_agent(wanted: Mapping[str, Any]) -> WantedOfAgent:
    return WantedOfAgent(**{name: wanted.get(name) for name in WantedOfAgent.model_fields})
