"""A process with a heartbeat, played by the test: it writes the words itself, and dies by letting go of the lock."""

import fcntl
import os
import socket
import time

from tests.support.collector import StreamPeer

from aiocop_wire import Define, Hello, Identity, SiteDefinition, Welcome, encode, frame
from aiocop_wire.heartbeat import (
    BEGUN,
    ENTERED,
    FINISHED,
    HEARTBEAT_BYTES,
    LAYOUT,
    LOOKED,
    SLOT_WORDS,
    STALL_AFTER,
    TEXT_BYTES,
    text_at,
    write_text,
)

_ADD_SEALS = 1033
_SHRINK_GROW_SEAL = 0x0002 | 0x0004 | 0x0001


class HeartbeatPeer:
    """One loop thread, in place 1. Closed by `die`, or at the end of the `with`."""

    def __init__(self, *, stall_after_s: float = 0.2, seals: int = _SHRINK_GROW_SEAL, locked: bool = True) -> None:
        self.descriptor = os.memfd_create("test-heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.descriptor, HEARTBEAT_BYTES)
        fcntl.fcntl(self.descriptor, _ADD_SEALS, seals)
        if locked:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._put(LAYOUT, 1)
        self._put(STALL_AFTER, int(stall_after_s * 1e9))

    def __enter__(self) -> "HeartbeatPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def begin(self, *, site: SiteDefinition | None = None, watchdog_looks: bool = False, age_s: float = 0.0) -> int:
        """A slice begins; its `slice_ns`. Unless the watchdog can look, the GIL seems to be held."""
        slice_ns = time.monotonic_ns() - int(age_s * 1e9)
        self._put(LOOKED, time.monotonic_ns() + 10**12 if watchdog_looks else slice_ns)
        if site is not None:
            text = memoryview(bytearray(TEXT_BYTES))
            write_text(text, encode(Define((site,))))
            os.pwrite(self.descriptor, text, text_at(1))
            self._put(SLOT_WORDS + ENTERED, site.site_id ^ slice_ns)
        self._put(SLOT_WORDS + BEGUN, slice_ns)
        return slice_ns

    def end(self, slice_ns: int) -> None:
        """The slice ends."""
        self._put(SLOT_WORDS + FINISHED, slice_ns)

    def die(self) -> None:
        """As when the process is killed: the words stay, the lock goes."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def greet(self, peer: StreamPeer, identity: Identity) -> Welcome:
        """Say hello and pass the heartbeat."""
        return greet_with(peer, identity, self.descriptor)

    def _put(self, word: int, value: int) -> None:
        os.pwrite(self.descriptor, value.to_bytes(8, "little"), word * 8)


def greet_with(peer: StreamPeer, identity: Identity, *descriptors: int) -> Welcome:
    """Say hello and pass these descriptors."""
    socket.send_fds(peer._socket, [frame(encode(Hello(identity)))], list(descriptors))
    welcome = peer.receive()
    assert isinstance(welcome, Welcome), welcome
    return welcome
