"""Cutting windows into datagrams: everything fits, and no count is lost."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiocop.shipping.datagrams import Part, cut, smaller
from aiocop_wire import (
    Datagram,
    Define,
    Frame,
    Identity,
    LoopDelta,
    Report,
    SiteDefinition,
    SiteDelta,
    SlowEvent,
    SlowSite,
    TraceDefinition,
    decode,
    encode,
)
from aiocop_wire.limits import NETWORK_DATAGRAM_BYTES

_IDENTITY = Identity(b"0123456789abcdef", 1, "host", "shop", python="3.12.1", agent_version="0.1.0")

_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).map(lambda text: text * 40)
_frames = st.lists(
    st.builds(Frame, _texts, st.integers(1, 9999), _texts, st.integers(0, 2)), min_size=1, max_size=12
).map(lambda frames: tuple(frames) * 6)


@st.composite
def _sites(draw) -> SiteDefinition:
    frames = draw(_frames)
    return SiteDefinition(
        site_id=draw(st.integers(0, 50)),
        operation="open",
        fingerprint=draw(st.integers(0, 2**64 - 1)),
        cause="io",
        reason="io_blocking",
        weight=10,
        frames=frames,
        call_site=draw(st.integers(0, len(frames) - 1)),
        advice=draw(_texts),
    )


_deltas = st.builds(
    SiteDelta,
    site_id=st.integers(0, 50),
    count=st.integers(0, 2**32 - 1),
    slow_count=st.integers(0, 100),
    blocked_us=st.integers(0, 2**40),
    max_us=st.integers(0, 2**40),
    bins=st.lists(st.integers(1, 80), max_size=40).map(
        lambda counts: tuple(x for b, c in enumerate(counts) for x in (b, c))
    ),
)
_events = st.builds(
    SlowEvent,
    started_at_ms=st.integers(0, 2**40),
    elapsed_us=st.integers(0, 2**40),
    threshold_us=st.integers(0, 2**40),
    cause=st.just("io"),
    severity_score=st.integers(0, 1000),
    sites=st.lists(
        st.builds(
            SlowSite,
            st.integers(0, 50),
            st.just(1),
            st.just(1),
            st.integers(0, 50),
            st.dictionaries(_texts, _texts, max_size=2),
        ),
        max_size=40,
    ).map(tuple),
    context=st.dictionaries(_texts, _texts, max_size=3),
    cpu_us=st.integers(-5, 5),
    gc_us=st.integers(-5, 5),
    capture=st.none(),
    waiting=st.integers(-1, 2**31),
)


_loops = st.builds(
    LoopDelta,
    st.integers(1, 63),
    st.text(max_size=200),
    st.just("asyncio"),
    *[st.integers(0, 2**50)] * 8,
    st.lists(st.integers(1, 2**31), max_size=86).map(
        lambda counts: tuple(x for b, c in enumerate(counts) for x in (b, c))
    ),
)


def _data(part: Part) -> bytes:
    report = Report(2**40, 2**41, 60_000, part.deltas, part.events, loops=part.loops)
    return encode(Datagram(_IDENTITY, report, part.define))


def _fitted(part: Part) -> list[Part]:
    if len(_data(part)) <= NETWORK_DATAGRAM_BYTES:
        return [part]
    pieces = smaller(part)
    assert pieces, f"nothing fits: {part}"
    return [fitted for piece in pieces for fitted in _fitted(piece)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(_deltas, max_size=8).map(lambda deltas: deltas * 6),
    st.lists(_events, max_size=4),
    st.lists(_sites(), max_size=4),
    st.lists(st.builds(TraceDefinition, st.integers(1, 50), st.integers(0, 50), _frames), max_size=3),
    st.lists(_loops, max_size=5),
)
def test_everything_fits_and_nothing_that_counts_is_lost(deltas, events, sites, traces, loops):
    define = Define(tuple(sites), tuple(traces))
    parts = list(cut(deltas, events, define, loops, budget_bytes=NETWORK_DATAGRAM_BYTES))
    fitted = [piece for part in parts for piece in _fitted(part)]
    assert [delta for part in fitted for delta in part.deltas] == deltas
    assert sum(part.calls for part in fitted) == sum(delta.count for delta in deltas)
    assert [loop[3:] for part in fitted for loop in part.loops] == [loop[3:] for loop in loops]
    kept = [event for part in fitted for event in part.events]
    assert [event.elapsed_us for event in kept] == [event.elapsed_us for event in events]
    used = {delta.site_id for delta in deltas} | {site.site_id for event in events for site in event.sites}
    assert {site.site_id for part in fitted for site in part.sites} == used & {site.site_id for site in sites}
    for part in fitted:
        decoded = decode(_data(part))
        assert isinstance(decoded, Datagram)
        assert decoded.report is not None
        assert decoded.report.deltas == part.deltas


@settings(max_examples=60, deadline=None)
@given(_sites())
def test_a_site_that_is_cut_down_keeps_its_call_site(site):
    original = site.frames[site.call_site]
    (part,) = cut([SiteDelta(site.site_id, 1, 0, 0, 0)], [], Define((site,)), budget_bytes=10**6)
    for piece in _fitted(part):
        for definition in piece.sites:
            kept = definition.frames[definition.call_site]
            assert kept.line == original.line
            assert original.path.endswith(kept.path)
            assert original.function.endswith(kept.function)


def test_small_windows_are_one_datagram():
    deltas = [SiteDelta(number, 1, 0, 1000, 1000, (5, 1)) for number in range(20)]
    (part,) = cut(deltas, [], Define(), budget_bytes=NETWORK_DATAGRAM_BYTES)
    assert len(part.deltas) == 20
