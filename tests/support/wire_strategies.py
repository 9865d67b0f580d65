"""Hypothesis strategies for every message of the wire, each within the limits that a receiver accepts."""

from hypothesis import strategies as st

from aiocop_wire import (
    BIN_COUNT,
    CAUSES,
    PROTOCOL_VERSION,
    REASONS,
    STALL_STATES,
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
from aiocop_wire.limits import MAX_NAME, MAX_TEXT

_characters = st.characters(exclude_categories=["Cs"])
names = st.text(_characters, max_size=12) | st.just("n" * MAX_NAME)
filled_names = st.text(_characters, min_size=1, max_size=12) | st.just("ä" * MAX_NAME)
texts = st.text(_characters, max_size=20) | st.just("t" * MAX_TEXT)
filled_texts = st.text(_characters, min_size=1, max_size=20) | st.just("ü" * MAX_TEXT)
u32 = st.integers(0, 2**32 - 1)
u63 = st.integers(0, 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
micros = st.integers(0, 2**53 - 1)
causes = st.sampled_from(CAUSES)

identities = st.builds(
    Identity,
    instance=st.binary(min_size=16, max_size=16),
    pid=u32,
    host=names,
    service=filled_names,
    environment=names,
    release=names,
    python=names,
    loop=names,
    agent_version=names,
    started_at_ms=u63,
)
frames = st.lists(st.builds(Frame, filled_texts, u32, texts, st.integers(0, 2)), min_size=1, max_size=4).map(tuple)


@st.composite
def site_definitions(draw: st.DrawFn) -> SiteDefinition:
    site_frames = draw(frames)
    return SiteDefinition(
        site_id=draw(u64),
        operation=draw(filled_names),
        fingerprint=draw(u64),
        cause=draw(causes),
        reason=draw(st.sampled_from(REASONS)),
        weight=draw(st.integers(0, 1000)),
        frames=site_frames,
        call_site=draw(st.integers(0, len(site_frames) - 1)),
        advice=draw(texts),
    )


defines = st.builds(
    Define,
    sites=st.lists(site_definitions(), max_size=3).map(tuple),
    traces=st.lists(st.builds(TraceDefinition, u64, u64, frames), max_size=3).map(tuple),
)
sparse_bins = st.dictionaries(st.integers(0, BIN_COUNT - 1), st.integers(1, 2**32 - 1), max_size=5).map(
    lambda bins: tuple(part for pair in sorted(bins.items()) for part in pair)
)
deltas = st.builds(
    SiteDelta, site_id=u64, count=u32, slow_count=u32, blocked_us=micros, max_us=micros, bins=sparse_bins
)
context_values = (
    texts | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
)
moments = st.builds(CapturedMoment, u63, st.integers(-1, 2**63 - 1), u64, st.just(-1))
captures = st.builds(
    Capture,
    request_id=st.integers(1, 2**64 - 1),
    moments=st.lists(moments, max_size=3).map(tuple),
    traces=st.lists(frames, max_size=2).map(tuple),
)
loops = st.builds(LoopDelta, u32, names, names, *[micros] * 8, sparse_bins)
slow_events = st.builds(
    SlowEvent,
    started_at_ms=u63,
    elapsed_us=u63,
    threshold_us=u63,
    cause=causes,
    severity_score=u32,
    sites=st.lists(
        st.builds(SlowSite, u64, u32, u63, u64, st.dictionaries(names, context_values, max_size=3)), max_size=3
    ).map(tuple),
    task_name=names,
    thread_name=names,
    loop=names,
    cpu_us=st.integers(-1, 2**63 - 1),
    gc_us=u63,
    context=st.dictionaries(names, context_values, max_size=4),
    capture=st.none() | captures,
    waiting=st.integers(-1, 2**63 - 1),
)
stalls = st.builds(
    Stall,
    slice_ns=st.integers(1, 2**63 - 1),
    started_at_ms=u63,
    blocked_us=micros,
    state=st.sampled_from(STALL_STATES),
    site_id=u64,
    frames=st.just(()) | frames,
    counted=st.booleans(),
    thread_name=names,
)
overheads = st.builds(Overhead, level=u32, share_ppm=u32, budget_ppm=u32, since_ms=u63, reductions=u63)
reports = st.builds(
    Report,
    sequence=st.integers(1, 2**63 - 1),
    started_at_ms=u63,
    span_ms=u32,
    deltas=st.lists(deltas, max_size=4).map(tuple),
    slow_events=st.lists(slow_events, max_size=2).map(tuple),
    dropped=st.dictionaries(names, u63, max_size=4),
    health=st.builds(Health, recorded=u63, slices=u63, agent_cpu_us=u63, overhead=st.none() | overheads),
    stalls=st.lists(stalls, max_size=2).map(tuple),
    loops=st.lists(loops, max_size=3).map(tuple),
)
farewells = st.builds(Farewell, last_sequence=u63)
versions = st.just(PROTOCOL_VERSION)
messages = st.one_of(
    st.builds(Hello, identity=identities, version=versions, features=st.lists(texts, max_size=3).map(tuple)),
    st.builds(
        Control,
        revision=u63,
        active=st.none() | st.booleans(),
        threshold_us=st.none() | u63,
        trace_depth=st.none() | u63,
        captures=st.lists(st.builds(CaptureRequest, st.integers(1, 2**64 - 1), u64), max_size=3).map(tuple),
    ),
    st.builds(Controlled, u63, st.booleans(), u63, u63, texts),
    st.builds(
        Welcome,
        committed_sequence=u63,
        collector=names,
        version=versions,
        features=st.lists(texts, max_size=3).map(tuple),
    ),
    st.builds(Refused, reason=names, message=texts),
    st.builds(Ack, sequence=u63),
    defines,
    reports,
    stalls,
    farewells,
    st.builds(
        Datagram,
        identity=identities,
        report=st.none() | reports,
        define=defines,
        farewell=st.none() | farewells,
        version=versions,
        stall=st.none() | stalls,
    ),
)
