"""The memory in which a process says what its loops run: written word by word, read as a whole."""

import struct

import pytest

from aiocop_wire import Define, Frame, RunningSlice, SiteDefinition, decode, encode, read_heartbeat
from aiocop_wire.heartbeat import (
    BEGUN,
    ENTERED,
    FINISHED,
    HEARTBEAT_BYTES,
    LAYOUT,
    LOOKED,
    MAX_SLOTS,
    PAGE_BYTES,
    SEEN,
    SEEN_IN,
    SLOT_WORDS,
    STALL_AFTER,
    TEXT_BYTES,
    read_text,
    text_at,
    write_text,
)

SITE = 2**64 - 5


@pytest.fixture
def words():
    """A page on which nothing runs."""
    page = memoryview(bytearray(PAGE_BYTES)).cast("Q")
    page[LAYOUT], page[STALL_AFTER], page[LOOKED] = 1, 10**9, 77
    return page


def slot(words, number):
    return words[number * SLOT_WORDS : (number + 1) * SLOT_WORDS]


def test_nothing_runs_on_a_fresh_page(words):
    page = read_heartbeat(words.tobytes())
    assert (page.stall_after_ns, page.looked_ns, page.running) == (10**9, 77, ())


def test_a_slice_runs_until_it_is_said_to_have_ended(words):
    beat = slot(words, 3)
    beat[BEGUN] = 1000
    assert read_heartbeat(words.tobytes()).running == (RunningSlice(1000, 0, 3),)
    beat[FINISHED] = 1000
    assert read_heartbeat(words.tobytes()).running == ()
    beat[BEGUN] = 2000
    assert read_heartbeat(words.tobytes()).running == (RunningSlice(2000, 0, 3),)


def test_the_site_entered_last_is_that_of_its_slice_only(words):
    beat = slot(words, MAX_SLOTS)
    beat[BEGUN], beat[ENTERED] = 1000, SITE ^ 1000
    assert read_heartbeat(words.tobytes()).running == (RunningSlice(1000, SITE, MAX_SLOTS),)
    beat[BEGUN] = 2000
    assert read_heartbeat(words.tobytes()).running[0].site_id != SITE


def test_what_the_watchdog_saw_goes_before_what_was_entered(words):
    beat = slot(words, 1)
    beat[BEGUN], beat[ENTERED], beat[SEEN_IN], beat[SEEN] = 1000, SITE ^ 1000, 1000, 9
    assert read_heartbeat(words.tobytes()).running[0].site_id == 9
    beat[SEEN_IN] = 900
    assert read_heartbeat(words.tobytes()).running[0].site_id == SITE


@pytest.mark.parametrize("data", [b"", bytes(PAGE_BYTES), b"\xff" * PAGE_BYTES, bytes(PAGE_BYTES - 1)])
def test_what_is_no_page_of_this_layout_is_none(data):
    assert read_heartbeat(data) is None


def test_as_documented(words):
    """docs/wire.md says where each thing is in plain numbers."""
    beat = slot(words, 2)
    beat[BEGUN], beat[FINISHED] = 5, 4
    numbers = struct.unpack("=512Q", words.tobytes())
    assert (numbers[0], numbers[1], numbers[2], numbers[16], numbers[18]) == (1, 10**9, 77, 5, 4)
    assert (HEARTBEAT_BYTES, text_at(2), MAX_SLOTS) == (69_632, 4096 + 2048, 63)


def test_a_site_in_the_text_of_a_thread():
    text = memoryview(bytearray(TEXT_BYTES))
    site = SiteDefinition(7, "open", 8, "io", "io_blocking", 10, (Frame("shop/orders.py", 3, "f"),))
    message = encode(Define((site,)))
    write_text(text, message)
    assert decode(read_text(text.tobytes())) == Define((site,))
    write_text(text, b"x" * TEXT_BYTES)
    assert read_text(text.tobytes()) == message, "what finds no room changes nothing"
    write_text(memoryview(b""), message)
    assert read_text(b"") == b""
