"""Messages on a stream, however it is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.wire_strategies import messages

from aiocop_wire import FrameReader, OversizedMessageError, decode, encode, frame
from aiocop_wire.limits import MAX_MESSAGE_BYTES


def _chunks(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.integers(0, 10_000), max_size=30))
def test_any_chunking_gives_the_same_messages(contents, cuts):
    reader = FrameReader()
    stream = b"".join(map(frame, contents))
    assert [message for chunk in _chunks(stream, cuts) for message in reader.feed(chunk)] == contents


@given(st.lists(messages, max_size=4))
def test_one_byte_at_a_time(sent):
    reader = FrameReader()
    stream = b"".join(frame(encode(message)) for message in sent)
    received = [decode(data) for at in range(len(stream)) for data in reader.feed(stream[at : at + 1])]
    assert received == sent


@given(st.binary(max_size=2_000))
def test_random_bytes_give_messages_or_the_one_error(data):
    reader = FrameReader(max_bytes=1000)
    try:
        taken = list(reader.feed(data))
    except OversizedMessageError:
        return
    assert sum(4 + len(message) for message in taken) <= len(data)


@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES + 1, 2**31, 2**32 - 1])
def test_a_giant_length_is_refused_at_once(length):
    with pytest.raises(OversizedMessageError):
        list(FrameReader().feed(length.to_bytes(4, "big")))


def test_what_came_before_a_giant_length_is_delivered():
    stream = FrameReader().feed(frame(b"one") + b"\xff\xff\xff\xff")
    assert next(stream) == b"one"
    with pytest.raises(OversizedMessageError):
        next(stream)


def test_the_largest_message_passes_and_one_byte_more_is_not_sent():
    largest = bytes(MAX_MESSAGE_BYTES)
    assert list(FrameReader().feed(frame(largest))) == [largest]
    with pytest.raises(OversizedMessageError):
        frame(largest + b"x")


def test_a_reader_that_is_left_early_goes_on_with_the_next_message():
    reader = FrameReader()
    for message in reader.feed(frame(b"one") + frame(b"two")):
        assert message == b"one"
        break
    assert list(reader.feed(b"")) == [b"two"]
