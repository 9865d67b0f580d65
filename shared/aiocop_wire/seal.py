"""Sealed datagrams: what shows that a datagram comes from somebody who knows the shared key, and is not an old one.

    0xC1 0x01 | sent_at_ms, 8 bytes big-endian | the datagram | tag, 16 bytes

The tag is HMAC-SHA256 (RFC 2104), keyed with the shared key and cut to 16 bytes, over everything before it. 0xC1 begins
no msgpack value, so that sealed and unsealed ones are told apart. A repeated one is recognised by its report's
sequence; `sent_at_ms` bounds how long that must be remembered.

Only who has a key imports this module, and the package does not: hmac and _hashlib take 1.5 ms (measured).
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from aiocop_wire.errors import ForgedDatagramError, StaleDatagramError, UnsealedDatagramError

SEAL_BYTES: Final = 26
"""How much longer a datagram gets."""

FRESH_MS: Final = 300_000
"""How far the clocks of sender and receiver may be apart, the way included."""

_START: Final = b"\xc1\x01"
_HEAD: Final = struct.Struct(">2sQ")
_TAG_BYTES: Final = 16
_HASH: Final = "sha256"


def seal(datagram: bytes, key: bytes, sent_at_ms: int) -> bytes:
    """The sealed form of an encoded datagram, SEAL_BYTES longer."""
    covered = _HEAD.pack(_START, sent_at_ms) + datagram
    return covered + hmac.digest(key, covered, _HASH)[:_TAG_BYTES]


def is_sealed(data: bytes | bytearray | memoryview) -> bool:
    """Whether it claims to be."""
    return len(data) > 0 and data[0] == _START[0]


def unseal(data: bytes | bytearray | memoryview, key: bytes, now_ms: int) -> memoryview:
    """The encoded datagram in a sealed one. It refers to `data`.

    Raises UnsealedDatagramError, ForgedDatagramError, or StaleDatagramError where the time of its sending is more than
    FRESH_MS away from `now_ms`.
    """
    view = memoryview(data)
    if len(view) < SEAL_BYTES or view[: len(_START)].tobytes() != _START:
        raise UnsealedDatagramError("not sealed: its sender does not use the key")
    covered, tag = view[:-_TAG_BYTES], view[-_TAG_BYTES:]
    if not hmac.compare_digest(hmac.digest(key, covered, _HASH)[:_TAG_BYTES], tag):
        raise ForgedDatagramError("sealed with another key, or changed on the way")
    _, sent_at_ms = _HEAD.unpack_from(view)
    if abs(now_ms - sent_at_ms) > FRESH_MS:
        raise StaleDatagramError(f"sent {abs(now_ms - sent_at_ms) // 1000} s away from the time here: check the clocks")
    return covered[_HEAD.size :]
