"""Msgpack to messages: the one border where a peer's bytes become values.

`decode` checks every type, sign, size and index, and raises only WireError. What it returns is safe to use. An array
longer than this side knows is fine (a newer peer), a shorter one is completed with defaults (an older peer).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from operator import countOf
from typing import Any, Final, cast

import msgpack

from aiocop_wire import limits
from aiocop_wire.errors import MalformedMessageError, OversizedMessageError, UnknownVersionError
from aiocop_wire.histogram import BIN_COUNT
from aiocop_wire.messages import (
    CAUSES,
    FROZEN,
    PROTOCOL_VERSION,
    REASONS,
    STALL_STATES,
    Ack,
    Capture,
    CapturedMoment,
    CaptureRequest,
    ContextValue,
    Control,
    Controlled,
    Datagram,
    Define,
    Farewell,
    Frame,
    Health,
    Hello,
    Identity,
    LoopDelta,
    Message,
    Overhead,
    Refused,
    Report,
    SiteDefinition,
    SiteDelta,
    SlowEvent,
    SlowSite,
    Stall,
    TraceDefinition,
    Welcome,
)

_MAX_U63: Final = (1 << 63) - 1
_MAX_U64: Final = (1 << 64) - 1
_MAX_U32: Final = (1 << 32) - 1
_MAX_MICROSECONDS: Final = _MAX_U63 >> 10
_MAX_CONTEXT_INT: Final = 1 << 53
_U64: Final = "Q"  # typecodes of arrays
_U32: Final = "I"
_BINS: Final = frozenset(range(BIN_COUNT))
_BINS_LENGTHS: Final = frozenset(range(0, 2 * BIN_COUNT + 1, 2))

_Body = Mapping[str, Any]


def decode(data: bytes | bytearray | memoryview, *, max_bytes: int = limits.MAX_MESSAGE_BYTES) -> Message:
    """The message in `data`.

    Raises OversizedMessageError, UnknownVersionError, or MalformedMessageError; nothing else, whatever the bytes are.
    """
    if len(data) > max_bytes:
        raise OversizedMessageError(f"a message of {len(data)} bytes; at most {max_bytes} are taken")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=True,
            max_str_len=max_bytes,
            max_bin_len=limits.MAX_TEXT,
            max_array_len=limits.MAX_ITEMS,
            max_map_len=limits.MAX_ITEMS,
            max_ext_len=0,
        )
    # msgpack documents ValueError and its subclasses; TypeError and RecursionError come from hash and nesting of keys.
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedMessageError(f"not msgpack: {type(error).__name__}") from error
    if type(value) is not tuple or len(value) < 2 or type(value[0]) is not str or type(value[1]) is not dict:
        raise MalformedMessageError("a message is the array [type, body]")
    reader = _DECODERS.get(value[0])
    if reader is None:
        raise MalformedMessageError(f"unknown message type {value[0]!r:.40}")
    return reader(value[1])


def _fail(name: str, expected: str, value: object) -> MalformedMessageError:
    return MalformedMessageError(f"{name} must be {expected}, not {type(value).__name__}")


def _int(body: _Body, name: str, *, default: int | None = None, low: int = 0, high: int = _MAX_U63) -> int:
    value = body.get(name, default)
    if type(value) is not int or not low <= value <= high:
        raise _fail(name, f"an integer from {low} to {high}", value)
    return value


def _text(body: _Body, name: str, *, default: str | None = None, most: int = limits.MAX_NAME) -> str:
    value = body.get(name, default)
    if type(value) is not str or len(value) > most:
        raise _fail(name, f"a text of at most {most} characters", value)
    return value


def _map(body: _Body, name: str, *, most: int = limits.MAX_ITEMS) -> _Body:
    value = body.get(name, {})
    if type(value) is not dict or len(value) > most:
        raise _fail(name, f"a map of at most {most} items", value)
    return cast("_Body", value)


def _items(body: _Body, name: str) -> tuple[Any, ...]:
    value = body.get(name, ())
    if type(value) is not tuple:
        raise _fail(name, "an array", value)
    return value


def _version(body: _Body) -> int:
    version = body.get("version")
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise UnknownVersionError(version)
    return version


def _read_identity(body: _Body) -> Identity:
    identity = _map(body, "identity")
    instance = identity.get("instance")
    if type(instance) is not bytes or len(instance) != 16:
        raise _fail("instance", "16 bytes", instance)
    service = _text(identity, "service")
    if not service:
        raise MalformedMessageError("service must not be empty")
    return Identity(
        instance=instance,
        pid=_int(identity, "pid", high=_MAX_U32),
        host=_text(identity, "host"),
        service=service,
        environment=_text(identity, "environment", default=""),
        release=_text(identity, "release", default=""),
        python=_text(identity, "python", default=""),
        loop=_text(identity, "loop", default=""),
        agent_version=_text(identity, "agent_version", default=""),
        started_at_ms=_int(identity, "started_at_ms", default=0),
    )


def _read_hello(body: _Body) -> Hello:
    version = _version(body)
    return Hello(identity=_read_identity(body), version=version, features=_read_features(body))


def _read_welcome(body: _Body) -> Welcome:
    version = _version(body)
    return Welcome(
        committed_sequence=_int(body, "committed_sequence"),
        collector=_text(body, "collector", default=""),
        version=version,
        features=_read_features(body),
    )


def _read_features(body: _Body) -> tuple[str, ...]:
    features = _items(body, "features")
    if len(features) > limits.MAX_FEATURES or not all(type(name) is str for name in features):
        raise _fail("features", f"an array of at most {limits.MAX_FEATURES} texts", features)
    return features


def _read_refused(body: _Body) -> Refused:
    return Refused(reason=_text(body, "reason"), message=_text(body, "message", default="", most=limits.MAX_TEXT))


def _read_ack(body: _Body) -> Ack:
    return Ack(sequence=_int(body, "sequence"))


def _read_farewell(body: _Body) -> Farewell:
    return Farewell(last_sequence=_int(body, "last_sequence"))


def _flag(body: _Body, name: str, *, default: bool | None = None) -> bool:
    value = body.get(name, default)
    if type(value) is not bool:
        raise _fail(name, "a boolean", value)
    return value


def _read_capture_request(item: object) -> CaptureRequest:
    if type(item) is not tuple or len(item) < 2 or not all(type(part) is int for part in item[:2]):
        raise _fail("capture request", "the array [request_id, place_id]", item)
    request, place = item[:2]
    if not 0 < request <= _MAX_U64 or not 0 <= place <= _MAX_U64:
        raise MalformedMessageError("capture request out of bounds")
    return CaptureRequest(request, place)


def _read_control(body: _Body) -> Control:
    """What an agent is asked for; whether it does it is the agent's own decision (see aiocop.remote_control)."""
    captures = _items(body, "captures")
    if len(captures) > limits.MAX_CAPTURE_REQUESTS:
        raise _fail("captures", f"an array of at most {limits.MAX_CAPTURE_REQUESTS}", captures)
    return Control(
        revision=_int(body, "revision"),
        active=None if body.get("active") is None else _flag(body, "active"),
        threshold_us=None if body.get("threshold_us") is None else _int(body, "threshold_us"),
        trace_depth=None if body.get("trace_depth") is None else _int(body, "trace_depth"),
        captures=tuple([_read_capture_request(item) for item in captures]),
    )


