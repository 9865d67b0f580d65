"""The agent's end of the heartbeat: what runs on which loop's thread, in memory that a collector on this host can read.

A native call that holds the GIL keeps every thread of the process from speaking; the page (aiocop_wire.heartbeat) still
tells which slice runs and since when. The POSIX lock on it is let go exactly when the process dies: a forked child does
not inherit it, and a socket that the child keeps open does not hide the death.

Measured (CPython 3.11-3.13): `beat[BEGUN] = started_ns` costs a loop's thread 0.05 µs on a free machine, 0.1 on a busy
one. Through `ctypes` or `struct` it costs more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import Final

from aiocop._stdlib import close
from aiocop_wire.heartbeat import (
    HEARTBEAT_BYTES,
    HEARTBEAT_LAYOUT,
    LAYOUT,
    LOOKED,
    MAX_SLOTS,
    PAGE_BYTES,
    SLOT_WORDS,
    STALL_AFTER,
    TEXT_BYTES,
    text_at,
)
from aiocop_wire.light_typing import NamedTuple

_SEALS: Final = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW: linux/fcntl.h
_ADD_SEALS: Final = 1033  # F_ADD_SEALS; the fcntl module has these names only when built against new headers
_CLOSED: Final = -1


class Slot(NamedTuple):
    """Where one loop thread writes (aiocop_wire.heartbeat says what)."""

    words: memoryview
    text: memoryview


def private_slot() -> Slot:
    """Words that nobody reads, and no room for text: where there is no heartbeat, or no room on it."""
    return Slot(memoryview(bytearray(8 * SLOT_WORDS)).cast("Q"), memoryview(b""))


class Heartbeat:
    """The heartbeat of one process. Made by `open_heartbeat`. `slot`, `leave` and `close`: from any thread."""

    def __init__(self, descriptor: int, memory: memoryview) -> None:
        self.descriptor = descriptor
        """What to pass to the collector; -1 once closed."""
        self._memory = memory
        self._words = memory[:PAGE_BYTES].cast("Q")
        self._free = list(range(MAX_SLOTS, 0, -1))
        self._slots: dict[int, int] = {}

    def slot(self, ident: int) -> Slot:
        """The place of the thread with this ident, its words all zero."""
        if not self._free or self.descriptor == _CLOSED:
            return private_slot()
        number = self._slots[ident] = self._free.pop()
        begin = text_at(number)
        return Slot(
            self._words[number * SLOT_WORDS : (number + 1) * SLOT_WORDS], self._memory[begin : begin + TEXT_BYTES]
        )

    def leave(self, ident: int) -> None:
        """The thread has ended."""
        slot = self._slots.pop(ident, None)
        if slot is not None:
            self._clear(slot)
            self._free.append(slot)

    def looked(self, now_ns: int) -> None:
        """The watchdog's own mark: it could run at this time."""
        self._words[LOOKED] = now_ns

    def close(self) -> None:
        """Say that nothing runs, then let go of the lock. Words that a thread still has stay writable, and unread."""
        for slot in range(1, MAX_SLOTS + 1):
            self._clear(slot)
        self.abandon()

    def abandon(self) -> None:
        """In a forked child: give the descriptor back. The parent's lock and words are left alone."""
        descriptor, self.descriptor = self.descriptor, _CLOSED
        self._memory = memoryview(bytearray(HEARTBEAT_BYTES))
        self._words = self._memory[:PAGE_BYTES].cast("Q")
        if descriptor != _CLOSED:
            close(descriptor)

    def _clear(self, slot: int) -> None:
        for word in range(slot * SLOT_WORDS, (slot + 1) * SLOT_WORDS):
            self._words[word] = 0


def open_heartbeat(stall_after_ns: int) -> Heartbeat | None:
    """A new page, locked by this process; None where the system (or a sandbox) has no sealed memory files or locks.

    Sealed, so that neither side can shrink it under the other. The mapping holds a descriptor of its own: closing any
    of the two would let go of the lock, so both stay until `close`.
    """
    try:
        descriptor = os.memfd_create("aiocop-heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):
        return None
    try:
        os.ftruncate(descriptor, HEARTBEAT_BYTES)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        memory = memoryview(mmap.mmap(descriptor, HEARTBEAT_BYTES))
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, ValueError):
        close(descriptor)
        return None
    words = memory[:PAGE_BYTES].cast("Q")
    words[LAYOUT] = HEARTBEAT_LAYOUT
    words[STALL_AFTER] = stall_after_ns
    return Heartbeat(descriptor, memory)
