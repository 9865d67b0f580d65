"""Cutting a window into self-contained datagrams of at most a given size.

Sizes are estimated while items are put together, because exact ones cost an encoding per item; `encode_within` checks
the bytes of what comes out and halves what is still too large, so the estimates only have to be good, not right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from aiocop.shipping.fit import fit_event, fit_site, fit_trace, shorten_frame
from aiocop.shipping.reports import used_sites, used_traces
from aiocop_wire import ContextValue, Define, Frame, LoopDelta, SiteDefinition, SiteDelta, SlowEvent, TraceDefinition
from aiocop_wire.light_typing import NamedTuple

_ENVELOPE_BYTES: Final = 420  # a datagram with an identity and an empty report, less the identity's texts
_DELTA_BYTES: Final = 28
_EVENT_BYTES: Final = 220
_LOOP_BYTES: Final = 60
_SHORTEST_TEXT: Final = 30
_SHORTEST_VALUE: Final = 60


class Part(NamedTuple):
    """What goes into one datagram."""

    deltas: tuple[SiteDelta, ...] = ()
    events: tuple[SlowEvent, ...] = ()
    sites: tuple[SiteDefinition, ...] = ()
    traces: tuple[TraceDefinition, ...] = ()
    loops: tuple[LoopDelta, ...] = ()

    @property
    def define(self) -> Define:
        return Define(self.sites, self.traces)

    @property
    def calls(self) -> int:
        return sum(delta.count for delta in self.deltas)


def cut(
    deltas: Iterable[SiteDelta],
    events: Iterable[SlowEvent],
    define: Define,
    loops: Iterable[LoopDelta] = (),
    *,
    budget_bytes: int,
) -> Iterator[Part]:
    """Parts that together hold everything, each with those definitions of `define` that it uses."""
    cutter = _Cutter(define, budget_bytes - _ENVELOPE_BYTES)
    for loop in loops:
        yield from cutter.add_loop(loop)
    for delta in deltas:
        yield from cutter.add_delta(delta)
    for event in events:
        yield from cutter.add_event(fit_event(event))
    yield from cutter.rest()


class _Cutter:
    """Fills one part after the other."""

    def __init__(self, define: Define, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._sites = {site.site_id: fit_site(site) for site in define.sites}
        self._traces = {trace.trace_id: fit_trace(trace) for trace in define.traces}
        self._start()

    def _start(self) -> None:
        self._bytes = 0
        self._part_deltas: list[SiteDelta] = []
        self._part_events: list[SlowEvent] = []
        self._part_sites: dict[int, SiteDefinition] = {}
        self._part_traces: dict[int, TraceDefinition] = {}
        self._part_loops: list[LoopDelta] = []

    def add_loop(self, loop: LoopDelta) -> tuple[Part, ...]:
        """Take what a loop did; the part that was full before it, if it was."""
        texts = len(loop.thread_name) + len(loop.loop)
        full = self._make_room(_LOOP_BYTES + texts + 3 * len(loop.lag_bins), {}, {})
        self._part_loops.append(loop)
        return full

    def add_delta(self, delta: SiteDelta) -> tuple[Part, ...]:
        """The same with a delta. Runs per site and second."""
        own_bytes = _DELTA_BYTES + 3 * len(delta.bins)
        site = self._sites.get(delta.site_id)
        sites = {} if site is None else {site.site_id: site}
        full = self._make_room(own_bytes, sites, {})
        self._part_deltas.append(delta)
        return full

    def add_event(self, event: SlowEvent) -> tuple[Part, ...]:
        """The same with a slow event."""
        sites = {number: self._sites[number] for number in used_sites((), (event,)) if number in self._sites}
        traces = {number: self._traces[number] for number in used_traces((event,)) if number in self._traces}
        full = self._make_room(_event_bytes(event), sites, traces)
        self._part_events.append(event)
        return full

    def _make_room(
        self, own_bytes: int, sites: dict[int, SiteDefinition], traces: dict[int, TraceDefinition]
    ) -> tuple[Part, ...]:
        full: tuple[Part, ...] = ()
        missing_bytes = self._missing_bytes(sites, traces) if sites or traces else 0
        if self._bytes + own_bytes + missing_bytes > self._budget_bytes:
            full = self.rest()
            missing_bytes = self._missing_bytes(sites, traces) if sites or traces else 0
        self._bytes += own_bytes + missing_bytes
        self._part_sites.update(sites)
        self._part_traces.update(traces)
        return full

    def rest(self) -> tuple[Part, ...]:
        """The part begun, and begin another."""
        if not self._part_deltas and not self._part_events and not self._part_loops:
            return ()
        part = Part(
            tuple(self._part_deltas),
            tuple(self._part_events),
            tuple(self._part_sites.values()),
            tuple(self._part_traces.values()),
            tuple(self._part_loops),
        )
        self._start()
        return (part,)

    def _missing_bytes(self, sites: dict[int, SiteDefinition], traces: dict[int, TraceDefinition]) -> int:
        return sum(_site_bytes(site) for number, site in sites.items() if number not in self._part_sites) + sum(
            _frames_bytes(trace.frames) + 20 for number, trace in traces.items() if number not in self._part_traces
        )


def _frames_bytes(frames: tuple[Frame, ...]) -> int:
    return sum(len(frame.path) + len(frame.function) + 10 for frame in frames)


def _site_bytes(site: SiteDefinition) -> int:
    return 50 + len(site.operation) + len(site.advice) + _frames_bytes(site.frames)


def _event_bytes(event: SlowEvent) -> int:
    texts = len(event.task_name) + len(event.thread_name) + len(event.loop)
    values = _values_bytes(event.context) + sum([_values_bytes(site.arguments) for site in event.sites])
    return _EVENT_BYTES + texts + values + 25 * len(event.sites)


def _values_bytes(values: Mapping[str, ContextValue]) -> int:
    return sum(len(key) + (len(value) if isinstance(value, str) else 9) + 5 for key, value in values.items())


def smaller(part: Part) -> tuple[Part, ...]:
    """`part` as something smaller that says the same, or nearly: what cannot be kept is detail, never a count.

    In this order: halves; definitions in datagrams of their own; definitions and events cut down. Empty when nothing is
    left that could go.
    """
    if part.loops and part != Part(loops=part.loops):
        return (Part(loops=part.loops), part._replace(loops=()))
    if len(part.loops) > 1:
        half = len(part.loops) // 2
        return (Part(loops=part.loops[:half]), Part(loops=part.loops[half:]))
    if len(part.deltas) + len(part.events) > 1:
        return _halves(part)
    if len(part.sites) + len(part.traces) > 1 or ((part.sites or part.traces) and (part.deltas or part.events)):
        alone = [Part(sites=(site,)) for site in part.sites] + [Part(traces=(trace,)) for trace in part.traces]
        return (*alone, Part(part.deltas, part.events)) if part.deltas or part.events else tuple(alone)
    shrunk = Part(
        part.deltas,
        tuple(_smaller_event(event) for event in part.events),
        tuple(_smaller_site(site) for site in part.sites),
        tuple(_smaller_trace(trace) for trace in part.traces),
        tuple(loop._replace(thread_name=loop.thread_name[:_SHORTEST_TEXT]) for loop in part.loops),
    )
    return () if shrunk == part else (shrunk,)


def _halves(part: Part) -> tuple[Part, ...]:
    half_deltas, half_events = (len(part.deltas) + 1) // 2, len(part.events) // 2
    return tuple(
        Part(
            deltas,
            events,
            tuple(site for site in part.sites if site.site_id in used_sites(deltas, events)),
            tuple(trace for trace in part.traces if trace.trace_id in used_traces(events)),
        )
        for deltas, events in (
            (part.deltas[:half_deltas], part.events[:half_events]),
            (part.deltas[half_deltas:], part.events[half_events:]),
        )
    )


def _smaller_site(site: SiteDefinition) -> SiteDefinition:
    frames, call_site, advice = site.frames, site.call_site, site.advice
    if advice:
        advice = ""
    elif len(frames) > 2:  # the entry point, the call site, and half of what is between
        between = frames[1:call_site]
        frames = (frames[0], *between[: len(between) // 2], frames[call_site]) if call_site else frames[:1]
        call_site = len(frames) - 1
    else:
        frames = _shorter(frames)
    return SiteDefinition(
        site.site_id, site.operation, site.fingerprint, site.cause, site.reason, site.weight, frames, call_site, advice
    )


def _smaller_trace(trace: TraceDefinition) -> TraceDefinition:
    """The frames that are nearer to the call say more."""
    if len(trace.frames) > 1:
        return TraceDefinition(trace.trace_id, trace.site_id, trace.frames[: len(trace.frames) // 2])
    return TraceDefinition(trace.trace_id, trace.site_id, _shorter(trace.frames))


def _shorter(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """With texts of at most half the longest."""
    longest = max(max(len(frame.path), len(frame.function)) for frame in frames)
    return tuple(shorten_frame(frame, max(_SHORTEST_TEXT, longest // 2)) for frame in frames)


def _smaller_event(event: SlowEvent) -> SlowEvent:
    """With shorter values first, then without, then with fewer sites."""
    all_values = [event.context, *[site.arguments for site in event.sites]]
    if any(len(value) > _SHORTEST_VALUE for values in all_values for value in values.values() if type(value) is str):
        sites = [site._replace(arguments=_shorter_values(site.arguments)) for site in event.sites]
        return event._replace(context=_shorter_values(event.context), sites=tuple(sites))
    if any(all_values) or event.capture is not None:
        sites = [site._replace(arguments={}) for site in event.sites]
        return event._replace(context={}, sites=tuple(sites), capture=None)
    return event._replace(sites=event.sites[: len(event.sites) // 2])


def _shorter_values(values: Mapping[str, ContextValue]) -> dict[str, ContextValue]:
    return {key: value[:_SHORTEST_VALUE] if isinstance(value, str) else value for key, value in values.items()}