def _read_controlled(body: _Body) -> Controlled:
    return Controlled(
        revision=_int(body, "revision"),
        active=_flag(body, "active"),
        threshold_us=_int(body, "threshold_us"),
        trace_depth=_int(body, "trace_depth"),
        refused=_text(body, "refused", default="", most=limits.MAX_TEXT),
    )


def _read_frames(value: object) -> tuple[Frame, ...]:
    if type(value) is not tuple or len(value) > limits.MAX_FRAMES:
        raise _fail("frames", f"an array of at most {limits.MAX_FRAMES}", value)
    frames = []
    for item in value:
        if type(item) is not tuple or len(item) < 3:
            raise _fail("frame", "the array [path, line, function, kind]", item)
        path, line, function = item[:3]
        kind = item[3] if len(item) > 3 else 0
        if (
            type(path) is not str
            or type(line) is not int
            or type(function) is not str
            or type(kind) is not int
            or not path
            or len(path) > limits.MAX_TEXT
            or len(function) > limits.MAX_TEXT
            or not 0 <= line <= _MAX_U32
            or not 0 <= kind <= 2
        ):
            raise MalformedMessageError("frame must be [path, line, function, kind]")
        frames.append(Frame(path, line, function, kind))
    return tuple(frames)


def _read_site(item: object) -> SiteDefinition:
    if type(item) is not tuple or len(item) < 7:
        raise _fail("site", "an array of at least 7", item)
    site, operation, site_fingerprint, cause, reason, weight, frames = item[:7]
    call_site = item[7] if len(item) > 7 else 0
    advice = item[8] if len(item) > 8 else ""
    if (
        type(site) is not int
        or type(site_fingerprint) is not int
        or type(weight) is not int
        or type(call_site) is not int
        or type(operation) is not str
        or type(advice) is not str
        or not 0 <= site <= _MAX_U64
        or not 0 <= site_fingerprint <= _MAX_U64
        or not 0 <= weight <= 1000
        or not 0 < len(operation) <= limits.MAX_NAME
        or len(advice) > limits.MAX_TEXT
        or cause not in CAUSES
        or reason not in REASONS
    ):
        raise MalformedMessageError("site definition out of bounds")
    read_frames = _read_frames(frames)
    if not 0 <= call_site < len(read_frames):
        raise MalformedMessageError("call_site must point into frames, and there must be one")
    return SiteDefinition(site, operation, site_fingerprint, cause, reason, weight, read_frames, call_site, advice)


