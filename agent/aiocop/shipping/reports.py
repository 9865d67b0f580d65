"""Freezing: from what is pending to the bytes of reports and definitions, each within what a receiver takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from aiocop.shipping.fit import fit_event, fit_site, fit_stall, fit_trace
from aiocop.shipping.pending import PendingWindow
from aiocop_wire import Define, Health, Report, SiteDelta, SlowEvent, Stall, encode, frame
from aiocop_wire.light_typing import NamedTuple
from aiocop_wire.limits import MAX_MESSAGE_BYTES

LENGTH_BYTES: Final = 4
"""The length prefix of framed data."""
_MAX_DELTAS: Final = 5_000
_MAX_EVENTS: Final = 250
_MAX_DEFINITIONS: Final = 1_000
MAX_STALLS: Final = 8
"""Ended stalls in one report: what fits it even if every frame is as long as it may be."""


class FrozenReport(NamedTuple):
    """A report as it crosses the socket, however often: the same bytes each time."""

    sequence: int
    data: bytes
    """With its length prefix."""
    calls: int
    events: int
    site_ids: frozenset[int]
    trace_ids: frozenset[int]


def freeze(
    window: PendingWindow,
    events: tuple[SlowEvent, ...],
    *,
    first_sequence: int,
    dropped: Mapping[str, int],
    health: Health,
    stalls: tuple[Stall, ...] = (),
) -> list[FrozenReport]:
    """One report, or more where one would be too large, numbered from `first_sequence`; one even of nothing.

    `stalls`, at most MAX_STALLS of them, come in a report of their own: after the counts of their slices.
    """
    fitted = tuple([fit_event(event) for event in events])
    parts = list(_parts(window.deltas, fitted)) or ([] if stalls and not window.loops else [((), ())])
    frozen: list[FrozenReport] = []
    parts.reverse()
    while parts:
        deltas, part_events = parts.pop()
        data = encode(
            Report(
                sequence=first_sequence + len(frozen),
                started_at_ms=window.started_at_ms,
                span_ms=window.span_ms,
                deltas=deltas,
                slow_events=part_events,
                dropped=dropped,
                health=health,
                loops=() if frozen else window.loops,
            )
        )
        if len(data) > MAX_MESSAGE_BYTES and len(deltas) + len(part_events) > 1:
            parts += reversed(_halves(deltas, part_events))
            continue
        frozen.append(
            FrozenReport(
                sequence=first_sequence + len(frozen),
                data=frame(data),
                calls=sum(delta.count for delta in deltas),
                events=len(part_events),
                site_ids=used_sites(deltas, part_events),
                trace_ids=used_traces(part_events),
            )
        )
    if stalls:
        sequence = first_sequence + len(frozen)
        fitted_stalls = tuple([fit_stall(stall) for stall in stalls])
        report = Report(
            sequence, window.started_at_ms, window.span_ms, dropped=dropped, health=health, stalls=fitted_stalls
        )
        sites = frozenset(stall.site_id for stall in stalls if stall.site_id)
        frozen.append(FrozenReport(sequence, frame(encode(report)), 0, 0, sites, frozenset()))
    return frozen


def used_sites(deltas: tuple[SiteDelta, ...], events: tuple[SlowEvent, ...]) -> frozenset[int]:
    """The sites that a receiver must know to use these."""
    return frozenset([delta.site_id for delta in deltas] + [site.site_id for event in events for site in event.sites])


def used_traces(events: tuple[SlowEvent, ...]) -> frozenset[int]:
    """The traces that these events point to."""
    return frozenset(site.trace_id for event in events for site in event.sites if site.trace_id)


_Part = tuple[tuple[SiteDelta, ...], tuple[SlowEvent, ...]]


def _parts(deltas: tuple[SiteDelta, ...], events: tuple[SlowEvent, ...]) -> Iterator[_Part]:
    if len(deltas) <= _MAX_DELTAS and len(events) <= _MAX_EVENTS:
        if deltas or events:
            yield deltas, events
        return
    for start in range(0, len(deltas), _MAX_DELTAS):
        yield deltas[start : start + _MAX_DELTAS], ()
    for start in range(0, len(events), _MAX_EVENTS):
        yield (), events[start : start + _MAX_EVENTS]


def _halves(deltas: tuple[SiteDelta, ...], events: tuple[SlowEvent, ...]) -> list[_Part]:
    if deltas and events:
        return [(deltas, ()), ((), events)]
    if deltas:
        return [(deltas[: len(deltas) // 2], ()), (deltas[len(deltas) // 2 :], ())]
    return [((), events[: len(events) // 2]), ((), events[len(events) // 2 :])]


def freeze_definitions(define: Define) -> Iterator[bytes]:
    """The framed messages that carry `define`."""
    sites = tuple([fit_site(site) for site in define.sites])
    traces = tuple([fit_trace(trace) for trace in define.traces])
    parts = [Define(sites=sites[at : at + _MAX_DEFINITIONS]) for at in range(0, len(sites), _MAX_DEFINITIONS)]
    parts += [Define(traces=traces[at : at + _MAX_DEFINITIONS]) for at in range(0, len(traces), _MAX_DEFINITIONS)]
    parts.reverse()
    while parts:
        part = parts.pop()
        data = encode(part)
        if len(data) <= MAX_MESSAGE_BYTES:
            yield frame(data)
        elif part.sites:
            half = len(part.sites) // 2
            parts += (Define(sites=part.sites[half:]), Define(sites=part.sites[:half]))
        else:
            half = len(part.traces) // 2
            parts += (Define(traces=part.traces[half:]), Define(traces=part.traces[:half]))
