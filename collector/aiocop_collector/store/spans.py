"""Spans: neighbouring buckets summed once they are over, so that a question reads few rows however long its window is.

A window of 25 hours is 25 hour buckets of every site; as spans it is about six rows, each with the packed totals of all
sites (totals.py). Buckets of the three resolutions are written as reports arrive and are always true; spans are summed
afterwards by the writer (condense.py) and listed in the table `summed` as long as they are true. A report that comes
late for a span strikes it off that list in the same transaction: questions then read the buckets below it, until it is
summed again. So spans are only ever about speed. Every listing has a version of its own, so whoever remembers what a
version holds need not read it again.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.driver import fetch
from aiocop_collector.store.schema import RESOLUTIONS, Resolution

_MINUTE, _HOUR, _DAY = RESOLUTIONS
MINUTE_S: Final = _MINUTE.seconds
DAY_S: Final = _DAY.seconds

SPANS: Final[Mapping[int, Resolution]] = {
    MINUTE_S: _MINUTE,
    600: _MINUTE,
    3600: _HOUR,
    3 * 3600: _HOUR,
    12 * 3600: _HOUR,
    DAY_S: _DAY,
    2 * DAY_S: _DAY,
    8 * DAY_S: _DAY,
}
"""Lengths in seconds, shortest first, and the resolution they are kept like. A span starts at a multiple of its length
(Unix time), so one lies inside another or outside of it."""

_LONGEST_FIRST: Final = tuple(sorted(SPANS, reverse=True))


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """One of them."""

    span_s: int
    start_s: int

    @property
    def end_s(self) -> int:
        return self.start_s + self.span_s


Listed = Mapping[Span, int]
"""The version of each span that may be read."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """Neighbouring buckets of one resolution, read row by row."""

    resolution: Resolution
    start_s: int
    end_s: int

    @property
    def starts_s(self) -> range:
        return range(self.start_s, self.end_s, self.resolution.seconds)

    def where(self) -> str:
        """What holds for their rows: SQL text."""
        if self.end_s - self.start_s == self.resolution.seconds:
            return f"bucket_s = {self.start_s:d}"  # rows come in the order they are grouped in: nothing to sort
        return f"bucket_s >= {self.start_s:d} AND bucket_s < {self.end_s:d}"


@dataclass(frozen=True, slots=True)
class Cover:
    """What makes up a stretch of time exactly."""

    spans: tuple[Span, ...]
    buckets: tuple[Buckets, ...]


def cover(
    since_s: int, until_s: int, finest: Resolution, listed: Listed, now_s: float, horizons: Mapping[int, int]
) -> Cover:
    """The fewest spans and buckets that make up [since_s, until_s) exactly; both must be edges of `finest` buckets.

    Of today and yesterday shorter ones than `finest` may be taken too, where `horizons` do not say that they are
    deleted: the bucket of a day that is not over would be read site by site. What is to come, as a rule nothing, is
    apart from the last minutes.
    """
    recent_s = now_s - now_s % DAY_S - DAY_S
    coming_s = int(-(-now_s // MINUTE_S)) * MINUTE_S

    def shortest_s(at_s: int) -> int:
        for resolution in RESOLUTIONS if at_s >= recent_s else ():
            if at_s >= horizons.get(resolution.seconds, 0):
                return min(resolution.seconds, finest.seconds)
        return finest.seconds

    usable = {span for span in listed if span.span_s >= shortest_s(span.start_s)}
    starts = sorted({span.start_s for span in usable})
    spans: list[Span] = []
    buckets: list[Buckets] = []
    at_s = since_s
    while at_s < until_s:
        span = _longest_span(at_s, until_s, usable)
        if span is not None:
            spans.append(span)
            at_s = span.end_s
            continue
        following = bisect_left(starts, at_s + 1)
        next_s = starts[following] if following < len(starts) else until_s
        resolution = _coarsest_bucket(at_s, min(until_s, next_s), until_s, shortest_s(at_s))
        end_s = at_s + resolution.seconds
        if buckets and buckets[-1].resolution is resolution and buckets[-1].end_s == at_s != coming_s:
            buckets[-1] = Buckets(resolution, buckets[-1].start_s, end_s)
        else:
            buckets.append(Buckets(resolution, at_s, end_s))
        at_s = end_s
    return Cover(tuple(spans), tuple(buckets))


def _longest_span(at_s: int, until_s: int, usable: Collection[Span]) -> Span | None:
    for length_s in _LONGEST_FIRST:
        if at_s % length_s == 0 and at_s + length_s <= until_s:
            span = Span(length_s, at_s)
            if span in usable:
                return span
    return None


def _coarsest_bucket(at_s: int, next_s: int, until_s: int, finest_s: int) -> Resolution:
    """The longest that ends before the next span; if none does, the shortest that may be."""
    fitting = [
        resolution
        for resolution in RESOLUTIONS
        if resolution.seconds >= finest_s and at_s % resolution.seconds == 0 and at_s + resolution.seconds <= until_s
    ]
    if not fitting:
        raise ValueError(f"{at_s} … {until_s} are not edges of the buckets they are to be made of")
    before_next = [resolution for resolution in fitting if at_s + resolution.seconds <= next_s]
    return before_next[-1] if before_next else fitting[0]


async def load_listed(connection: AsyncConnection, since_s: int, until_s: int) -> dict[Span, int]:
    """The spans inside [since_s, until_s) that may be read, as this connection's transaction sees them."""
    return listed_of(await read_listed(connection, since_s, until_s))


