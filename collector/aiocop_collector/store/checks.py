"""Whether a store is sound, for `aiocop-collector db check`: its file, its references, and that its sums agree.

Everything is looked at in one transaction of the caller's, so it may run while a collector writes.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Select, Table, and_, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.notation import to_rfc3339
from aiocop_collector.store import schema
from aiocop_collector.store.buckets import read_totals
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.ids import to_hex
from aiocop_collector.store.migrations import revisions
from aiocop_collector.store.retention import KEEP_HOURS, KEEP_MINUTES
from aiocop_collector.store.spans import SPANS, Buckets
from aiocop_collector.store.totals import Totals

_MOST_NAMED: Final = 10
_MINUTE, _HOUR, _DAY = schema.RESOLUTIONS
_SUMMED: Final = ("count", "slow_count", "blocked_us")

_REFERENCES: Final[tuple[tuple["Column[int]", "Column[int]"], ...]] = (
    (schema.releases.c.service_id, schema.services.c.id),
    (schema.agents.c.service_id, schema.services.c.id),
    (schema.hotspots.c.service_id, schema.services.c.id),
    (schema.sites.c.hotspot_id, schema.hotspots.c.id),
    (schema.sites.c.service_id, schema.services.c.id),
    (_DAY.rollups.c.site_id, schema.sites.c.id),
    (_DAY.rollups.c.release_id, schema.releases.c.id),
    (schema.decisions.c.hotspot_id, schema.hotspots.c.id),
)
"""Columns that name a row elsewhere, which must be there. Of the roll-ups the days stand for all."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question, and what is wrong; nothing where `problems` is empty."""

    name: str
    problems: tuple[str, ...]


async def check_store(connection: AsyncConnection, now_s: int, *, quick: bool = False) -> AsyncGenerator[Check, None]:
    """One after the other: a large store takes minutes. `quick` leaves out the indexes of a SQLite file."""
    if connection.dialect.name == "sqlite":
        yield Check("file", await _file(connection, quick=quick))
    revision = (await connection.exec_driver_sql("SELECT version_num FROM alembic_version")).scalar()
    newest = revisions()[-1]
    changed = () if revision == newest else (f"the schema is of revision {revision}, this version makes {newest}",)
    yield Check("schema", changed)
    if changed:
        return  # the other questions are asked of tables that may not be there
    for column, target in _REFERENCES:
        yield Check(f"{column} names a row of {target.table.name}", await _dangling(connection, column, target))
    horizons = await load_horizons(connection)
    for fine, coarse, keep in ((_MINUTE, _HOUR, KEEP_MINUTES), (_HOUR, _DAY, KEEP_HOURS)):
        first_s = max(horizons.get(fine.seconds, 0), now_s - int(keep.total_seconds()))
        first_s = -(-first_s // coarse.seconds) * coarse.seconds
        parts = _side(fine.rollups, coarse.seconds, fine.rollups.c.bucket_s >= first_s)
        whole = _side(coarse.rollups, coarse.seconds, coarse.rollups.c.bucket_s >= first_s, sign=-1)
        yield Check(f"{fine.name}s add up to {coarse.name}s", await _differences(connection, parts, whole))
    for span_s, base in SPANS.items():
        first_s = horizons.get(base.seconds, 0)
        yield Check(
            f"spans of {span_s} s are sums of their {base.name}s", await _spans(connection, span_s, base, first_s)
        )


async def _file(connection: AsyncConnection, *, quick: bool) -> tuple[str, ...]:
    pragma = "quick_check" if quick else "integrity_check"
    found = (await connection.exec_driver_sql(f"PRAGMA {pragma}({_MOST_NAMED})")).scalars().all()
    return tuple(text for text in found if text != "ok")


async def _dangling(connection: AsyncConnection, column: "Column[int]", target: "Column[int]") -> tuple[str, ...]:
    known = select(target).where(target == column)
    missing = select(column).where(~known.exists()).distinct().limit(_MOST_NAMED)
    return tuple(f"{value} is nowhere" for value in (await connection.execute(missing)).scalars())


async def _spans(connection: AsyncConnection, span_s: int, base: schema.Resolution, first_s: int) -> tuple[str, ...]:
    listed, totals = schema.summed, schema.summed_totals
    both = listed.join(totals, and_(totals.c.span_s == listed.c.span_s, totals.c.bucket_s == listed.c.bucket_s))
    found = await connection.execute(
        select(totals.c.bucket_s, totals.c.totals)
        .select_from(both)
        .where(listed.c.span_s == span_s, listed.c.ready == 1, listed.c.bucket_s >= first_s)
        .order_by(listed.c.bucket_s)
    )
    problems = []
    for start_s, packed in found:
        stored = Totals.from_bytes(packed)
        summed = await read_totals(connection, [Buckets(base, start_s, start_s + span_s)])
        if (stored.sums, stored.max_us) != (summed.sums, summed.max_us):
            problems.append(f"that from {to_rfc3339(start_s * 1000)} is another sum")
    return tuple(problems[:_MOST_NAMED])


def _start(table: Table, seconds: int) -> "ColumnElement[int]":
    return table.c.bucket_s - table.c.bucket_s % seconds


def _side(table: Table, seconds: int, where: "ColumnElement[bool]", *, sign: int = 1) -> "Select[Any]":
    """Rows of one side of a comparison: what adds up to nothing with the other side, and each side's maximum."""
    longest = (table.c.max_us, literal(0)) if sign > 0 else (literal(0), table.c.max_us)
    return select(
        _start(table, seconds).label("start_s"),
        table.c.site_id,
        table.c.release_id,
        *((table.c[name] * sign).label(name) for name in _SUMMED),
        longest[0].label("parts_max_us"),
        longest[1].label("whole_max_us"),
    ).where(where)


async def _differences(connection: AsyncConnection, parts: "Select[Any]", whole: "Select[Any]") -> tuple[str, ...]:
    both = union_all(parts, whole).subquery("both_sides")
    key = (both.c.start_s, both.c.site_id, both.c.release_id)
    differs = or_(
        *(func.sum(both.c[name]) != 0 for name in _SUMMED),
        func.max(both.c.parts_max_us) != func.max(both.c.whole_max_us),
    )
    found = await connection.execute(
        select(*key, func.sum(both.c["count"])).group_by(*key).having(differs).order_by(*key).limit(_MOST_NAMED)
    )
    return tuple(
        f"site {to_hex(site_id)} from {to_rfc3339(start_s * 1000)}: {abs(calls)} calls "
        f"{'too few' if calls > 0 else 'too many'}"
        if calls
        else f"site {to_hex(site_id)} from {to_rfc3339(start_s * 1000)}: times differ"
        for start_s, site_id, _, calls in found
    )
