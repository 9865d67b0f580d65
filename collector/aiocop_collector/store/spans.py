"""Spans: neighbouring buckets summed once they are over, so that a question reads few rows however long its window is.

A window of 25 hours is 25 hour buckets of every site; as spans it is about six. Buckets of the three resolutions are
written as reports arrive and are always true; spans are summed afterwards by the writer (see condense.py) and listed in
the table `spans` as long as they are true. A report that arrives late for a span strikes it off that list in the same
transaction: questions then read the buckets below it, until it is summed again. So spans are only ever about speed.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import ColumnElement, Table, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from aiocop_collector.store.schema import RESOLUTIONS, Resolution, span_histograms, span_rollups, spans

_MINUTE, _HOUR, _DAY = RESOLUTIONS

SPANS: Final[Mapping[int, Resolution]] = {
    600: _MINUTE,
    3 * 3600: _HOUR,
    12 * 3600: _HOUR,
    2 * 86_400: _DAY,
    8 * 86_400: _DAY,
}
"""Lengths in seconds, shortest first, and the resolution whose buckets are summed. A span starts at a multiple of its
length (Unix time). Chosen by counting rows: windows of an hour to a month that end at any moment are covered by 5 to 15
spans and buckets; more lengths save little more."""

Facts = Literal["rollups", "histograms"]
Summed = Mapping[int, Collection[int]]
"""By length: the starts of the spans that may be read."""


@dataclass(frozen=True, slots=True)
class Part:
    """Buckets, or spans of one length, that a window is read from."""

    resolution: Resolution | None
    span_s: int
    """Length of each in seconds."""
    starts_s: tuple[int, ...]

    def table(self, facts: Facts) -> Table:
        if self.resolution is not None:
            return self.resolution.rollups if facts == "rollups" else self.resolution.histograms
        return span_rollups if facts == "rollups" else span_histograms

    def conditions(self, table: Table) -> list[ColumnElement[bool]]:
        """What holds for its rows, and only for these. By equality, so that both databases seek by key."""
        starts = table.c.bucket_s.in_(self.starts_s)
        return [starts] if self.resolution is not None else [table.c.span_s == self.span_s, starts]

    def where(self) -> str:
        """The same as text."""
        starts = f"bucket_s IN ({', '.join(map(str, self.starts_s))})"
        return starts if self.resolution is not None else f"span_s = {self.span_s} AND {starts}"


def cover(since_s: int, until_s: int, finest: Resolution, summed: Summed, *, longest_s: int = 1 << 40) -> list[Part]:
    """The fewest buckets and spans that make up [since_s, until_s) exactly; both must be edges of `finest` buckets.

    Spans must be shorter than `longest_s`.
    """
    lengths = sorted(_lengths(finest, longest_s), reverse=True)
    found: dict[int, list[int]] = {}
    at_s = since_s
    while at_s < until_s:
        for length_s in lengths:
            if (
                at_s % length_s == 0
                and at_s + length_s <= until_s
                and (length_s not in SPANS or at_s in summed.get(length_s, ()))
            ):
                found.setdefault(length_s, []).append(at_s)
                at_s += length_s
                break
        else:
            raise ValueError(f"[{since_s}, {until_s}) does not start and end at edges of {finest.name} buckets")
    resolutions = {resolution.seconds: resolution for resolution in RESOLUTIONS}
    return [Part(resolutions.get(length_s), length_s, tuple(starts)) for length_s, starts in sorted(found.items())]


async def load_summed(connection: AsyncConnection, since_s: int, until_s: int, finest: Resolution) -> Summed:
    """The spans inside [since_s, until_s) that may be read, as this connection's transaction sees them."""
    lengths = [length_s for length_s in SPANS if finest.seconds < length_s <= until_s - since_s]
    found: dict[int, set[int]] = {length_s: set() for length_s in lengths}
    if lengths:
        query = select(spans.c.span_s, spans.c.bucket_s).where(
            spans.c.span_s.in_(lengths), spans.c.bucket_s >= since_s, spans.c.bucket_s < until_s
        )
        for length_s, start_s in await connection.execute(query):
            found[length_s].add(start_s)
    return found


def containing(minutes_s: Iterable[int]) -> ColumnElement[bool]:
    """What holds for the rows of `spans` that contain any of these minutes (Unix seconds of their start)."""
    minutes = set(minutes_s)
    return or_(
        *(
            and_(spans.c.span_s == length_s, spans.c.bucket_s.in_(sorted({at - at % length_s for at in minutes})))
            for length_s in SPANS
        )
    )


def _lengths(finest: Resolution, longest_s: int) -> Iterator[int]:
    for length_s in (*SPANS, *(resolution.seconds for resolution in RESOLUTIONS)):
        if finest.seconds <= length_s < longest_s:
            yield length_s
