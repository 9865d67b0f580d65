"""Bytes that no agent sends: what a broken, foreign or malicious peer may throw at a collector."""

import random
import struct
from typing import Any

import msgpack
from tests.shared.golden_messages import GOLDEN

from aiocop_wire import Datagram, Hello, encode
from aiocop_wire.limits import MAX_DATAGRAM_BYTES

# Of a service of its own, so that what happens to be valid is told from what good agents report.
_VALID = [
    encode(
        message._replace(identity=message.identity._replace(service="hostile"))
        if isinstance(message, (Hello, Datagram))
        else message
    )
    for message in GOLDEN.values()
]
_FOREIGN = (
    b"GET / HTTP/1.1\r\nHost: collector\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    b"shop.requests:1|c\nshop.latency:320|ms",
    b"<165>1 2026-01-01T00:00:00Z host app - - - text",
    msgpack.packb({"jsonrpc": "2.0", "method": "report", "params": [1, 2, 3]}),
    msgpack.packb([0, 1, "report", [{"sequence": 1}]]),
    msgpack.packb(["tag", 1_700_000_000, {"message": "fluentd's forward protocol"}]),
    b"",
)
_GIANTS = (
    b"\xdd\xff\xff\xff\xff",  # array of 2**32 - 1
    b"\xdf\xff\xff\xff\xff",  # map
    b"\xdb\xff\xff\xff\xff",  # text
    b"\xc6\xff\xff\xff\xff",  # bytes
    b"\xc9\xff\xff\xff\xff\x01",  # extension
)
_WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf")),
    *("", "x" * 2000, "\x00", b"\xff" * 40, msgpack.Timestamp(1)),
    *([], {}, [[[[]]]], {"a": {"b": {}}}, [0] * 10_001, {str(number): number for number in range(100)}),
)


def hostile_message(chance: random.Random) -> bytes:
    """One of every kind, at random; some may be valid."""
    return chance.choice(_KINDS)(chance)[:MAX_DATAGRAM_BYTES]


def frame_of(message: bytes, chance: random.Random) -> bytes:
    """With a length prefix, which lies now and then."""
    length = len(message) if chance.random() < 0.9 else chance.choice([0, 1, len(message) + 7, 1 << 20, 0xFFFFFFFF])
    return struct.pack(">I", length) + message


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice([1, 2, 3, 10, 100, 1000, 9000]))


def _truncated(chance: random.Random) -> bytes:
    whole = chance.choice(_VALID)
    return whole[: chance.randrange(len(whole))]


def _flipped(chance: random.Random) -> bytes:
    data = bytearray(chance.choice(_VALID))
    for _ in range(chance.choice([1, 1, 2, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _spliced(chance: random.Random) -> bytes:
    head, tail = chance.choice(_VALID), chance.choice(_VALID)
    return head[: chance.randrange(len(head))] + tail[chance.randrange(len(tail)) :]


def _nested(chance: random.Random) -> bytes:
    depth = chance.choice([10, 600, 1000, 30_000])
    opening = chance.choice([b"\x91", b"\x81\xa1a", b"\x81", b"\x92\xc0"])
    start = chance.choice([b"", b"\x92\xa6report\x81\xa6deltas", b"\x92\xa8datagram\x81\xa8identity"])
    return start + opening * depth + b"\xc0"


def _giant(chance: random.Random) -> bytes:
    start = chance.choice([b"", b"\x92", b"\x92\xa6report", b"\x92\xa6define\x81\xa5sites"])
    return start + chance.choice(_GIANTS) + chance.randbytes(chance.choice([0, 10, 1000]))


def _of_wrong_type(chance: random.Random) -> bytes:
    value = msgpack.unpackb(chance.choice(_VALID), strict_map_key=False)
    return msgpack.packb(_spoilt(value, chance), use_bin_type=True)


def _spoilt(value: Any, chance: random.Random) -> Any:
    """With one thing in it replaced, some levels down."""
    if isinstance(value, list) and value and chance.random() < 0.9:
        position = chance.randrange(len(value))
        return [*value[:position], _spoilt(value[position], chance), *value[position + 1 :]]
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.1:
            return {other: item for other, item in value.items() if other != key}
        return {**value, key: _spoilt(value[key], chance)}
    return chance.choice(_WRONG)


def _foreign(chance: random.Random) -> bytes:
    return chance.choice(_FOREIGN)


_KINDS = (_noise, _truncated, _flipped, _spliced, _nested, _giant, _of_wrong_type, _foreign)