def _read_trace(item: object) -> TraceDefinition:
    if type(item) is not tuple or len(item) < 3:
        raise _fail("trace", "the array [trace_id, site_id, frames]", item)
    trace, site = item[:2]
    if type(trace) is not int or type(site) is not int or not 0 <= trace <= _MAX_U64 or not 0 <= site <= _MAX_U64:
        raise MalformedMessageError("trace definition out of bounds")
    return TraceDefinition(trace, site, _read_frames(item[2]))


def _read_define(body: _Body) -> Define:
    return Define(
        sites=tuple([_read_site(item) for item in _items(body, "sites")]),
        traces=tuple([_read_trace(item) for item in _items(body, "traces")]),
    )


def _read_deltas(items: tuple[Any, ...]) -> tuple[SiteDelta, ...]:
    """The deltas of a report. A fleet sends tens of thousands a second: of many, as long as all are as they should be,
    nothing is done in Python once per delta."""
    if len(items) > _FEW_DELTAS and _are_deltas(items):
        return tuple(map(_checked_delta, items))
    return tuple([_read_delta(item) for item in items])


_FEW_DELTAS: Final = 4
"""So many are sooner checked one after the other (measured)."""

_checked_delta: Final = cast("Callable[[tuple[Any, ...]], SiteDelta]", partial(tuple.__new__, SiteDelta))
"""Of a tuple that is known to be right; `SiteDelta._make` would look at its length again, in Python."""


def _are_deltas(items: tuple[Any, ...]) -> bool:
    """Whether `_read_delta` would take each of the items, and each has all fields and no more. Checked by column."""
    if set(map(type, items)) != {tuple} or set(map(len, items)) != {len(SiteDelta._fields)}:
        return False
    sites, counts, slow_counts, blocked_us, max_us, bins = zip(*items, strict=True)
    if countOf(map(type, chain(sites, counts, slow_counts, blocked_us, max_us)), int) != 5 * len(items):
        return False
    try:  # An array takes what fits its items, and nothing below zero: found sooner than a column's least and most.
        for column, typecode in (
            (sites, _U64),
            (counts, _U32),
            (slow_counts, _U32),
            (blocked_us, _U64),
            (max_us, _U64),
        ):
            array(typecode, column)
    except OverflowError:
        return False
    return (
        max(blocked_us) <= _MAX_MICROSECONDS
        and max(max_us) <= _MAX_MICROSECONDS
        and set(map(type, bins)) == {tuple}
        and set(map(len, bins)) <= _BINS_LENGTHS
        and _are_pairs(tuple(chain.from_iterable(bins)))
    )


def _read_delta(item: object) -> SiteDelta:
    """One delta of any kind: it may be of an older or a newer peer, or wrong."""
    if type(item) is not tuple or len(item) < 5:
        raise _fail("delta", "an array of at least 5", item)
    site, count, slow_count, blocked_us, max_us = item[:5]
    bins = item[5] if len(item) > 5 else ()
    if (
        type(site) is not int
        or type(count) is not int
        or type(slow_count) is not int
        or type(blocked_us) is not int
        or type(max_us) is not int
        or not 0 <= site <= _MAX_U64
        or not 0 <= count <= _MAX_U32
        or not 0 <= slow_count <= _MAX_U32
        or not 0 <= blocked_us <= _MAX_MICROSECONDS
        or not 0 <= max_us <= _MAX_MICROSECONDS
    ):
        raise MalformedMessageError("delta out of bounds")
    if not _are_bins(bins):
        raise MalformedMessageError("histogram bins must be pairs of bin and count")
    return SiteDelta(site, count, slow_count, blocked_us, max_us, bins)


def _are_bins(bins: object) -> bool:
    """Whether it is a sparse histogram."""
    return type(bins) is tuple and len(bins) in _BINS_LENGTHS and _are_pairs(bins)


