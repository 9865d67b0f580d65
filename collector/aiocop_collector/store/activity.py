"""What one commit added to the store: for metrics, which count it, and for messages, which tell of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiocop_collector.store.agents import AgentRecord
from aiocop_collector.store.fold import Fold
from aiocop_collector.store.loops import LoopFold, LoopTotals


@dataclass(slots=True)
class Cost:
    """What a commit added to one hotspot."""

    service_id: int
    count: int = 0
    slow_count: int = 0
    blocked_us: int = 0


@dataclass(frozen=True, slots=True)
class Activity:
    """Increments, never totals. Services by id; nothing in it changes."""

    services: Mapping[int, tuple[str, str]]
    """Name and environment."""
    hotspots: Mapping[int, Cost]
    dropped: Mapping[tuple[int, str], int]
    """By service and reason: what agents said they had to drop since they said so last."""
    duplicated: Mapping[int, int]
    """By service: reports that were in the store already."""
    loops: Mapping[int, LoopTotals]
    """By service: how its loops fared."""


def activity_of(fold: Fold, loops: LoopFold, records: Iterable[AgentRecord], hotspot_of: Mapping[int, int]) -> Activity:
    """`records` are the agents' rows with everything applied; `hotspot_of` is by site."""
    hotspots: dict[int, Cost] = {}
    for site_id, (count, slow_count, blocked_us) in fold.costs().items():
        hotspot_id = hotspot_of[site_id]
        cost = hotspots.get(hotspot_id)
        if cost is None:
            cost = hotspots[hotspot_id] = Cost(fold.service_of[site_id])
        cost.count += count
        cost.slow_count += slow_count
        cost.blocked_us += blocked_us
    services: dict[int, tuple[str, str]] = {}
    dropped: dict[tuple[int, str], int] = {}
    duplicated: dict[int, int] = {}
    for record in records:
        services[record.service_id] = (record.identity.service, record.identity.environment)
        for reason, amount in record.newly_dropped().items():
            key = (record.service_id, reason)
            dropped[key] = dropped.get(key, 0) + amount
        if record.newly_duplicated:
            duplicated[record.service_id] = duplicated.get(record.service_id, 0) + record.newly_duplicated
    return Activity(services, hotspots, dropped, duplicated, loops.by_service())
