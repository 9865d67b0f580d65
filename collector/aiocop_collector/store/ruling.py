"""What a rules file says, applied to what is stored: owners, ignored hotspots, severities.

Rules leave their traces beside the facts and not in their place, so that a rule that is taken back leaves nothing:

rulings     by hotspot: the owner by rule, and whether it is ignored because of a rule
reweighted  by site: its weight as its agent defined it, while a rule's stands in `sites.weight`

What a person decided stands: a status that somebody set by hand is never changed here. Applying twice changes nothing,
so several collectors may do it at once; those that share a store should be given the same file.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.rules_file import CallSite, Rules
from aiocop_collector.store.agents import chunks
from aiocop_collector.store.decisions import COLLECTOR, Decided, load_decided, remember, store_decided
from aiocop_collector.store.schema import history, hotspots, reweighted, rulings, services, sites

RULES: Final = "rules"
"""Who the history names when a rule decided."""

_BATCH: Final = 200
_IGNORED: Final = "ignored"
_OPEN: Final = ("open", "regressed")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What rules say about one hotspot."""

    owner: str = ""
    ignored: bool = False


async def apply_rules(connection: AsyncConnection, rules: Rules, hotspot_ids: Collection[int], now_ms: int) -> None:
    """Make what is stored about these hotspots what the rules say. Within the caller's transaction."""
    for part in chunks(sorted(hotspot_ids)):
        locked = select(hotspots).where(hotspots.c.id.in_(part)).order_by(hotspots.c.id).with_for_update()
        rows = (await connection.execute(locked)).all()
        await _apply_to_hotspots(connection, rules, rows, now_ms)


async def apply_rules_to_defined(
    connection: AsyncConnection,
    rules: Rules | None,
    site_ids: Collection[int],
    hotspot_of: Mapping[int, int],
    now_ms: int,
) -> None:
    """The same for sites whose rows were just written as their agents defined them."""
    for part in chunks(sorted(site_ids)):
        await connection.execute(delete(reweighted).where(reweighted.c.site_id.in_(part)))
    if rules is not None:
        await apply_rules(connection, rules, {hotspot_of[site_id] for site_id in site_ids}, now_ms)


async def next_hotspots(connection: AsyncConnection, after: int | None) -> list[int]:
    """Ids of some hotspots, in order: those that follow `after`, or the first; empty past the last."""
    query = select(hotspots.c.id).order_by(hotspots.c.id).limit(_BATCH)
    if after is not None:
        query = query.where(hotspots.c.id > after)
    return list((await connection.execute(query)).scalars())


async def owner_by_rule(connection: AsyncConnection, hotspot_ids: Collection[int]) -> dict[int, str]:
    """Those of the hotspots whose owner a rule names."""
    found: dict[int, str] = {}
    for part in chunks(sorted(hotspot_ids)):
        query = select(rulings.c.hotspot_id, rulings.c.owner).where(
            rulings.c.hotspot_id.in_(part), rulings.c.owner != ""
        )
        found.update({row.hotspot_id: row.owner for row in await connection.execute(query)})
    return found


async def _apply_to_hotspots(connection: AsyncConnection, rules: Rules, rows: Sequence[Row[Any]], now_ms: int) -> None:
    ids = [row.id for row in rows]
    names = {
        row.id: row
        for row in await connection.execute(select(services).where(services.c.id.in_({row.service_id for row in rows})))
    }
    before = {
        row.hotspot_id: Ruling(row.owner, bool(row.ignored))
        for row in await connection.execute(select(rulings).where(rulings.c.hotspot_id.in_(ids)))
    }
    places = {
        row.id: CallSite(row.path, row.function, names[row.service_id].name, names[row.service_id].environment)
        for row in rows
    }
    by_hand: set[int] | None = None
    for row in rows:
        old = before.get(row.id, Ruling())
        new = Ruling(rules.owner_of(places[row.id]), rules.ignores(places[row.id]))
        status = row.status
        if new.ignored and status in _OPEN:
            by_hand = await _decided_by_people(connection, ids) if by_hand is None else by_hand
            status = status if row.id in by_hand else _IGNORED
        elif (
            old.ignored and not new.ignored and status == _IGNORED and not await _ignored_by_people(connection, row.id)
        ):
            status = "open"
        if status != row.status:
            await _set_status(connection, row, status, now_ms)
        if new != old:
            await _store_ruling(connection, row.id, new)
    await _apply_to_sites(connection, rules, places)


async def _set_status(connection: AsyncConnection, row: Row[Any], status: str, now_ms: int) -> None:
    await connection.execute(update(hotspots).where(hotspots.c.id == row.id).values(status=status))
    decided = (await load_decided(connection, [row.id])).get(row.id, Decided())
    await store_decided(connection, row.id, decided.without_verdict())
    await remember(connection, row.id, now_ms, RULES, {"status": (row.status, status)})


async def _store_ruling(connection: AsyncConnection, hotspot_id: int, ruling: Ruling) -> None:
    await connection.execute(delete(rulings).where(rulings.c.hotspot_id == hotspot_id))
    if ruling != Ruling():
        await connection.execute(
            insert(rulings).values(hotspot_id=hotspot_id, owner=ruling.owner, ignored=int(ruling.ignored))
        )


async def _decided_by_people(connection: AsyncConnection, hotspot_ids: Collection[int]) -> set[int]:
    """Those whose status somebody once set by hand."""
    query = select(history.c.hotspot_id, history.c.changes).where(
        history.c.hotspot_id.in_(hotspot_ids), history.c.who.not_in((RULES, COLLECTOR))
    )
    return {row.hotspot_id for row in await connection.execute(query) if "status" in json.loads(row.changes)}


async def _ignored_by_people(connection: AsyncConnection, hotspot_id: int) -> bool:
    """Whether somebody said so too: then it stays ignored although no rule says so any longer."""
    decided = (await load_decided(connection, [hotspot_id])).get(hotspot_id, Decided())
    return decided.ignored_at_ms is not None


async def _apply_to_sites(connection: AsyncConnection, rules: Rules, places: Mapping[int, CallSite]) -> None:
    stored = (
        select(sites.c.id, sites.c.hotspot_id, sites.c.operation, sites.c.weight, reweighted.c.weight.label("defined"))
        .select_from(sites.outerjoin(reweighted, reweighted.c.site_id == sites.c.id))
        .where(sites.c.hotspot_id.in_(places))
        .order_by(sites.c.id)
    )
    for row in (await connection.execute(stored)).all():
        wanted = rules.severity_of(places[row.hotspot_id], row.operation)
        defined = row.weight if row.defined is None else row.defined
        weight = defined if wanted is None else wanted
        if weight != row.weight:
            await connection.execute(update(sites).where(sites.c.id == row.id).values(weight=weight))
        if wanted is None and row.defined is not None:
            await connection.execute(delete(reweighted).where(reweighted.c.site_id == row.id))
        elif wanted is not None and row.defined is None:
            await connection.execute(insert(reweighted).values(site_id=row.id, weight=defined))
