"""Messages for webhooks, written by the writer in the transaction that counts what they tell of.

One message per event and webhook: its id is a hash of both, so that a report sent twice, a restart, and several
collectors on one store still make one. Events:

new_hotspot         a hotspot first seen less than a day ago was in a slow slice for the first time
regressed           a resolved hotspot came back in a later release (reopening.py)
budget_exceeded     a service was frozen for more than its share of its processes' time; at most once an hour
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector import ids
from aiocop_collector.activity import Activity
from aiocop_collector.agents import chunks
from aiocop_collector.config_file import Budget, Event, Webhook
from aiocop_collector.groupings import place
from aiocop_collector.reopening import Reopened
from aiocop_collector.schema import RESOLUTIONS, agents, hotspots, outbox, services, sites
from aiocop_collector.statements import Statements
from aiocop_collector.windows import to_rfc3339

_NEW_FOR_MS: Final = 86_400_000
_BUDGET_INTERVAL_MS: Final = 10_000
_LEAST_OBSERVED_MS: Final = 60_000
_HOUR_MS: Final = 3_600_000
_MINUTE: Final = RESOLUTIONS[0]


@dataclass(frozen=True, slots=True)
class Announced:
    """What one transaction wrote; true once it is committed."""

    messages: int = 0
    settled: frozenset[int] = frozenset()
    """Hotspots that need not be looked at again: told of, or too old to be new."""


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
        self._settled |= announced.settled

    async def announce(
        self,
        connection: AsyncConnection,
        statements: Statements,
        activity: Activity,
        reopened: Sequence[Reopened],
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
        rows += await self._exceeded(connection, {cost.service_id for cost in activity.hotspots.values()}, now_ms)
        if rows:
            await connection.exec_driver_sql(statements.upsert(outbox, {}), sorted(rows))
        return Announced(len(rows), frozenset(slow))

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
        query = select(hotspots.c.id).where(hotspots.c.id.in_(part), hotspots.c.first_seen_ms >= after_ms)
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