def _are_pairs(numbers: tuple[Any, ...]) -> bool:
    """Whether so many numbers, an even one, are bin, count, bin, count, …"""
    if countOf(map(type, numbers), int) != len(numbers):
        return False
    counts = set(numbers[1::2])
    return not counts or (_BINS.issuperset(numbers[::2]) and min(counts) > 0 and max(counts) <= _MAX_U32)


def _read_loop(item: object) -> LoopDelta:
    if type(item) is not tuple or len(item) < 5:
        raise _fail("loop", "an array of at least 5", item)
    number, thread_name, loop = item[:3]
    amounts = item[3:11]
    bins = item[11] if len(item) > 11 else ()
    if (
        type(number) is not int
        or not 0 <= number <= _MAX_U32
        or not all(type(name) is str and len(name) <= limits.MAX_NAME for name in (thread_name, loop))
        or not all(type(amount) is int and 0 <= amount <= _MAX_MICROSECONDS for amount in amounts)
        or not _are_bins(bins)
    ):
        raise MalformedMessageError("loop out of bounds")
    missing = (0,) * (8 - len(amounts))
    return LoopDelta._make((number, thread_name, loop, *amounts, *missing, bins))


def _read_loops(body: _Body) -> tuple[LoopDelta, ...]:
    items = _items(body, "loops")
    if len(items) > limits.MAX_LOOPS:
        raise _fail("loops", f"an array of at most {limits.MAX_LOOPS}", items)
    return tuple([_read_loop(item) for item in items])


def _read_slow_site(item: object) -> SlowSite:
    if type(item) is not tuple or len(item) < 3 or not all(type(part) is int for part in item[:4]):
        raise _fail("slow event's site", "the array [site_id, count, blocked_us, trace_id, arguments]", item)
    site, count, blocked_us = item[:3]
    trace = item[3] if len(item) > 3 else 0
    arguments = _read_values({"arguments": item[4]}, "arguments", limits.MAX_ARGUMENTS) if len(item) > 4 else {}
    if not 0 <= site <= _MAX_U64 or not 0 <= trace <= _MAX_U64 or count < 0 or blocked_us < 0:
        raise MalformedMessageError("slow event's site out of bounds")
    return SlowSite(site, min(count, _MAX_U32), min(blocked_us, _MAX_U63), trace, arguments)


def _read_values(body: _Body, field: str, most: int) -> dict[str, ContextValue]:
    """A map of names to plain values: context or arguments."""
    values: dict[str, ContextValue] = {}
    for key, value in _map(body, field, most=most).items():
        if type(key) is not str or len(key) > limits.MAX_NAME:
            raise _fail(f"key in {field}", f"a text of at most {limits.MAX_NAME} characters", key)
        if type(value) is str:
            if len(value) > limits.MAX_TEXT:
                raise _fail(f"value in {field}", f"at most {limits.MAX_TEXT} characters", value)
        elif type(value) is int:
            if not -_MAX_CONTEXT_INT <= value <= _MAX_CONTEXT_INT:
                raise _fail(f"value in {field}", "an integer of at most 53 bits", value)
        elif type(value) is float:
            if value - value != 0.0:
                raise _fail(f"value in {field}", "a finite number", value)
        elif value is not None and type(value) is not bool:
            raise _fail(f"value in {field}", "a text, number, bool or nil", value)
        values[key] = value
    return values


def _read_moment(item: object, traces: int) -> CapturedMoment:
    if type(item) is not tuple or len(item) < 4 or not all(type(part) is int for part in item[:4]):
        raise _fail("captured moment", "the array [at_us, blocked_us, site_id, trace]", item)
    at_us, blocked_us, site, trace = item[:4]
    if (
        not 0 <= at_us <= _MAX_U63
        or not -1 <= blocked_us <= _MAX_U63
        or not 0 <= site <= _MAX_U64
        or not -1 <= trace < traces
    ):
        raise MalformedMessageError("captured moment out of bounds")
    return CapturedMoment(at_us, blocked_us, site, trace)


def _read_captured_trace(item: object) -> tuple[Frame, ...]:
    if type(item) is not tuple or not item:
        raise _fail("captured trace", "the array [frames]", item)
    return _read_frames(item[0])


def _read_capture(body: _Body) -> Capture | None:
    if "capture" not in body:
        return None
    capture = _map(body, "capture")
    moments, traces = _items(capture, "moments"), _items(capture, "traces")
    if len(moments) > limits.MAX_CAPTURED_MOMENTS or len(traces) > limits.MAX_CAPTURED_TRACES:
        raise MalformedMessageError("a capture with too many moments or traces")
    return Capture(
        request_id=_int(capture, "request_id", low=1, high=_MAX_U64),
        moments=tuple([_read_moment(item, len(traces)) for item in moments]),
        traces=tuple([_read_captured_trace(item) for item in traces]),
    )


