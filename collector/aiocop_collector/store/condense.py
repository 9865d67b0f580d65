"""Summing spans: in the background, by the writer, one after the other, short ones and the most recent first.

    claim (a short transaction: listed, but not ready) ─> read and sum (no lock) ─> finish (a short one: ready)

A commit that writes into a span strikes it off the list, claimed or ready; then `finish` finds nothing to finish. So
no report waits for a sum. Several collectors that share a PostgreSQL agree by an advisory lock: whoever writes counts
holds it shared until its commit, whoever claims holds it alone. So what was being written at a claim is committed
before anything is read, and what is written afterwards finds the claim and strikes it off.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.buckets import read_bins, read_counters, read_presence
from aiocop_collector.store.driver import execute_rows
from aiocop_collector.store.horizons import load_horizons
from aiocop_collector.store.locks import COUNTS
from aiocop_collector.store.retention import kept_span
from aiocop_collector.store.schema import summed, summed_totals
from aiocop_collector.store.spans import (
    DAY_S,
    MINUTE_S,
    SPANS,
    Cover,
    Span,
    containing,
    cover,
    load_listed,
    load_packed,
    load_packed_presence,
    these,
)
from aiocop_collector.store.statements import REPLACE, Statements
from aiocop_collector.store.totals import AgentBits, Presence, SiteRelease, Totals

GRACE_S: Final = 90
"""How long after its end a span is summed: agents report every second, so little comes later."""

MINUTE_GRACE_S: Final = 10
"""The same of a minute, which is quickly summed again: all that is younger, questions read row by row."""

_VERSION_BITS: Final = 62


@dataclass(frozen=True, slots=True)
class Claim:
    """A span that this collector sums, by the version it is going to have."""

    span: Span
    version: int


@dataclass(frozen=True, slots=True)
class Summed:
    """What was claimed, packed."""

    claim: Claim
    totals: bytes
    presence: bytes | None


async def hold_spans(connection: AsyncConnection) -> None:
    """Call first in a transaction that writes counts: until it ends, nobody claims."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": COUNTS})


async def strike_off(connection: AsyncConnection, minutes_s: Iterable[int]) -> None:
    """Counts were written into these minutes: spans that contain them are no longer true."""
    struck = these(containing(minutes_s))
    await connection.exec_driver_sql(f"DELETE FROM summed WHERE {struck}")  # noqa: S608 integers
    # What a collector of the version before, beside this one, goes by.
    await connection.exec_driver_sql(f"DELETE FROM spans WHERE {struck}")  # noqa: S608 integers


async def missing_spans(connection: AsyncConnection, retention: timedelta, now_s: int) -> list[Span]:
    """Spans that are over, hold something and are not summed: short ones first, as longer ones are made of them, and
    the most recent first."""
    ready = {
        Span(span_s, start_s)
        for span_s, start_s in await connection.execute(
            select(summed.c.span_s, summed.c.bucket_s).where(summed.c.ready == 1)
        )
    }
    oldest_s = {
        resolution.name: (await connection.execute(select(func.min(resolution.rollups.c.bucket_s)))).scalar()
        for resolution in dict.fromkeys(SPANS.values())
    }
    horizons = await load_horizons(connection)
    wanted: list[Span] = []
    for span_s, resolution in SPANS.items():
        first_s = oldest_s[resolution.name]
        if first_s is None:
            continue
        # What reaches back to where buckets are deleted is left alone: it would be a sum of what is left of them.
        youngest_s = now_s - int(kept_span(retention, span_s).total_seconds())
        first_s = max(first_s, youngest_s, horizons.get(resolution.seconds, 0))
        grace_s = MINUTE_GRACE_S if span_s == MINUTE_S else GRACE_S
        starts = range(-(-first_s // span_s) * span_s, now_s - grace_s - span_s + 1, span_s)
        wanted += [span for span in (Span(span_s, at_s) for at_s in reversed(starts)) if span not in ready]
    return wanted


async def claim_spans(connection: AsyncConnection, wanted: Sequence[Span]) -> list[Claim]:
    """Claim them in the caller's transaction, which must be committed before any is read.

    One that another collector has claimed becomes ours, as that one may be gone: if not, it has worked in vain.
    """
    if not wanted:
        return []
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": COUNTS})
    claims = [Claim(span, secrets.randbits(_VERSION_BITS)) for span in wanted]
    upsert = Statements(connection.dialect).upsert(summed, {"version": REPLACE, "ready": REPLACE})
    rows = [(claim.span.span_s, claim.span.start_s, claim.version, 0) for claim in claims]
    await execute_rows(connection, upsert, rows)
    return claims


async def sum_span(connection: AsyncConnection, claim: Claim, now_s: int) -> Summed:
    """Read and sum what was claimed, in a transaction that sees one state of the store and begins after the claim."""
    span = claim.span
    listed = await load_listed(connection, span.start_s, span.end_s)
    parts = cover(span.start_s, span.end_s, SPANS[span.span_s], listed, now_s, await load_horizons(connection))
    packed = await load_packed(connection, parts.spans)
    counters = await read_counters(connection, parts.buckets)
    bins = await read_bins(connection, parts.buckets)
    presence = None
    if span.span_s >= DAY_S:
        presence = await _read_presence(connection, span, parts)
    # In a thread: a fleet's span takes a tenth of a second, and reports come in meanwhile.
    return Summed(claim, await asyncio.to_thread(_packed_sum, counters, bins, packed.values()), presence)


async def finish(connection: AsyncConnection, done: Summed) -> bool:
    """List it as ready, in the caller's transaction. Whether it is: something may have come late meanwhile."""
    span = done.claim.span
    found = await connection.exec_driver_sql(
        f"UPDATE summed SET ready = 1 WHERE {these([span])} AND version = {done.claim.version:d}"  # noqa: S608 integers
    )
    if found.rowcount == 0:
        return False
    upsert = Statements(connection.dialect).upsert(summed_totals, {"totals": REPLACE, "presence": REPLACE})
    await execute_rows(connection, upsert, [(span.span_s, span.start_s, done.totals, done.presence)])
    return True


def _packed_sum(counters: Totals, bins: dict[SiteRelease, int], packed: Iterable[bytes]) -> bytes:
    counters.add_bins(bins)
    for data in packed:
        counters.add_bytes(data)
    return counters.to_bytes()


async def _read_presence(connection: AsyncConnection, span: Span, parts: Cover) -> bytes:
    presence = Presence(AgentBits())
    whole = [part for part in parts.spans if part.span_s >= DAY_S]
    for data in (await load_packed_presence(connection, whole)).values():
        presence.add_bytes(data)
    days_s = set(range(span.start_s, span.end_s, DAY_S))
    for part in whole:
        days_s.difference_update(range(part.start_s, part.end_s, DAY_S))
    presence.add(await read_presence(connection, days_s))
    return await asyncio.to_thread(presence.to_bytes)
