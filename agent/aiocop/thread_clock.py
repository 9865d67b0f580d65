"""How a thread spent its time: on a CPU, ready but without one, or waiting.

Linux tells in /proc/self/task/TID/schedstat: nanoseconds on a CPU, nanoseconds runnable in a queue, and how often the
thread got a CPU (Documentation/scheduler/sched-stats.rst). What is neither was waiting: for I/O, a lock, or the GIL.
Without it, only a host with a CPU to spare would let us tell a busy thread from a waiting one.

The file stays open: reading it again costs 3 µs and, unlike opening it, raises no audit event.
"""

from __future__ import annotations

import sys
from typing import Final

from aiocop._stdlib import clock_gettime_ns, close, open_file, pread, thread_native_id
from aiocop_wire.light_typing import NamedTuple

_PATH: Final = "/proc/self/task/{}/schedstat"


class ThreadTimes(NamedTuple):
    """Totals of a thread since it began."""

    cpu_ns: int
    queued_ns: int
    """Runnable, but the host gave the CPU to somebody else."""
    runs: int
    """How often it got a CPU. A wait is one more, but for the GIL, which asks again every switch interval (5 ms)."""

    @property
    def ready_ns(self) -> int:
        """Time in which the thread did not wait."""
        return self.cpu_ns + self.queued_ns


class ThreadClock:
    """Reads the times of a thread, by its native id, or of the one that made it; from any thread, until `close`."""

    __slots__ = ("_descriptor",)

    def __init__(self, native_id: int | None = None) -> None:
        try:
            self._descriptor: int | None = open_file(_PATH.format(native_id or thread_native_id()), 0)
        except OSError:
            # No /proc, another system, or the thread has ended: causes are then told without it.
            self._descriptor = None

    def read(self) -> ThreadTimes | None:
        """The times so far; None where the system does not tell, and once the thread has ended."""
        if self._descriptor is None:
            return None
        try:
            cpu, queued, runs = pread(self._descriptor, 100, 0).split()
        except (OSError, ValueError):
            return None
        return ThreadTimes(int(cpu), int(queued), int(runs))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            close(descriptor)


def cpu_ns(native_id: int) -> int:
    """CPU time of any thread of this process since it began; 0 when it has ended, and where the system does not tell.

    The kernel's clock of a thread by its id (the macro MAKE_THREAD_CPUCLOCK of Linux' posix-timers.h): 1 µs, no file,
    and unlike pthread_getcpuclockid() safe to ask for a thread that may have ended.
    """
    if sys.platform != "linux":
        return 0
    try:
        return clock_gettime_ns((~native_id << 3) | 6)
    except OSError:
        return 0
