"""Brings what the agent wants to say within the limits of the wire, so that no collector ever refuses a report.

The happy path costs a few comparisons and returns what came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiocop_wire import Capture, ContextValue, Frame, SiteDefinition, SlowEvent, SlowSite, Stall, TraceDefinition
from aiocop_wire.limits import MAX_ARGUMENTS, MAX_CONTEXT_ITEMS, MAX_FRAMES, MAX_NAME, MAX_TEXT

_MAX_EVENT_SITES: Final = 256
_MAX_CAPTURE_CHARACTERS: Final = 200_000
_SHORT_TEXT: Final = 100
_MAX_CONTEXT_INT: Final = 1 << 53


def fit_site(site: SiteDefinition) -> SiteDefinition:
    """`site` with its frames, texts and advice cut to size; its call site stays."""
    frames, call_site = _fit_frames(site.frames, site.call_site)
    if frames is site.frames and len(site.operation) <= MAX_NAME and len(site.advice) <= MAX_TEXT:
        return site
    return SiteDefinition(
        site_id=site.site_id,
        operation=site.operation[:MAX_NAME],
        fingerprint=site.fingerprint,
        cause=site.cause,
        reason=site.reason,
        weight=site.weight,
        frames=frames,
        call_site=call_site,
        advice=site.advice[:MAX_TEXT],
    )


def fit_trace(trace: TraceDefinition) -> TraceDefinition:
    """`trace` with its outermost frames and long texts cut off."""
    frames, _ = _fit_frames(trace.frames, 0)
    return trace if frames is trace.frames else TraceDefinition(trace.trace_id, trace.site_id, frames)


def fit_stall(stall: Stall) -> Stall:
    """`stall` with its outermost frames and long texts cut off: at most 100 kB, however its functions are called."""
    frames = stall.frames[:MAX_FRAMES]
    if len(frames) < len(stall.frames) or any(len(item.path) + len(item.function) > MAX_NAME for item in frames):
        return stall._replace(frames=tuple([shorten_frame(item, MAX_NAME) for item in frames]))
    return stall


def _fit_frames(frames: tuple[Frame, ...], call_site: int) -> tuple[tuple[Frame, ...], int]:
    if len(frames) > MAX_FRAMES:
        if call_site >= MAX_FRAMES:
            frames = (*frames[: MAX_FRAMES - 1], frames[call_site])
            call_site = MAX_FRAMES - 1
        else:
            frames = frames[:MAX_FRAMES]
    if all(0 < len(frame.path) <= MAX_TEXT and len(frame.function) <= MAX_TEXT for frame in frames):
        return frames, call_site
    return tuple(shorten_frame(frame, MAX_TEXT) for frame in frames), call_site


def shorten_frame(frame: Frame, most: int) -> Frame:
    """The end of its path and the end of its function's name: where the two differ from their neighbours."""
    return Frame(frame.path[-most:] or "?", frame.line, frame.function[-most:], frame.kind)


def fit_event(event: SlowEvent) -> SlowEvent:
    """`event` with what the wire's limits allow of it."""
    context = _fit_values(event.context, MAX_CONTEXT_ITEMS) if event.context else event.context
    if (
        context is event.context
        and event.capture is None
        and not any(site.arguments for site in event.sites)
        and len(event.sites) <= _MAX_EVENT_SITES
        and len(event.task_name) <= MAX_NAME
        and len(event.thread_name) <= MAX_NAME
        and len(event.loop) <= MAX_NAME
        and event.elapsed_us >= 0
        and event.started_at_ms >= 0
        and event.cpu_us >= -1
        and event.gc_us >= 0
    ):
        return event
    return event._replace(
        started_at_ms=max(0, event.started_at_ms),
        elapsed_us=max(0, event.elapsed_us),
        sites=tuple([_fit_slow_site(site) for site in event.sites[:_MAX_EVENT_SITES]]),
        task_name=event.task_name[:MAX_NAME],
        thread_name=event.thread_name[:MAX_NAME],
        loop=event.loop[:MAX_NAME],
        cpu_us=max(-1, event.cpu_us),
        gc_us=max(0, event.gc_us),
        context=context,
        capture=None if event.capture is None else _fit_capture(event.capture),
    )


def _fit_capture(capture: Capture) -> Capture:
    """Its texts cut, so that it fits one report whatever alphabet they are in."""
    characters = sum(len(item.path) + len(item.function) for frames in capture.traces for item in frames)
    most = MAX_TEXT if characters <= _MAX_CAPTURE_CHARACTERS else _SHORT_TEXT
    return capture._replace(
        traces=tuple([tuple([shorten_frame(item, most) for item in frames[:MAX_FRAMES]]) for frames in capture.traces])
    )


def _fit_slow_site(site: SlowSite) -> SlowSite:
    return site._replace(arguments=_fit_values(site.arguments, MAX_ARGUMENTS)) if site.arguments else site


def _fit_values(values: Mapping[str, ContextValue], most: int) -> dict[str, ContextValue]:
    return {fit_name(key): fit_value(value, MAX_TEXT) for key, value in list(values.items())[:most]}


def fit_name(key: object) -> str:
    """`key` as the name of a value on the wire."""
    name = key if type(key) is str else type(key).__name__
    return name[:MAX_NAME]


def fit_value(value: object, most: int) -> ContextValue:
    """`value` as it crosses the wire, a text with at most `most` characters; of any other object its type's name."""
    # Exact types: a subclass may do anything when it is encoded.
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return value[:most]
    if type(value) is int:
        return value if -_MAX_CONTEXT_INT <= value <= _MAX_CONTEXT_INT else hex(value)[:MAX_NAME]
    if type(value) is float:
        return value if value - value == 0.0 else repr(value)
    return type(value).__name__[:MAX_NAME]
