"""What spans hold, kept decoded between questions: the same windows are asked for again and again.

A listed span has a version, and what is remembered goes by it: a span that was struck off and summed again is another
one. So nothing here can be out of date, whoever wrote it; a collector needs to tell no other. What a window is made of
is remembered in two sums: that of hours and longer, which is the same for an hour, and that of shorter spans, which is
another every minute, but the same for all windows that end now.

Written and read on the event loop's thread only. What it gives out is shared: nobody may change it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence, Set
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.queries.columns import Columns
from aiocop_collector.store.buckets import among, read_presence, site_list
from aiocop_collector.store.driver import fetch
from aiocop_collector.store.schema import Resolution
from aiocop_collector.store.spans import (
    DAY_S,
    MINUTE_S,
    Cover,
    Listed,
    Span,
    cover,
    listed_of,
    load_packed,
    load_packed_presence,
    read_listed,
)
from aiocop_collector.store.totals import AgentBits, Presence, Totals

_LONG_S: Final = 3600
"""Spans from here on are summed apart from shorter ones."""

_MOST_ENTRIES: Final = 120_000
"""Sites remembered, of all that is remembered together: some 240 bytes each."""

_MOST_LISTINGS: Final = 16
"""Of days, and covers of windows, that are remembered: a thousand spans each at most."""

_MOST_AGENTS: Final = 200_000
"""Bits given out before all presence is forgotten: agents come and go."""

Versions = tuple[tuple[Span, int], ...]


class _PresenceTo(NamedTuple):
    """Who was seen, up to a state of some days that are not over or not summed."""

    presence: Presence
    changes: Mapping[int, int]
    """What `presence_changed` said in that state, by service."""


T = TypeVar("T", Columns, Presence, _PresenceTo)


class SpanMemory:
    """One per collector."""

    def __init__(self, *, most_entries: int = _MOST_ENTRIES) -> None:
        self._most_entries = most_entries
        self._known: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._entries = 0
        self._bits = AgentBits()
        self._listings: OrderedDict[tuple[int, int], tuple[Sequence[Any], Listed]] = OrderedDict()
        self._covers: OrderedDict[Hashable, tuple[Listed, Cover]] = OrderedDict()

    async def listed(self, connection: AsyncConnection, since_s: int, until_s: int) -> Listed:
        """The spans inside [since_s, until_s) that may be read, as this transaction sees them. Not to be changed."""
        rows = await read_listed(connection, since_s, until_s)
        known = self._listings.get((since_s, until_s))
        if known is None or known[0] != rows:
            known = (rows, listed_of(rows))
            self._listings[since_s, until_s] = known
        self._listings.move_to_end((since_s, until_s))
        while len(self._listings) > _MOST_LISTINGS:
            self._listings.popitem(last=False)
        return known[1]

    def cover(
        self,
        since_s: int,
        until_s: int,
        finest: Resolution,
        listed: Listed,
        now_s: float,
        horizons: Mapping[int, int],
        *,
        shortest_s: int = 0,
    ) -> Cover:
        """As `cover` of spans that are at least so long. `listed` are those of this memory."""
        key = (since_s, until_s, finest.seconds, now_s // MINUTE_S, frozenset(horizons.items()), shortest_s)
        known = self._covers.get(key)
        if known is None or known[0] is not listed:
            usable = {span: version for span, version in listed.items() if span.span_s >= shortest_s}
            known = (listed, cover(since_s, until_s, finest, usable, now_s, horizons))
            self._covers[key] = known
        self._covers.move_to_end(key)
        while len(self._covers) > _MOST_LISTINGS:
            self._covers.popitem(last=False)
        return known[1]

    async def totals(
        self, connection: AsyncConnection, spans: Iterable[Span], listed: Listed, *, by_release: bool
    ) -> Sequence[Columns]:
        """What together is the sum of these spans, which this transaction sees as listed. Not to be changed."""
        ordered = sorted(spans, reverse=True)
        long = [span for span in ordered if span.span_s >= _LONG_S]
        short = [span for span in ordered if span.span_s < _LONG_S]
        tens = [span for span in short if span.span_s > MINUTE_S]
        past = await self._sum(connection, None, [], long, listed, by_release=by_release)
        recent = await self._sum(connection, None, [], tens, listed, by_release=by_release)
        if len(short) > len(tens):
            recent = await self._sum(connection, recent, tens, short, listed, by_release=by_release)
        return [part for part in (past, recent) if part is not None]

    async def _sum(
        self,
        connection: AsyncConnection,
        begun: Columns | None,
        done: list[Span],
        spans: list[Span],
        listed: Listed,
        *,
        by_release: bool,
    ) -> Columns | None:
        """The sum of `spans`, of which the first are `done`: they add up to `begun`. None for no spans."""
        if not spans:
            return None
        key = ("totals", by_release, _versions(spans, listed))
        known = self._recall(key, Columns)
        if known is None:
            totals = Totals()
            if begun is not None:
                begun.add_to(totals)
            await self._add(connection, totals, spans[len(done) :], listed, by_release=by_release)
            await asyncio.sleep(0)
            known = Columns.of(totals, by_release=by_release)
            self._remember(key, known, len(known))
        return known

    async def _add(
        self, connection: AsyncConnection, totals: Totals, spans: list[Span], listed: Listed, *, by_release: bool
    ) -> None:
        """Those of a minute are remembered one by one: a window of an hour is made of them anew each minute. The others
        are read one by one: a fleet's takes some megabytes, decoded twenty. Between any two of them others may run, as
        together they take tenths of a second."""
        missing = []
        for span in spans:
            await asyncio.sleep(0)
            if span.span_s > MINUTE_S:
                for data in (await load_packed(connection, [span])).values():
                    totals.add_bytes(data, by_release=by_release)
                continue
            minute = self._recall(("minute", by_release, span, listed[span]), Columns)
            if minute is None:
                missing.append(span)
            else:
                minute.add_to(totals)
        for span, data in (await load_packed(connection, missing)).items():
            await asyncio.sleep(0)
            decoded = Totals()
            decoded.add_bytes(data, by_release=by_release)
            minute = Columns.of(decoded, by_release=by_release)
            minute.add_to(totals)
            self._remember(("minute", by_release, span, listed[span]), minute, len(minute))

    async def past_presence(self, connection: AsyncConnection, spans: Iterable[Span], listed: Listed) -> Presence:
        """Who was seen in these spans of whole days. Not to be changed."""
        if len(self._bits) > _MOST_AGENTS:
            self._known.clear()
            self._entries, self._bits = 0, AgentBits()
        ordered = sorted(spans, reverse=True)
        key = ("presence", _versions(ordered, listed))
        known = self._recall(key, Presence)
        if known is None:
            known = Presence(self._bits)
            for data in (await load_packed_presence(connection, ordered)).values():
                known.add_bytes(data)
            self._remember(key, known, len(known.seen_by))
        return known

    async def presence(
        self,
        connection: AsyncConnection,
        spans: Collection[Span],
        days_s: Iterable[int],
        listed: Listed,
        horizons: Mapping[int, int],
    ) -> Presence:
        """Who was seen in these spans of whole days, and on these days. Not to be changed.

        What was read of the days stays; of services whose number is another one (migration 0014) it is read again.
        """
        past = await self.past_presence(connection, spans, listed)
        days = tuple(sorted(days_s))
        if not days:
            return past
        key = ("presence to", _versions(sorted(spans, reverse=True), listed), days, horizons.get(DAY_S))
        changes = dict(await fetch(connection, "SELECT service_id, change FROM presence_changed"))
        known = self._recall(key, _PresenceTo)
        if known is not None and known.presence.bits is past.bits:
            if known.changes == changes:
                return known.presence
            changed = {service_id for service_id, _ in known.changes.items() ^ changes.items()}
            presence = known.presence.copy()
            presence.reset(changed, past)
            presence.add(await read_presence(connection, days, await _sites_of(connection, changed)))
        else:
            presence = past.copy()
            presence.add(await read_presence(connection, days))
        self._remember(key, _PresenceTo(presence, changes), len(presence.seen_by))
        return presence

    def _recall(self, key: Hashable, kind: type[T]) -> T | None:
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        remembered, _ = found
        return remembered if isinstance(remembered, kind) else None

    def _remember(self, key: Hashable, found: Columns | Presence | _PresenceTo, entries: int) -> None:
        _, before = self._known.get(key, (None, 0))
        self._known[key] = (found, entries)
        self._entries += entries - before
        while self._entries > self._most_entries and len(self._known) > 1:
            _, (_, freed) = self._known.popitem(last=False)
            self._entries -= freed


async def _sites_of(connection: AsyncConnection, service_ids: Set[int]) -> list[int]:
    condition, parameters = among(connection, "service_id"), (site_list(connection, service_ids),)
    return [site_id for (site_id,) in await fetch(connection, f"SELECT id FROM sites WHERE {condition}", parameters)]  # noqa: S608 see buckets.py


def _versions(spans: Iterable[Span], listed: Listed) -> Versions:
    return tuple([(span, listed[span]) for span in spans])
