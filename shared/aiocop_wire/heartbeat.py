"""The memory in which a process says what its loops run, readable when none of its threads can speak.

A page of words, and after it 1024 bytes of text for each loop thread:

    words 0-7       layout (1), stall_after_ns, looked_ns, then zeros
    words 8i-8i+7   the loop thread i, i from 1 on:
                    begun_ns    start of the slice that began last; 0 before the first
                    entered     the site entered last, exclusive-or the start of its slice; 0 for none
                    ended_ns    start of the slice that is known to have ended
                    seen_ns     start of the slice in which the watchdog last saw where it is
                    seen        the site that it saw
                    then zeros

    bytes 4096+1024i-4096+1024i+1023
                    of the loop thread i, the site that it entered for the first time last, or that the watchdog saw
                    last: two bytes of length, least first, then so many of a `define` with this one site, as on a
                    stream. The collector may not have been told of it yet.

A word is an unsigned 64-bit integer in the host's byte order; both sides are on one host. Times are of its
CLOCK_MONOTONIC. A slice runs where `begun_ns` is not 0 and not `ended_ns`.

Why a loop's thread writes so little: one word costs it 0.05 to 0.1 µs, so it writes one as a slice begins and none as
it ends. The watchdog, which looks within milliseconds of a slice's start and again until nothing runs, writes the end.
What keeps the watchdog from running, a native call that holds the GIL, keeps slices from ending too. For the same
reason the site is not cleared between slices: the exclusive-or makes that of another slice an id nobody knows.
"""

from __future__ import annotations

import struct
from typing import Final

from aiocop_wire.light_typing import NamedTuple

PAGE_BYTES: Final = 4096
TEXT_BYTES: Final = 1024
HEARTBEAT_LAYOUT: Final = 1
SLOT_WORDS: Final = 8
MAX_SLOTS: Final = PAGE_BYTES // (8 * SLOT_WORDS) - 1
"""Loop threads that can be told apart; further ones are not shown."""
HEARTBEAT_BYTES: Final = PAGE_BYTES + (MAX_SLOTS + 1) * TEXT_BYTES
"""In all. Memory that was never written to takes none."""

LAYOUT, STALL_AFTER, LOOKED = 0, 1, 2
"""Words of the header."""

BEGUN, ENTERED, FINISHED, SEEN_IN, SEEN = 0, 1, 2, 3, 4
"""Words of a loop thread."""

_WORDS: Final = struct.Struct(f"={PAGE_BYTES // 8}Q")
_LENGTH_BYTES: Final = 2


class RunningSlice(NamedTuple):
    """A slice that has not ended, as the page tells."""

    slice_ns: int
    site_id: int
    """The last site known in it; 0 where none is. May be an id that nobody knows: then none is."""
    slot: int
    """Which loop thread runs it: see `text_at`."""


class HeartbeatPage(NamedTuple):
    """One reading of the page."""

    stall_after_ns: int
    looked_ns: int
    """When the agent's watchdog looked last."""
    running: tuple[RunningSlice, ...]


def read_heartbeat(data: bytes) -> HeartbeatPage | None:
    """What a page says; None where it is not one of this layout. Times are not checked: they are a peer's."""
    if len(data) != PAGE_BYTES:
        return None
    words = _WORDS.unpack(data)
    if words[LAYOUT] != HEARTBEAT_LAYOUT:
        return None
    running = []
    for at in range(SLOT_WORDS, len(words), SLOT_WORDS):
        begun_ns = words[at + BEGUN]
        if begun_ns and begun_ns != words[at + FINISHED]:
            entered = words[at + ENTERED]
            site = words[at + SEEN] if words[at + SEEN_IN] == begun_ns else (entered ^ begun_ns if entered else 0)
            running.append(RunningSlice(begun_ns, site, at // SLOT_WORDS))
    return HeartbeatPage(words[STALL_AFTER], words[LOOKED], tuple(running))


def text_at(slot: int) -> int:
    """Where the text of a loop thread begins."""
    return PAGE_BYTES + slot * TEXT_BYTES


def write_text(text: memoryview, message: bytes) -> None:
    """Put a message into the text of a loop thread, unless it is too long (the text stays as it was)."""
    if _LENGTH_BYTES + len(message) <= len(text):
        text[_LENGTH_BYTES : _LENGTH_BYTES + len(message)] = message
        text[:_LENGTH_BYTES] = len(message).to_bytes(_LENGTH_BYTES, "little")


def read_text(text: bytes) -> bytes:
    """The message in the text of a loop thread; empty where there is none. To be decoded with care: a peer wrote it."""
    return text[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(text[:_LENGTH_BYTES], "little")]
