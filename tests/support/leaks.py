"""What a process holds right now, for the leak checks in conftest.py. Linux only: reads /proc."""

import asyncio.base_events
import asyncio.events
import builtins
import io
import os
import select
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

try:
    import uvloop
except ImportError:  # the base install has no uvloop, and there is nothing to replace then
    _UVLOOP_OWNERS = ()
else:
    _UVLOOP_OWNERS = (uvloop.Loop,)
    uvloop.new_event_loop().close()  # libuv opens a pipe for signals with its first loop and keeps it

# Whatever has a blocking call, or runs callbacks: more than the agent replaces, so that a new wrapper is seen too.
_OWNERS = (
    asyncio.events.Handle,
    asyncio.events.TimerHandle,
    asyncio.base_events.BaseEventLoop,
    builtins,
    io,
    os,
    select,
    signal,
    socket,
    socket.socket,
    sqlite3,
    ssl,
    ssl.SSLSocket,
    subprocess,
    subprocess.Popen,
    threading,
    threading.Condition,
    threading.Event,
    threading.Thread,
    time,
    urllib.request,
    *_UVLOOP_OWNERS,
)


def running_threads() -> dict[int, str]:
    """Ident to name of every thread that threading knows."""
    return {thread.ident or 0: thread.name for thread in threading.enumerate()}


def open_descriptors() -> dict[int, str]:
    """Descriptor to what it refers to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = f"{name} ({os.readlink(f'/proc/self/fd/{name}')})"
        except FileNotFoundError:
            continue  # the one that listed the folder
    return found


def child_processes() -> dict[int, str]:
    """Pid to name of every child, zombies included."""
    found = {}
    for task in os.listdir("/proc/self/task"):
        try:
            pids = Path(f"/proc/self/task/{task}/children").read_text().split()
        except FileNotFoundError:
            continue  # the thread ended meanwhile
        for pid in pids:
            try:
                found[int(pid)] = f"{pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def callables() -> dict[tuple[str, str], object]:
    """(owner, name) to function, for everything of the standard library and of uvloop that an agent may replace."""
    return {
        (owner.__name__, name): value for owner in _OWNERS for name, value in vars(owner).items() if callable(value)
    }


def replaced(before: dict[tuple[str, str], object]) -> list[str]:
    """The functions that are not what they were when `before` was taken."""
    now = callables()
    return [f"function {key[0]}.{key[1]} (replaced)" for key, value in before.items() if now.get(key) is not value]