def _read_slow_event(item: object) -> SlowEvent:
    if type(item) is not dict:
        raise _fail("slow event", "a map", item)
    cause = _text(item, "cause")
    if cause not in CAUSES:
        raise MalformedMessageError("slow event with an unknown cause")
    return SlowEvent(
        started_at_ms=_int(item, "started_at_ms"),
        elapsed_us=_int(item, "elapsed_us"),
        threshold_us=_int(item, "threshold_us"),
        cause=cause,
        severity_score=_int(item, "severity_score", default=0, high=_MAX_U32),
        sites=tuple([_read_slow_site(site) for site in _items(item, "sites")]),
        task_name=_text(item, "task_name", default=""),
        thread_name=_text(item, "thread_name", default=""),
        loop=_text(item, "loop", default=""),
        cpu_us=_int(item, "cpu_us", default=-1, low=-1),
        gc_us=_int(item, "gc_us", default=0),
        context=_read_values(item, "context", limits.MAX_CONTEXT_ITEMS),
        capture=_read_capture(item),
        waiting=_int(item, "waiting", default=-1, low=-1),
    )


def _read_dropped(body: _Body) -> dict[str, int]:
    dropped: dict[str, int] = {}
    for reason, count in _map(body, "dropped", most=64).items():
        if type(reason) is not str or len(reason) > limits.MAX_NAME or type(count) is not int or count < 0:
            raise MalformedMessageError("dropped must be counts by reason")
        dropped[reason] = min(count, _MAX_U63)
    return dropped


def _read_overhead(health: _Body) -> Overhead | None:
    if "overhead" not in health:
        return None
    overhead = _map(health, "overhead")
    return Overhead(
        level=_int(overhead, "level", default=0, high=_MAX_U32),
        share_ppm=_int(overhead, "share_ppm", default=0, high=_MAX_U32),
        budget_ppm=_int(overhead, "budget_ppm", default=0, high=_MAX_U32),
        since_ms=_int(overhead, "since_ms", default=0),
        reductions=_int(overhead, "reductions", default=0),
    )


def _read_health(body: _Body) -> Health:
    health = _map(body, "health")
    return Health(
        recorded=_int(health, "recorded", default=0),
        slices=_int(health, "slices", default=0),
        agent_cpu_us=_int(health, "agent_cpu_us", default=0),
        overhead=_read_overhead(health),
    )


def _read_stall(item: object) -> Stall:
    if type(item) is not dict:
        raise _fail("stall", "a map", item)
    state = _text(item, "state", default=FROZEN)
    counted = item.get("counted", False)
    if state not in STALL_STATES or type(counted) is not bool:
        raise MalformedMessageError("stall with an unknown state, or `counted` that is no boolean")
    return Stall(
        slice_ns=_int(item, "slice_ns", low=1),
        started_at_ms=_int(item, "started_at_ms"),
        blocked_us=_int(item, "blocked_us", high=_MAX_MICROSECONDS),
        state=state,
        site_id=_int(item, "site_id", default=0, high=_MAX_U64),
        frames=_read_frames(item.get("frames", ())),
        counted=counted,
        thread_name=_text(item, "thread_name", default=""),
    )


def _read_report(body: _Body) -> Report:
    return Report(
        sequence=_int(body, "sequence", low=1),
        started_at_ms=_int(body, "started_at_ms"),
        span_ms=_int(body, "span_ms", high=_MAX_U32),
        deltas=_read_deltas(_items(body, "deltas")),
        slow_events=tuple([_read_slow_event(item) for item in _items(body, "slow_events")]),
        dropped=_read_dropped(body),
        health=_read_health(body),
        stalls=tuple([_read_stall(item) for item in _items(body, "stalls")]),
        loops=_read_loops(body),
    )


def _read_datagram(body: _Body) -> Datagram:
    version = _version(body)
    return Datagram(
        identity=_read_identity(body),
        report=_read_report(_map(body, "report")) if "report" in body else None,
        define=_read_define(_map(body, "define")),
        farewell=_read_farewell(_map(body, "farewell")) if "farewell" in body else None,
        version=version,
        stall=_read_stall(body["stall"]) if "stall" in body else None,
    )


_DECODERS: Final[dict[str, Callable[[_Body], Message]]] = {
    "hello": _read_hello,
    "welcome": _read_welcome,
    "refused": _read_refused,
    "ack": _read_ack,
    "define": _read_define,
    "report": _read_report,
    "farewell": _read_farewell,
    "datagram": _read_datagram,
    "stall": _read_stall,
    "control": _read_control,
    "controlled": _read_controlled,
}
