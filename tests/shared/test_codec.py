"""Encoding and decoding: the same comes back, and bytes that are no message raise WireError and nothing else."""

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.shared.golden_messages import GOLDEN
from tests.support.wire_strategies import deltas, messages

from aiocop_wire import (
    BIN_COUNT,
    Ack,
    Control,
    Frame,
    Hello,
    Identity,
    LoopDelta,
    MalformedMessageError,
    Message,
    OversizedMessageError,
    Refused,
    SiteDelta,
    UnknownVersionError,
    WireError,
    decode,
    encode,
)
from aiocop_wire.limits import MAX_MESSAGE_BYTES

_REPORT = encode(GOLDEN["v1-report"])
_DATAGRAM = encode(GOLDEN["v1-datagram"])


def _decodes_or_is_refused(data: bytes) -> None:
    """Whatever the bytes are: a message that can be written and read again, or a WireError."""
    try:
        message = decode(data)
    except WireError:
        return
    _comes_back(message)


def _comes_back(message: Message) -> None:
    """Messages are named tuples, of which two kinds with the same values are equal: the type is part of it."""
    decoded = decode(encode(message))
    assert type(decoded) is type(message)
    assert decoded == message


@given(messages)
def test_what_is_encoded_decodes_to_the_same(message):
    _comes_back(message)


@given(messages, st.sampled_from([bytes, bytearray, memoryview]))
def test_any_kind_of_buffer_is_taken(message, kind):
    assert decode(kind(encode(message))) == message


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xc0")
@example(b"\xd6\xff\x00\x00\x00\x00")
@example(b"\xc7\x0c\xff" + bytes(12))
@example(b"\xd9\xff")
@example(b"\xa1\xff")
def test_random_bytes(data):
    _decodes_or_is_refused(data)


@settings(max_examples=300)
@given(st.data())
def test_flipped_bits(data):
    original = data.draw(st.sampled_from([_REPORT, _DATAGRAM, *(encode(message) for message in GOLDEN.values())]))
    damaged = bytearray(original)
    for position in data.draw(st.lists(st.integers(0, 8 * len(original) - 1), min_size=1, max_size=4)):
        damaged[position // 8] ^= 1 << position % 8
    _decodes_or_is_refused(bytes(damaged))


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation_and_every_byte_too_many_is_refused(name):
    data = encode(GOLDEN[name])
    for length in range(len(data)):
        with pytest.raises(MalformedMessageError):
            decode(data[:length])
    with pytest.raises(MalformedMessageError):
        decode(data + b"\xc0")


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=300)
@given(_values)
def test_any_msgpack_that_is_not_ours(value):
    _decodes_or_is_refused(msgpack.packb(value))


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            "hello",
            "welcome",
            "refused",
            "ack",
            "define",
            "report",
            "farewell",
            "datagram",
            "stall",
            "control",
            "controlled",
        ]
    ),
    _values,
)
def test_a_known_type_with_any_body(kind, body):
    _decodes_or_is_refused(msgpack.packb([kind, body]))


