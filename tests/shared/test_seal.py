"""A seal shows who sent a datagram and when; nothing else passes."""

import hashlib
import hmac
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocop_wire import ForgedDatagramError, StaleDatagramError, UnsealedDatagramError, WireError, check_key
from aiocop_wire.seal import SEAL_BYTES, is_sealed, seal, unseal

KEY = b"correct-horse-battery-staple"
NOW_MS = 1_700_000_000_000
GOLDEN = Path(__file__).parent / "golden"


def test_the_golden_file_is_sealed_as_the_documentation_says():
    datagram = (GOLDEN / "v1-datagram.msgpack").read_bytes()
    covered = b"\xc1\x01" + struct.pack(">Q", NOW_MS) + datagram
    by_hand = covered + hmac.new(KEY, covered, hashlib.sha256).digest()[:16]
    assert seal(datagram, KEY, NOW_MS) == by_hand == (GOLDEN / "v1-datagram-sealed.msgpack").read_bytes()


@given(st.binary(max_size=2000), st.integers(0, 2**64 - 1), st.integers(-300_000, 300_000))
def test_what_is_sealed_comes_out_again(datagram, sent_at_ms, apart_ms):
    sealed = seal(datagram, KEY, sent_at_ms)
    assert len(sealed) == len(datagram) + SEAL_BYTES
    assert is_sealed(sealed)
    assert unseal(memoryview(bytearray(sealed)), KEY, sent_at_ms + apart_ms) == datagram


@given(st.binary(max_size=200), st.data())
def test_no_changed_bit_passes(datagram, data):
    sealed = bytearray(seal(datagram, KEY, NOW_MS))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((ForgedDatagramError, UnsealedDatagramError)):
        unseal(sealed, KEY, NOW_MS)


def test_another_key_does_not_pass():
    with pytest.raises(ForgedDatagramError):
        unseal(seal(b"x", KEY, NOW_MS), KEY + b"!", NOW_MS)


@pytest.mark.parametrize("apart_ms", [-300_001, 300_001])
def test_another_time_does_not_pass(apart_ms):
    with pytest.raises(StaleDatagramError, match="300 s"):
        unseal(seal(b"x", KEY, NOW_MS), KEY, NOW_MS + apart_ms)


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda rest: b"\xc1\x01" + rest))
def test_anything_else_is_refused_and_nothing_worse(data):
    with pytest.raises(WireError):
        unseal(data, KEY, NOW_MS)


def test_an_unsealed_datagram_is_told_from_a_forged_one():
    datagram = (GOLDEN / "v1-datagram.msgpack").read_bytes()
    assert not is_sealed(datagram)
    with pytest.raises(UnsealedDatagramError):
        unseal(datagram, KEY, NOW_MS)


@pytest.mark.parametrize("text", ["", "short", "two words of enough length", "x" * 4097, "\n"])
def test_bad_keys_are_refused_without_being_shown(text):
    with pytest.raises(ValueError, match="openssl rand") as caught:
        check_key(text)
    assert not text.strip() or text not in str(caught.value)


def test_a_line_end_is_not_part_of_a_key():
    assert check_key("correct-horse-battery-staple\n") == KEY
