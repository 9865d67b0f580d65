"""One message of each kind with every field set, and what its golden file is called.

The files in golden/ are version 1 of the protocol, for ever: a change of the code must go on reading and writing them.
"""

from aiocop_wire import (
    Ack,
    Capture,
    CapturedMoment,
    CaptureRequest,
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

_IDENTITY = Identity(
    instance=bytes(range(16)),
    pid=4711,
    host="web-1",
    service="shop",
    environment="prod",
    release="1.4.0",
    python="3.12.1",
    loop="asyncio,uvloop",
    agent_version="0.1.0",
    started_at_ms=1_700_000_000_000,
)
_FRAMES = (
    Frame("socket.py", 836, "create_connection", 2),
    Frame("requests/sessions.py", 500, "Session.request", 1),
    Frame("shop/bestellungen_ä.py", 42, "Orders.create", 0),
)
_DEFINE = Define(
    sites=(
        SiteDefinition(
            site_id=2**64 - 1,
            operation="socket.socket.connect",
            fingerprint=2**63,
            cause="io",
            reason="io_blocking",
            weight=50,
            frames=_FRAMES,
            call_site=2,
            advice="Use httpx.AsyncClient, or asyncio.to_thread().",
        ),
        SiteDefinition(7, "cpu", 8, "cpu", "cpu_blocking", 0, _FRAMES[2:]),
    ),
    traces=(TraceDefinition(9, 7, (*_FRAMES, Frame("shop/app.py", 10, "<lambda>", 0))),),
)
_REPORT = Report(
    sequence=3,
    started_at_ms=1_700_000_040_000,
    span_ms=1000,
    deltas=(
        SiteDelta(2**64 - 1, count=812, slow_count=790, blocked_us=58_112_700, max_us=912_000, bins=(4, 22, 26, 790)),
        SiteDelta(7, count=1, slow_count=1, blocked_us=31_000, max_us=31_000, bins=()),
    ),
    slow_events=(
        SlowEvent(
            started_at_ms=1_700_000_040_250,
            elapsed_us=45_000,
            threshold_us=30_000,
            cause="io",
            severity_score=50,
            sites=(SlowSite(2**64 - 1, 1, 44_000, 9), SlowSite(7, 1, 1_000)),
            task_name="Task-7",
            thread_name="MainThread",
            loop="uvloop",
            cpu_us=900,
            gc_us=12,
            context={"route": "/orders", "user": 7, "ratio": 0.5, "cached": False, "trace": None},
        ),
    ),
    dropped={"queue_full_events": 12},
    health=Health(recorded=813, slices=100_000, agent_cpu_us=5_000),
)

_STALL = Stall(
    slice_ns=123_456_789_012_345,
    started_at_ms=1_700_000_040_250,
    blocked_us=2_000_417,
    state="frozen",
    site_id=2**64 - 1,
    frames=_FRAMES,
    counted=True,
    thread_name="MainThread",
)
_CAPTURE = Capture(
    request_id=2**64 - 2,
    moments=(CapturedMoment(120, 44_000, 2**64 - 1, 0), CapturedMoment(15_000, -1, 0, -1)),
    traces=(_FRAMES,),
)

GOLDEN: dict[str, Message] = {
    "v1-hello": Hello(_IDENTITY),
    "v1-welcome": Welcome(committed_sequence=2, collector="0.1.0"),
    "v1-refused": Refused(reason="unknown_version", message="upgrade the agent"),
    "v1-ack": Ack(sequence=3),
    "v1-define": _DEFINE,
    "v1-report": _REPORT,
    "v1-farewell": Farewell(last_sequence=3),
    "v1-datagram": Datagram(identity=_IDENTITY, report=_REPORT, define=_DEFINE),
    "v1-welcome-features": Welcome(committed_sequence=2, collector="0.1.0", features=("stalls",)),
    "v1-stall": _STALL,
    "v1-hello-features": Hello(_IDENTITY, features=("control",)),
    "v1-control": Control(
        revision=42,
        active=False,
        threshold_us=5_000,
        trace_depth=64,
        captures=(CaptureRequest(2**64 - 2, 2**63),),
    ),
    "v1-control-nothing": Control(revision=43),
    "v1-controlled": Controlled(42, active=True, threshold_us=30_000, trace_depth=32, refused="threshold_us 1"),
    "v1-report-capture": _REPORT._replace(slow_events=(_REPORT.slow_events[0]._replace(capture=_CAPTURE),)),
    "v1-report-arguments": _REPORT._replace(
        slow_events=(
            _REPORT.slow_events[0]._replace(
                sites=(
                    SlowSite(2**64 - 1, 1, 44_000, 9, {"0": "socket", "1": "('10.0.0.7', 5432)", "timeout": 2.5}),
                    SlowSite(7, 1, 1_000),
                )
            ),
        )
    ),
    "v1-report-loops": _REPORT._replace(
        loops=(
            LoopDelta(1, "MainThread", "asyncio", 1_000_000, 45_000, 2_000, 1, 12, 12, 61_000, 44_100, (0, 90, 26, 2)),
            LoopDelta(2, "worker", "uvloop", 1_000_000, 0),
        ),
        slow_events=(_REPORT.slow_events[0]._replace(waiting=12),),
    ),
    "v1-report-stalls": _REPORT._replace(stalls=(_STALL._replace(state="ended"),)),
    "v1-datagram-stall": Datagram(identity=_IDENTITY, define=_DEFINE, stall=_STALL),
    "v1-report-overhead": _REPORT._replace(
        health=_REPORT.health._replace(
            overhead=Overhead(
                level=2, share_ppm=14_500, budget_ppm=10_000, since_ms=1_700_000_035_000, reductions=2**32
            )
        )
    ),
    "v1-datagram-farewell": Datagram(identity=_IDENTITY, farewell=Farewell(last_sequence=3)),
}
