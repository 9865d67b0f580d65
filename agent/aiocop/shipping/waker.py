"""The one place where the shipper's thread sleeps: until a descriptor is ready, a time passes, or somebody wakes it."""

from __future__ import annotations

from select import POLLIN

from aiocop._stdlib import RLock, close, pipe, poll, read, set_blocking, write
from aiocop.shipping.transport import ONE_MS_NS

_CLOSED = -1


class Waker:
    """A pipe to wake a thread that sleeps in `wait`. Closed until `open`."""

    def __init__(self) -> None:
        # Re-entrant, because a signal handler may wake while the thread it interrupted does. Without the lock `wake`
        # could write to a number that was closed and is somebody else's by then.
        self._lock = RLock()
        self._wait_fd = _CLOSED
        self._wake_fd = _CLOSED

    @property
    def is_open(self) -> bool:
        return self._wake_fd != _CLOSED

    def open(self) -> None:
        """Raises OSError where the process has no descriptor left."""
        self._wait_fd, self._wake_fd = pipe()
        set_blocking(self._wait_fd, False)
        set_blocking(self._wake_fd, False)

    def wake(self) -> None:
        """From any thread. Does nothing when closed."""
        with self._lock:
            if self._wake_fd != _CLOSED:
                try:
                    write(self._wake_fd, b"\0")
                except BlockingIOError:
                    return  # the pipe is full of wake-ups

    def wait(self, wait_ns: int, descriptor: int, interest: int) -> int:
        """Sleep for at most `wait_ns`. The poll mask of `descriptor` (-1 for none), 0 when it was something else."""
        poller = poll()
        poller.register(self._wait_fd, POLLIN)
        if descriptor >= 0:
            poller.register(descriptor, interest)
        mask = 0
        for ready, ready_mask in poller.poll((wait_ns + ONE_MS_NS - 1) // ONE_MS_NS):
            if ready == self._wait_fd:
                read(self._wait_fd, 4096)
            else:
                mask = ready_mask
        return mask

    def close(self) -> None:
        with self._lock:
            self.abandon()

    def abandon(self) -> None:
        """In a forked child: the same without the lock, whose owner may be a thread that the child does not have."""
        for descriptor in (self._wait_fd, self._wake_fd):
            if descriptor != _CLOSED:
                close(descriptor)
        self._wait_fd = self._wake_fd = _CLOSED