def _paths(value: object, path: tuple = ()) -> list[tuple]:
    """Where the parts of a body are."""
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _paths(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            found += _paths(inner, (*path, at))
    return found


def _replaced(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=400)
@given(st.sampled_from(sorted(GOLDEN)), st.data())
def test_a_valid_message_with_one_part_replaced_by_anything(name, data):
    value = msgpack.unpackb(encode(GOLDEN[name]))
    path = data.draw(st.sampled_from(_paths(value)))
    _decodes_or_is_refused(msgpack.packb(_replaced(value, path, data.draw(_values))))


@pytest.mark.parametrize("depth", [10, 500, 5_000, 500_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\x92\xa3ack"])
def test_deep_nesting_is_refused(depth, opening):
    with pytest.raises(WireError):
        decode(depth * opening + b"\xc0", max_bytes=1 << 24)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdb\xff\xff\xff\xff",  # a text of 4 GiB
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\xdd\xff\xff\xff\xff",  # an array of 4 G elements
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xc9\xff\xff\xff\xff\x01",  # an extension
        b"\x92\xa6report\x81\xa6deltas\xdd\x7f\xff\xff\xff",
    ],
)
def test_giant_lengths_are_refused_without_being_allocated(data):
    with pytest.raises(MalformedMessageError):
        decode(data)


def test_a_message_above_the_limit_is_refused_unread():
    with pytest.raises(OversizedMessageError):
        decode(bytes(MAX_MESSAGE_BYTES + 1))


@pytest.mark.parametrize("version", [0, 2, 99, -1, "1", None, 1.0, True])
@pytest.mark.parametrize("name", ["v1-hello", "v1-welcome", "v1-datagram"])
def test_another_version_is_refused_and_named(name, version):
    kind, body = msgpack.unpackb(encode(GOLDEN[name]))
    with pytest.raises(UnknownVersionError) as caught:
        decode(msgpack.packb([kind, body | {"version": version}]))
    assert caught.value.version == version


@pytest.mark.parametrize("name", GOLDEN)
def test_a_newer_peer_may_say_more(name):
    def with_more(value: object) -> object:
        """Another key in every map (but those whose keys are data), another element in every item of a list."""
        if isinstance(value, dict):
            more = {key: inner if key in ("context", "dropped") else with_more(inner) for key, inner in value.items()}
            return more | {"from_the_future": [1, {"a": b"b"}]}
        if isinstance(value, list):
            return [
                [*map(with_more, item), "from the future"] if isinstance(item, list) else with_more(item)
                for item in value
            ]
        return value

    kind, body = msgpack.unpackb(encode(GOLDEN[name]))
    # The bins of a delta are a list of pairs and not an item: they have no room for more.
    widened = with_more(body)
    for delta, original in zip(_deltas(widened), _deltas(body), strict=True):
        delta[5] = original[5]
    # Nor have arguments: a map whose keys are data, and which is missing where there are none.
    for site, original in zip(_slow_sites(widened), _slow_sites(body), strict=True):
        site[4:] = [original[4] if len(original) > 4 else {}, "from the future"]
    for loop, original in zip(widened.get("loops", ()), body.get("loops", ()), strict=True):
        loop[11] = original[11]
    assert decode(msgpack.packb([kind, widened, "from the future"])) == GOLDEN[name]


def _deltas(body: dict) -> list:
    return body.get("report", body).get("deltas", [])


def _slow_sites(body: dict) -> list:
    return [site for event in body.get("report", body).get("slow_events", []) for site in event["sites"]]


def test_an_older_peer_may_say_less():
    identity = {"instance": bytes(16), "pid": 1, "host": "h", "service": "s"}
    assert decode(msgpack.packb(["hello", {"version": 1, "identity": identity}])) == Hello(
        Identity(bytes(16), 1, "h", "s")
    )
    report = decode(
        msgpack.packb(["report", {"sequence": 1, "started_at_ms": 2, "span_ms": 3, "deltas": [[1, 2, 3, 4, 5]]}])
    )
    assert report.deltas[0].bins == ()
    assert (report.health.recorded, report.health.overhead) == (0, None)
    event = {"started_at_ms": 1, "elapsed_us": 2, "threshold_us": 3, "cause": "io", "sites": [[7, 1, 2]]}
    body = {"sequence": 1, "started_at_ms": 2, "span_ms": 3, "slow_events": [event]}
    assert decode(msgpack.packb(["report", body])).slow_events[0].sites[0].arguments == {}
    body = {"sequence": 1, "started_at_ms": 2, "span_ms": 3, "loops": [[1, "MainThread", "asyncio", 4, 5]]}
    assert decode(msgpack.packb(["report", body])).loops == (LoopDelta(1, "MainThread", "asyncio", 4, 5),)
    define = decode(msgpack.packb(["define", {"sites": [[1, "open", 2, "io", "io_blocking", 10, [["a.py", 1, "f"]]]]}]))
    assert (define.sites[0].call_site, define.sites[0].advice, define.sites[0].frames[0].kind) == (0, "", 0)


_U32, _U64, _MICROSECONDS = 2**32 - 1, 2**64 - 1, 2**53 - 1
_LEAST = [0, 0, 0, 0, 0, []]
_MOST = [_U64, _U32, _U32, _MICROSECONDS, _MICROSECONDS, [part for index in range(BIN_COUNT) for part in (index, _U32)]]
_USUAL = [7, 20, 1, 90_000, 40_000, [3, 15, 12, 4, 85, 1]]


def _decode_deltas(*deltas: object) -> tuple:
    body = {"sequence": 1, "started_at_ms": 2, "span_ms": 3, "deltas": deltas}
    return decode(msgpack.packb(["report", body])).deltas


@pytest.mark.parametrize("extra", [[], [_USUAL] * 99, [_USUAL] * 99 + [[1, 2, 3, 4, 5]], [[*_USUAL, "newer"]]])
def test_the_least_and_the_most_that_a_delta_can_say_are_taken(extra):
    """`extra` decides in which way they are checked: many, or one of an older or a newer peer among them."""
    decoded = _decode_deltas(_LEAST, _MOST, _USUAL, *extra)
    assert all(type(delta) is SiteDelta for delta in decoded)
    expected = [(*delta[:5], tuple(delta[5])) for delta in (_LEAST, _MOST, _USUAL)]
    assert [tuple(delta) for delta in decoded[:3]] == expected


def _with(at: int, value: object) -> list:
    return [*_USUAL[:at], value, *_USUAL[at + 1 :]]


_NO_INTEGERS = [True, False, None, 1.0, "1", b"1", [], {}]
_WRONG_DELTAS = [
    *[_with(at, value) for at in range(5) for value in [-1, *_NO_INTEGERS]],
    *[_with(at, most + 1) for at, most in ((1, _U32), (2, _U32), (3, _MICROSECONDS), (4, _MICROSECONDS))],
    *[_with(5, bins) for bins in (None, True, 0, 1.0, "", "ab", b"ab", {}, {"a": 2})],
    *[_with(5, bins) for bins in ([1], [1, 2, 3], [BIN_COUNT, 1], [-1, 1], [1, 0], [1, -1], [1, _U32 + 1])],
    _with(5, [part for index in range(BIN_COUNT) for part in (index, 1)] + [0, 1]),
    *[_with(5, [3, 1, value, 1]) for value in _NO_INTEGERS],
    *[_with(5, [3, 1, 4, value]) for value in _NO_INTEGERS],
    *[_USUAL[:length] for length in range(5)],
    *[None, 1, "delta", b"delta!", {"site_id": 1}],
]


@pytest.mark.parametrize("others", [[], [_LEAST, _MOST] * 9, [[1, 2, 3, 4, 5]] * 9], ids=["few", "many", "older"])
@pytest.mark.parametrize("wrong", _WRONG_DELTAS, ids=repr)
def test_a_delta_out_of_bounds_is_refused_wherever_it_is(wrong, others):
    for sent in ([wrong, *others], [*others, wrong]):
        with pytest.raises(MalformedMessageError, match=r"delta|bins"):
            _decode_deltas(*sent)


def test_bins_of_odd_lengths_do_not_make_up_for_each_other():
    with pytest.raises(MalformedMessageError):
        _decode_deltas(_with(5, [1]), _with(5, [2, 3, 4]), *[_USUAL] * 99)


_numbers = st.integers(-2, 3) | st.integers(0, _U64) | st.booleans() | st.none() | st.floats()
_any_deltas = st.lists(
    st.tuples(*[_numbers] * 5, st.lists(_numbers, max_size=4) | _numbers) | st.lists(_numbers, max_size=8), max_size=3
)


@settings(max_examples=300)
@given(_any_deltas, st.lists(deltas, min_size=9, max_size=10))
def test_deltas_are_taken_together_as_they_are_taken_alone(some, good):
    def verdict(*deltas: object) -> list | None:
        try:
            return [decoded for delta in deltas for decoded in _decode_deltas(delta)]
        except MalformedMessageError:
            return None

    alone = verdict(*good, *some)
    if alone is None:
        with pytest.raises(MalformedMessageError):
            _decode_deltas(*good, *some)
    else:
        assert list(_decode_deltas(*good, *some)) == alone


@pytest.mark.parametrize("missing", ["sequence", "started_at_ms", "span_ms"])
def test_what_has_no_default_must_be_there(missing):
    _, body = msgpack.unpackb(_REPORT)
    del body[missing]
    with pytest.raises(MalformedMessageError, match=missing):
        decode(msgpack.packb(["report", body]))


def test_an_undecodable_file_name_does_not_stop_a_report():
    assert decode(encode(Refused("a", "caf\udce9"))) == Refused("a", "caf?")


def test_a_message_type_nobody_knows_is_named():
    with pytest.raises(MalformedMessageError, match="'nonsense'"):
        decode(msgpack.packb(["nonsense", {}]))


def test_a_frame_reads_as_people_write_it():
    assert str(Frame("shop/orders.py", 42, "create_order")) == "shop/orders.py:42:create_order"


def test_different_messages_are_different_bytes():
    assert encode(Ack(1)) != encode(Ack(2))


def test_what_a_control_does_not_say_is_the_agents_own():
    assert decode(msgpack.packb(["control", {"revision": 1, "active": None}])) == Control(1)
    assert decode(msgpack.packb(["control", {"revision": 1, "captures": [[7, 8, "more"]]}])).captures[0] == (7, 8)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"revision": -1},
        {"revision": 1, "active": 1},
        {"revision": 1, "threshold_us": "5"},
        {"revision": 1, "threshold_us": -1},
        {"revision": 1, "trace_depth": 2.0},
        {"revision": 1, "captures": [[0, 1]]},
        {"revision": 1, "captures": [[1]]},
        {"revision": 1, "captures": [[1, 2]] * 17},
    ],
)
def test_a_control_of_wrong_types_is_refused(body):
    with pytest.raises(MalformedMessageError):
        decode(msgpack.packb(["control", body]))


def test_a_moment_of_a_capture_points_into_its_traces():
    kind, body = msgpack.unpackb(encode(GOLDEN["v1-report-capture"]))
    body["slow_events"][0]["capture"]["moments"][0][3] = 1
    with pytest.raises(MalformedMessageError, match="moment"):
        decode(msgpack.packb([kind, body]))
