"""Messages to msgpack. Shapes and rules are in messages.py; decode.py reads what this writes.

A message is the array `[type, body]`: `type` a text (`"report"`), `body` a map with text keys. Items that repeat
(deltas, definitions, frames) are arrays in the order of the fields of their class: keys cost nothing per item.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import msgpack

from aiocop_wire.messages import (
    Ack,
    Capture,
    Control,
    Controlled,
    Datagram,
    Define,
    Farewell,
    Frame,
    Health,
    Hello,
    Identity,
    Message,
    Refused,
    Report,
    SlowEvent,
    Stall,
    Welcome,
)


def encode(message: Message) -> bytes:
    """The msgpack bytes of a message, without a length prefix.

    A text that is not valid Unicode (a file name's undecodable byte is a lone surrogate) has `?` in those places.
    """
    kind, pack_body = _ENCODERS[type(message)]
    body = pack_body(message)
    try:
        return cast("bytes", msgpack.packb([kind, body], use_bin_type=True))
    except UnicodeEncodeError:  # naming an error handler costs every text of every message: only where it is needed
        return cast("bytes", msgpack.packb([kind, body], use_bin_type=True, unicode_errors="replace"))


def _identity_body(identity: Identity) -> dict[str, Any]:
    return {
        "instance": identity.instance,
        "pid": identity.pid,
        "host": identity.host,
        "service": identity.service,
        "environment": identity.environment,
        "release": identity.release,
        "python": identity.python,
        "loop": identity.loop,
        "agent_version": identity.agent_version,
        "started_at_ms": identity.started_at_ms,
    }


def _frame_items(frames: tuple[Frame, ...]) -> list[tuple[str, int, str, int]]:
    return [(frame.path, frame.line, frame.function, frame.kind) for frame in frames]


def _define_body(define: Define) -> dict[str, Any]:
    return {
        "sites": [
            (
                site.site_id,
                site.operation,
                site.fingerprint,
                site.cause,
                site.reason,
                site.weight,
                _frame_items(site.frames),
                site.call_site,
                site.advice,
            )
            for site in define.sites
        ],
        "traces": [(trace.trace_id, trace.site_id, _frame_items(trace.frames)) for trace in define.traces],
    }


def _slow_event_body(event: SlowEvent) -> dict[str, Any]:
    body = {
        "started_at_ms": event.started_at_ms,
        "elapsed_us": event.elapsed_us,
        "threshold_us": event.threshold_us,
        "cause": event.cause,
        "severity_score": event.severity_score,
        "sites": [
            (site.site_id, site.count, site.blocked_us, site.trace_id, dict(site.arguments))
            if site.arguments
            else (site.site_id, site.count, site.blocked_us, site.trace_id)
            for site in event.sites
        ],
        "task_name": event.task_name,
        "thread_name": event.thread_name,
        "loop": event.loop,
        "cpu_us": event.cpu_us,
        "gc_us": event.gc_us,
        "context": dict(event.context),
    }
    if event.waiting >= 0:
        body["waiting"] = event.waiting
    if event.capture is not None:
        body["capture"] = _capture_body(event.capture)
    return body


def _capture_body(capture: Capture) -> dict[str, Any]:
    return {
        "request_id": capture.request_id,
        "moments": capture.moments,
        "traces": [(_frame_items(frames),) for frames in capture.traces],
    }


def _stall_body(stall: Stall) -> dict[str, Any]:
    return {
        "slice_ns": stall.slice_ns,
        "started_at_ms": stall.started_at_ms,
        "blocked_us": stall.blocked_us,
        "state": stall.state,
        "site_id": stall.site_id,
        "frames": _frame_items(stall.frames),
        "counted": stall.counted,
        "thread_name": stall.thread_name,
    }


def _hello_body(hello: Hello) -> dict[str, Any]:
    body: dict[str, Any] = {"version": hello.version, "identity": _identity_body(hello.identity)}
    if hello.features:
        body["features"] = list(hello.features)
    return body


def _control_body(control: Control) -> dict[str, Any]:
    body: dict[str, Any] = {"revision": control.revision}
    for name in ("active", "threshold_us", "trace_depth"):
        value = getattr(control, name)
        if value is not None:
            body[name] = value
    if control.captures:
        body["captures"] = control.captures
    return body


def _controlled_body(controlled: Controlled) -> dict[str, Any]:
    body = controlled._asdict()
    if not controlled.refused:
        del body["refused"]
    return body


def _welcome_body(welcome: Welcome) -> dict[str, Any]:
    body: dict[str, Any] = {
        "version": welcome.version,
        "committed_sequence": welcome.committed_sequence,
        "collector": welcome.collector,
    }
    if welcome.features:
        body["features"] = list(welcome.features)
    return body


def _health_body(health: Health) -> dict[str, Any]:
    body: dict[str, Any] = {
        "recorded": health.recorded,
        "slices": health.slices,
        "agent_cpu_us": health.agent_cpu_us,
    }
    if health.overhead is not None:
        body["overhead"] = health.overhead._asdict()
    return body


def _report_body(report: Report) -> dict[str, Any]:
    body = {
        "sequence": report.sequence,
        "started_at_ms": report.started_at_ms,
        "span_ms": report.span_ms,
        "deltas": report.deltas,  # named tuples are packed as the arrays they are: there may be thousands
        "slow_events": [_slow_event_body(event) for event in report.slow_events],
        "dropped": dict(report.dropped),
        "health": _health_body(report.health),
    }
    if report.stalls:
        body["stalls"] = [_stall_body(stall) for stall in report.stalls]
    if report.loops:
        body["loops"] = report.loops  # named tuples, as above
    return body


def _datagram_body(datagram: Datagram) -> dict[str, Any]:
    body: dict[str, Any] = {"version": datagram.version, "identity": _identity_body(datagram.identity)}
    if datagram.define.sites or datagram.define.traces:
        body["define"] = _define_body(datagram.define)
    if datagram.report is not None:
        body["report"] = _report_body(datagram.report)
    if datagram.farewell is not None:
        body["farewell"] = {"last_sequence": datagram.farewell.last_sequence}
    if datagram.stall is not None:
        body["stall"] = _stall_body(datagram.stall)
    return body


_ENCODERS: Final[dict[type, tuple[str, Callable[[Any], dict[str, Any]]]]] = {
    Hello: ("hello", _hello_body),
    Welcome: ("welcome", _welcome_body),
    Refused: ("refused", lambda m: {"reason": m.reason, "message": m.message}),
    Ack: ("ack", lambda m: {"sequence": m.sequence}),
    Define: ("define", _define_body),
    Report: ("report", _report_body),
    Farewell: ("farewell", lambda m: {"last_sequence": m.last_sequence}),
    Datagram: ("datagram", _datagram_body),
    Stall: ("stall", _stall_body),
    Control: ("control", _control_body),
    Controlled: ("controlled", _controlled_body),
}
