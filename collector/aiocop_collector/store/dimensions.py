"""Writing sites and hotspots: new definitions, placeholders for what was counted undefined, and when all were seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store import ids
from aiocop_collector.store.agents import clean
from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.fold import Fold, Sighting
from aiocop_collector.store.heal import move_events
from aiocop_collector.store.schema import hotspots, sites
from aiocop_collector.store.sites import (
    UNKNOWN,
    Defined,
    KnownSite,
    Moved,
    SiteMemory,
    defined_row,
    load_sites,
    seen,
    unknown_row,
)
from aiocop_collector.store.statements import REPLACE, SIGHTINGS, Statements, touch_values

_SITE_MERGE: Final = {**{column.name: REPLACE for column in sites.columns if not column.primary_key}, **SIGHTINGS}


@dataclass(slots=True)
class _Plan:
    """What has to be written, collected before anything is."""

    known: dict[int, KnownSite] = field(default_factory=dict)
    defined_rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    unknown_rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    hotspot_facts: dict[int, tuple[int, str, str]] = field(default_factory=dict)
    hotspot_sightings: dict[int, Sighting] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)

    def see_hotspot(self, hotspot_id: int, sighting: Sighting) -> None:
        known = self.hotspot_sightings.get(hotspot_id)
        if known is None:
            self.hotspot_sightings[hotspot_id] = sighting.copy()
        else:
            known.widen(sighting)


@dataclass(frozen=True, slots=True)
class WrittenSites:
    """The sites of one transaction as they are in the database after it."""

    hotspot_of: Mapping[int, int]
    """By site."""
    learned: Mapping[int, KnownSite]
    """What may be remembered after the commit. Unknown sites are not among it: another collector may define them."""
    unknown: int
    """How many were counted before they were defined."""
    defined: frozenset[int]
    """Those whose row is now what a definition says."""


async def write_sites(
    connection: AsyncConnection, statements: Statements, fold: Fold, defined: Mapping[int, Defined], memory: SiteMemory
) -> WrittenSites:
    """Insert or update the sites and hotspots that the fold counts or that were defined."""
    plan = await _plan(connection, fold, defined, memory)
    new_hotspots = [
        (hotspot_id, service_id, clean(path), clean(function), "open", "", *seen(plan.hotspot_sightings[hotspot_id]))
        for hotspot_id, (service_id, path, function) in sorted(plan.hotspot_facts.items())
    ]
    await execute_rows(connection, statements.upsert(hotspots, SIGHTINGS), new_hotspots)
    await _touch(connection, statements, hotspots, plan.hotspot_sightings, plan.hotspot_facts)
    await execute_rows(connection, statements.upsert(sites, _SITE_MERGE), sorted(plan.defined_rows.values()))
    await execute_rows(connection, statements.upsert(sites, SIGHTINGS), sorted(plan.unknown_rows.values()))
    await _touch(connection, statements, sites, fold.sightings, {**plan.defined_rows, **plan.unknown_rows})
    if plan.moved:
        await move_events(connection, statements, plan.moved)
    unknown = {ids.hotspot_id(service_id, UNKNOWN, "") for service_id in set(fold.service_of.values())}
    return WrittenSites(
        hotspot_of={site_id: site.hotspot_id for site_id, site in plan.known.items()},
        learned={site_id: site for site_id, site in plan.known.items() if site.hotspot_id not in unknown},
        unknown=len(plan.unknown_rows),
        defined=frozenset(plan.defined_rows),
    )


async def _plan(connection: AsyncConnection, fold: Fold, defined: Mapping[int, Defined], memory: SiteMemory) -> _Plan:
    plan = _Plan()
    wanted = fold.sightings.keys() | defined.keys()
    for site_id in wanted:
        remembered = memory.get(site_id)
        if remembered is not None:
            plan.known[site_id] = remembered
    stored = await load_sites(connection, wanted - plan.known.keys())
    plan.known.update({site_id: KnownSite(site.hotspot_id) for site_id, site in stored.items()})
    for site_id, item in defined.items():
        before = plan.known.get(site_id)
        if before is not None and before.definition == item.definition:
            continue
        hotspot_id = item.hotspot_id()
        sighting = fold.sightings.get(site_id, item.sighting)
        if before is not None and before.hotspot_id != hotspot_id:
            plan.moved.append(Moved(site_id, before.hotspot_id, hotspot_id))
            past = stored.get(site_id) or (await load_sites(connection, [site_id])).get(site_id)
            if past is not None:
                plan.see_hotspot(hotspot_id, past.sighting)
        plan.see_hotspot(hotspot_id, sighting)
        plan.hotspot_facts[hotspot_id] = (item.service_id, item.call_site.path, item.call_site.function)
        plan.defined_rows[site_id] = defined_row(site_id, item, sighting)
        plan.known[site_id] = KnownSite(hotspot_id, item.definition)
    for site_id, sighting in fold.sightings.items():
        if site_id not in plan.known:
            service_id = fold.service_of[site_id]
            hotspot_id = ids.hotspot_id(service_id, UNKNOWN, "")
            plan.hotspot_facts[hotspot_id] = (service_id, UNKNOWN, "")
            plan.unknown_rows[site_id] = unknown_row(site_id, service_id, sighting)
            plan.known[site_id] = KnownSite(hotspot_id)
        plan.see_hotspot(plan.known[site_id].hotspot_id, sighting)
    return plan


async def _touch(
    connection: AsyncConnection,
    statements: Statements,
    table: Table,
    sightings: Mapping[int, Sighting],
    written: Mapping[int, object],
) -> None:
    rows = [
        touch_values(row_id, *seen(sighting))
        for row_id, sighting in sorted(sightings.items(), key=lambda item: item[0])
        if row_id not in written
    ]
    await execute_rows(connection, statements.touch(table), rows)