async def read_listed(connection: AsyncConnection, since_s: int, until_s: int) -> Sequence[Any]:
    """The same as rows, for `listed_of`."""
    return await fetch(
        connection,
        "SELECT span_s, bucket_s, version FROM summed "  # noqa: S608 integers
        f"WHERE bucket_s >= {since_s:d} AND bucket_s + span_s <= {until_s:d} AND ready = 1",
    )


def listed_of(rows: Iterable[Any]) -> dict[Span, int]:
    """What `read_listed` read."""
    return {Span(span_s, start_s): version for span_s, start_s, version in rows}


async def load_packed(connection: AsyncConnection, spans: Collection[Span]) -> Mapping[Span, bytes]:
    """The packed totals of listed spans."""
    return await _load(connection, "totals", spans)


async def load_packed_presence(connection: AsyncConnection, spans: Collection[Span]) -> Mapping[Span, bytes]:
    """The packed presence of listed spans of whole days."""
    return await _load(connection, "presence", spans)


async def _load(connection: AsyncConnection, column: str, spans: Collection[Span]) -> Mapping[Span, bytes]:
    if not spans:
        return {}
    rows = await fetch(
        connection,
        f"SELECT span_s, bucket_s, {column} FROM summed_totals WHERE {these(spans)}",  # noqa: S608 integers
    )
    return {Span(span_s, start_s): packed for span_s, start_s, packed in rows}


def these(spans: Iterable[Span]) -> str:
    """What holds for the rows of these spans: SQL text."""
    starts: dict[int, list[int]] = {}
    for span in spans:
        starts.setdefault(span.span_s, []).append(span.start_s)
    return " OR ".join(
        f"(span_s = {span_s:d} AND bucket_s IN ({', '.join(map(str, sorted(found)))}))"
        for span_s, found in starts.items()
    )


def containing(minutes_s: Iterable[int]) -> set[Span]:
    """The spans that contain any of these minutes (Unix seconds of their start)."""
    minutes = set(minutes_s)
    return {Span(span_s, at_s - at_s % span_s) for span_s in SPANS for at_s in minutes}


def days_around(since_s: int, until_s: int) -> tuple[int, int]:
    """The whole days (UTC) that contain [since_s, until_s)."""
    return since_s - since_s % DAY_S, until_s + -until_s % DAY_S
