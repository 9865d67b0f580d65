"""Private originals of what the agent itself uses, taken before anything is patched.

The agent replaces functions like `time.sleep` and `os.open` in the whole process; its own threads must neither pay for
that nor see themselves. Every module of the agent takes these names from here, never from their public module.
"""

from __future__ import annotations

from _socket import getaddrinfo
from _socket import socket as raw_socket
from _thread import LockType, RLock, allocate_lock, get_ident
from _thread import get_native_id as thread_native_id
from gc import collect
from os import close, getpid, pipe, pread, read, set_blocking, stat, unlink, urandom, write
from os import open as open_file
from select import poll
from sys import _current_frames as current_frames
from sys import _getframe as getframe
from time import clock_gettime_ns, monotonic_ns, perf_counter_ns, process_time_ns, sleep, thread_time_ns, time, time_ns

__all__ = [
    "LockType",
    "RLock",
    "allocate_lock",
    "clock_gettime_ns",
    "close",
    "collect",
    "current_frames",
    "get_ident",
    "getaddrinfo",
    "getframe",
    "getpid",
    "monotonic_ns",
    "open_file",
    "perf_counter_ns",
    "pipe",
    "poll",
    "pread",
    "process_time_ns",
    "raw_socket",
    "read",
    "set_blocking",
    "sleep",
    "stat",
    "thread_native_id",
    "thread_time_ns",
    "time",
    "time_ns",
    "unlink",
    "urandom",
    "write",
]
