"""Messages for webhooks, written by the writer in the transaction that counts what they tell of.

One message per event and webhook: its id is a hash of both, so that a report sent twice, a restart, and several
collectors on one store still make one. Events:

new_hotspot         a hotspot first seen less than a day ago was in a slow slice for the first time
regressed           a resolved hotspot came back in a later release (reopening.py)
stall_in_progress   a loop has been frozen for longer than the webhook's min_stall_ms, and still is
budget_exceeded     a service was frozen for more than its share of its processes' time; at most once an hour
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.config_file import Budget, Event, Webhook
from aiocop_collector.notation import place, to_rfc3339
from aiocop_collector.store import ids
from aiocop_collector.store.activity import Activity
from aiocop_collector.store.agents import chunks
from aiocop_collector.store.decisions import load_decided
from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.reopening import Reopened
from aiocop_collector.store.ruling import owner_by_rule
from aiocop_collector.store.schema import RESOLUTIONS, agents, hotspots, outbox, services, sites, stalls
from aiocop_collector.store.stalls import StallRow
from aiocop_collector.store.statements import Statements

_NEW_FOR_MS: Final = 86_400_000
_BUDGET_INTERVAL_MS: Final = 10_000
_LEAST_OBSERVED_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_MAX_SETTLED: Final = 100_000
_MINUTE: Final = RESOLUTIONS[0]


@dataclass(frozen=True, slots=True)
class Announced:
    """What one transaction wrote; true once it is committed."""

    messages: int = 0
    settled: frozenset[int] = frozenset()
    """Hotspots and stalls that need not be looked at again: told of, or too old to be new."""


@dataclass(slots=True)
class Announcer:
    """Knows who wants to hear what. Used by the writer only."""

    webhooks: Sequence[Webhook]
    budgets: Sequence[Budget] = ()
    public_url: str | None = None
    _settled: set[int] = field(default_factory=set)
    _budgets_checked_ms: dict[int, int] = field(default_factory=dict)
    """By service; as many as there are budgets."""

    def learn(self, announced: Announced) -> None:
        """Call after the commit, and only then."""
        if len(self._settled) > _MAX_SETTLED:
            self._settled.clear()  # they are looked at again, and found told of
        self._settled |= announced.settled

    async def announce(
        self,
        connection: AsyncConnection,
        statements: Statements,
        activity: Activity,
        reopened: Sequence[Reopened],
        frozen: Sequence[StallRow],
        now_ms: int,
    ) -> Announced:
        """Write the messages of one transaction, after everything they tell of."""
        if not self.webhooks:
            return Announced()
        slow = {one for one, cost in activity.hotspots.items() if cost.slow_count} - self._settled
        new = await _first_seen_after(connection, slow, now_ms - _NEW_FOR_MS)
        returned = {one.hotspot_id: one for one in reopened if one.status == "regressed"}
        described = await self._describe(connection, new | returned.keys())
        rows: list[tuple[Any, ...]] = []
        for hotspot_id in sorted(new & described.keys()):
            rows += self._rows("new_hotspot", (hotspot_id,), {"hotspot": described[hotspot_id]}, now_ms)
        for hotspot_id in sorted(returned.keys() & described.keys()):
            one = returned[hotspot_id]
            data = {"hotspot": described[hotspot_id], "release": one.release or None}
            rows += self._rows("regressed", (hotspot_id, one.number), data, now_ms)
        long = [stall for stall in frozen if stall.id not in self._settled and self._tells_of(stall)]
        for stall, data in (await self._describe_stalls(connection, long)).items():
            rows += self._rows("stall_in_progress", (stall,), data, now_ms)
        rows += await self._exceeded(connection, {cost.service_id for cost in activity.hotspots.values()}, now_ms)
        await execute_rows(connection, statements.upsert(outbox, {}), sorted(rows))
        told = {stall.id for stall in long if stall.blocked_us >= self._longest_min_stall_ms * 1000}
        return Announced(len(rows), frozenset(slow | told))

    def _rows(
        self, event: Event, facts: tuple[int, ...], data: Mapping[str, Any], now_ms: int
    ) -> list[tuple[Any, ...]]:
        """A row of the outbox for each webhook that wants it."""
        about = data.get("hotspot") or data
        text = json.dumps({"type": event, "timestamp": to_rfc3339(now_ms), "data": data}, separators=(",", ":"))
        return [
            (ids.message_id(event, facts, webhook.name), webhook.name, event, now_ms, text, 0, now_ms, "")
            for webhook in self.webhooks
            if webhook.wants(event, about["service"])
            and (event != "stall_in_progress" or data["blocked_ms"] >= webhook.min_stall_ms)
        ]

    async def _describe(self, connection: AsyncConnection, hotspot_ids: Collection[int]) -> dict[int, dict[str, Any]]:
        """What a reader of a message is told of a hotspot; its first row is its most severe site's."""
        found: dict[int, dict[str, Any]] = {}
        source = hotspots.join(services, services.c.id == hotspots.c.service_id).join(
            sites, sites.c.hotspot_id == hotspots.c.id
        )
        columns = (
            hotspots.c.id,
            services.c.name,
            services.c.environment,
            hotspots.c.path,
            sites.c.line,
            hotspots.c.function,
            sites.c.operation,
            sites.c.advice,
        )
        for part in chunks(sorted(hotspot_ids)):
            query = select(*columns).select_from(source).where(hotspots.c.id.in_(part))
            for row in await connection.execute(query.order_by(sites.c.weight.desc(), sites.c.last_seen_ms.desc())):
                hotspot_id, service, environment, path, line, function, operation, advice = row
                shown = ids.to_hex(hotspot_id)
                about = found.setdefault(
                    hotspot_id,
                    {
                        "id": shown,
                        "service": service,
                        "environment": environment,
                        "call_site": place(path, line, function),
                        "operations": [],
                        "advice": advice,
                        "url": None if self.public_url is None else f"{self.public_url}/hotspots/{shown}",
                    },
                )
                if operation not in about["operations"]:
                    about["operations"].append(operation)
        await self._name_owners(connection, found)
        return found

    async def _name_owners(self, connection: AsyncConnection, described: dict[int, dict[str, Any]]) -> None:
        by_person = await load_decided(connection, described)
        by_rule = await owner_by_rule(connection, described)
        for hotspot_id, about in described.items():
            named = by_person.get(hotspot_id)
            about["owner"] = (named.owner if named is not None else "") or by_rule.get(hotspot_id, "")

    @property
    def _longest_min_stall_ms(self) -> int:
        return max(webhook.min_stall_ms for webhook in self.webhooks)

    def _tells_of(self, stall: StallRow) -> bool:
        return any(stall.blocked_us >= webhook.min_stall_ms * 1000 for webhook in self.webhooks)

    async def _describe_stalls(
        self, connection: AsyncConnection, frozen: Collection[StallRow]
    ) -> dict[int, dict[str, Any]]:
        """What a reader of a message is told of stalls, by id; where they are as far as it is known."""
        found: dict[int, dict[str, Any]] = {}
        source = (
            stalls.join(services, services.c.id == stalls.c.service_id)
            .outerjoin(agents, agents.c.id == stalls.c.agent_id)
            .outerjoin(sites, sites.c.id == stalls.c.site_id)
            .outerjoin(hotspots, hotspots.c.id == sites.c.hotspot_id)
        )
        query = select(
            stalls.c.id,
            stalls.c.agent_id,
            stalls.c.started_at_ms,
            stalls.c.blocked_us,
            stalls.c.reported,
            services.c.name,
            services.c.environment,
            agents.c.pid,
            agents.c.host,
            sites.c.hotspot_id,
            sites.c.line,
            sites.c.operation,
            hotspots.c.path,
            hotspots.c.function,
        ).select_from(source)
        for part in chunks(sorted(stall.id for stall in frozen)):
            for row in await connection.execute(query.where(stalls.c.id.in_(part)).order_by(stalls.c.id)):
                shown = None if row.hotspot_id is None else ids.to_hex(row.hotspot_id)
                found[row.id] = {
                    "id": ids.to_hex(row.id),
                    "service": row.name,
                    "environment": row.environment,
                    "agent": row.agent_id,
                    "pid": row.pid,
                    "host": row.host,
                    "started_at": to_rfc3339(row.started_at_ms),
                    "blocked_ms": round(row.blocked_us / 1000, 3),
                    "call_site": None if shown is None else place(row.path, row.line, row.function),
                    # The site entered last, where nobody of the process could speak: its operation may be over.
                    "operation": row.operation if row.reported else None,
                    "hotspot_id": shown,
                    "url": None if self.public_url is None or shown is None else f"{self.public_url}/hotspots/{shown}",
                }
        return found

    async def _exceeded(
        self, connection: AsyncConnection, service_ids: Collection[int], now_ms: int
    ) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for budget in self.budgets:
            service_id = ids.service_id(budget.service, budget.environment)
            checked_ms = self._budgets_checked_ms.get(service_id, 0)
            if service_id not in service_ids or now_ms < checked_ms + _BUDGET_INTERVAL_MS:
                continue
            # Not only after the commit: a check that is missed comes again with the next reports.
            self._budgets_checked_ms[service_id] = now_ms
            share = await _blocked_share(connection, service_id, budget.window_minutes, now_ms)
            if share is not None and share > budget.blocked_share:
                data = {
                    "service": budget.service,
                    "environment": budget.environment,
                    "blocked_share": round(share, 4),
                    "budget": budget.blocked_share,
                    "window_minutes": budget.window_minutes,
                }
                rows += self._rows("budget_exceeded", (service_id, now_ms // _HOUR_MS), data, now_ms)
        return rows


async def _first_seen_after(connection: AsyncConnection, hotspot_ids: Collection[int], after_ms: int) -> set[int]:
    found: set[int] = set()
    for part in chunks(sorted(hotspot_ids)):
        query = select(hotspots.c.id).where(
            hotspots.c.id.in_(part), hotspots.c.first_seen_ms >= after_ms, hotspots.c.status != "ignored"
        )
        found |= set((await connection.execute(query)).scalars())
    return found


async def _blocked_share(
    connection: AsyncConnection, service_id: int, window_minutes: int, now_ms: int
) -> float | None:
    """Blocked time over process time; None while too little was observed."""
    now_s = now_ms // 1000 // _MINUTE.seconds * _MINUTE.seconds
    since_s = now_s - (window_minutes - 1) * _MINUTE.seconds
    rollups = _MINUTE.rollups.c
    summed = select(func.sum(rollups.blocked_us)).where(
        rollups.bucket_s.in_(list(range(since_s, now_s + 1, _MINUTE.seconds))),
        rollups.site_id.in_(select(sites.c.id).where(sites.c.service_id == service_id)),
    )
    blocked_us = int((await connection.execute(summed)).scalar() or 0)
    seen = select(agents.c.started_at_ms, agents.c.first_seen_ms, agents.c.last_seen_ms).where(
        agents.c.service_id == service_id, agents.c.last_seen_ms >= since_s * 1000
    )
    observed_ms = 0
    for started_ms, first_seen_ms, last_seen_ms in await connection.execute(seen):
        began_ms = started_ms if 0 < started_ms <= first_seen_ms else first_seen_ms
        observed_ms += max(0, last_seen_ms - max(began_ms, since_s * 1000))
    return blocked_us / 1000 / observed_ms if observed_ms >= _LEAST_OBSERVED_MS else None
