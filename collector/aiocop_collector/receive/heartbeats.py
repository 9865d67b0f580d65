"""What agents on this host run, read from memory they share: stalls are seen live even where the GIL is held, and a
process that dies is known to be dead.

Twice a second the page of each agent is read (aiocop_wire.heartbeat) and its lock is tried. The lock is the only proof
of death: a forked child may keep a socket open, and a closed one says nothing. What a process ran when it died is on
the page still; it is looked at once more a moment later, when all that was on its socket has been read.

Cost: two system calls per agent, about 6 µs; neither can block, as the page is memory.
"""

import asyncio
import contextlib
import fcntl
import os
import resource
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from aiocop_collector.arrivals import Arrival, StallSighting
from aiocop_collector.counters import Counters
from aiocop_collector.store.writer import Store
from aiocop_wire import (
    Define,
    HeartbeatPage,
    Identity,
    RunningSlice,
    SiteDefinition,
    WireError,
    decode,
    read_heartbeat,
)
from aiocop_wire.heartbeat import PAGE_BYTES, TEXT_BYTES, read_text, text_at

POLL_S: Final = 0.5
TELL_NS: Final = 1_000_000_000
"""How often a stall that goes on is written again."""
OVERDUE_NS: Final = 750_000_000
"""A watchdog that can run looks twice a second while there is a stall; past this something keeps it from running."""
MOST: Final = 4096
"""Heartbeats kept at once, or a quarter of the descriptors that the process may have."""
_LOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_ARRIVAL_BYTES: Final = 512
"""What a sighting counts for in the pending queue: about the size of a message that says as much."""


class _Watched:
    """The heartbeat of one agent."""

    __slots__ = ("connected", "descriptor", "died_ns", "identity", "told_ns")

    def __init__(self, identity: Identity, descriptor: int) -> None:
        self.identity = identity
        self.descriptor = descriptor
        self.connected = True
        self.died_ns = 0
        """When its lock was found gone."""
        self.told_ns: dict[int, int] = {}
        """By slice: when its stall was last written."""


class Lifeline:
    """One stream's hold on the heartbeat of its agent. Made with the descriptor that came with the hello."""

    def __init__(self, heartbeats: "Heartbeats", descriptor: int) -> None:
        self._heartbeats = heartbeats
        self._descriptor = descriptor
        self._watched: _Watched | None = None

    def hello(self, identity: Identity) -> None:
        """The stream has said whose it is."""
        descriptor, self._descriptor = self._descriptor, -1
        self._watched = self._heartbeats.take(identity, descriptor)

    def farewell(self) -> None:
        """The agent stops on purpose."""
        if self._watched is not None:
            self._heartbeats.farewell(self._watched)

    def end(self) -> None:
        """The stream is over."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._watched is not None:
            self._heartbeats.left(self._watched)


class Heartbeats:
    """The heartbeats of the agents connected to this collector, and of those that were and have not died since."""

    def __init__(
        self,
        store: Store,
        counters: Counters,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._counters = counters
        self._monotonic_ns = monotonic_ns
        self._wall_s = wall_s
        self._watched: dict[bytes, _Watched] = {}
        self._most = min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Look at them from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="aiocop-collector-heartbeats")

    async def stop(self) -> None:
        """Give all of them back. Their agents bring them again to the next collector."""
        self._stopped = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for instance in list(self._watched):
            self._drop(instance)

    def take(self, identity: Identity, descriptor: int) -> _Watched | None:
        """An agent said hello and passed its page; -1 where it has none. The descriptor is this object's from here on.

        One that cannot be used is closed and counted: the agent's own messages then tell of its stalls.
        """
        if descriptor < 0:
            return None
        if self._stopped:
            os.close(descriptor)
            return None
        if identity.instance not in self._watched and len(self._watched) >= self._most and not self._make_room():
            self._counters.add("heartbeats_refused")
            os.close(descriptor)
            return None
        page = _read(descriptor, self._monotonic_ns())
        if page is None or not _is_locked(descriptor):
            self._counters.add("heartbeats_unusable")
            os.close(descriptor)
            return None
        self._drop(identity.instance)
        watched = self._watched[identity.instance] = _Watched(identity, descriptor)
        running = frozenset(item.slice_ns for item in page.running)
        # What was frozen before this collector or this connection, and is not now, has ended meanwhile.
        self._store.offer(Arrival(identity, "unix", _ARRIVAL_BYTES, running=running))
        return watched

    def left(self, watched: _Watched) -> None:
        """The agent's stream has ended, for whatever reason; it may be dead."""
        if self._watched.get(watched.identity.instance) is watched:
            watched.connected = False
            self._look(watched)

    def farewell(self, watched: _Watched) -> None:
        """The agent stops on purpose: whatever still runs is not its business any more."""
        identity = watched.identity
        if self._watched.get(identity.instance) is watched:
            self._drop(identity.instance)
            self._store.offer(Arrival(identity, "unix", _ARRIVAL_BYTES, running=frozenset()))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            for watched in list(self._watched.values()):
                self._look(watched)

    def _look(self, watched: _Watched) -> None:
        now_ns = self._monotonic_ns()
        page = _read(watched.descriptor, now_ns)
        if page is None:
            self._drop(watched.identity.instance)
            return
        if watched.died_ns:
            self._bury(watched, page)
            return
        if _is_locked(watched.descriptor):
            self._tell(watched, page, now_ns)
            return
        watched.died_ns = now_ns
        if not watched.connected:
            self._bury(watched, page)

    def _tell(self, watched: _Watched, page: HeartbeatPage, now_ns: int) -> None:
        frozen = [item for item in page.running if now_ns - item.slice_ns >= page.stall_after_ns]
        running = {item.slice_ns for item in page.running}
        ended = watched.told_ns.keys() - running
        due = [item for item in frozen if now_ns - watched.told_ns.get(item.slice_ns, -TELL_NS) >= TELL_NS]
        for item in due:
            watched.told_ns[item.slice_ns] = now_ns
        for slice_ns in ended:
            del watched.told_ns[slice_ns]
        if due or ended:
            stalls = tuple([self._sighting(item, page, now_ns) for item in due])
            self._store.offer(
                Arrival(
                    watched.identity,
                    "unix",
                    _ARRIVAL_BYTES,
                    sites=_sites(watched.descriptor, due),
                    stalls=stalls,
                    running=frozenset(running),
                )
            )

    def _bury(self, watched: _Watched, page: HeartbeatPage) -> None:
        """What ran when the process died, died with it.

        Whether a slice had run for long enough to be a stall is known where it was seen alive at that age, or where the
        agent itself has told of it.
        """
        died = tuple(
            [
                replace(
                    self._sighting(item, page, watched.died_ns),
                    state="died",
                    only_if_known=item.slice_ns not in watched.told_ns,
                )
                for item in page.running
            ]
        )
        running = frozenset(item.slice_ns for item in page.running)
        self._counters.add("agents_died")
        sites = _sites(watched.descriptor, page.running)
        self._store.offer(Arrival(watched.identity, "unix", _ARRIVAL_BYTES, sites=sites, stalls=died, running=running))
        self._drop(watched.identity.instance)

    def _sighting(self, item: RunningSlice, page: HeartbeatPage, now_ns: int) -> StallSighting:
        return StallSighting(
            state="frozen",
            slice_ns=item.slice_ns,
            started_at_ms=max(0, int(self._wall_s() * 1000) - (self._monotonic_ns() - item.slice_ns) // 1_000_000),
            blocked_us=max(0, now_ns - item.slice_ns) // 1_000,
            last_site_id=item.site_id,
            gil_held=now_ns - page.looked_ns >= OVERDUE_NS,
        )

    def _make_room(self) -> bool:
        """Let go of an agent that is not connected any more."""
        gone = next((instance for instance, watched in self._watched.items() if not watched.connected), None)
        if gone is not None:
            self._drop(gone)
        return gone is not None

    def _drop(self, instance: bytes) -> None:
        watched = self._watched.pop(instance, None)
        if watched is not None:
            os.close(watched.descriptor)


def _read(descriptor: int, now_ns: int) -> HeartbeatPage | None:
    """The page, without slices of the future: a half-written word, or somebody who does not mean it."""
    try:
        page = read_heartbeat(os.pread(descriptor, PAGE_BYTES, 0))
    except OSError:
        return None
    if page is None:
        return None
    return page._replace(running=tuple([item for item in page.running if item.slice_ns <= now_ns]))


def _sites(descriptor: int, running: Iterable[RunningSlice]) -> tuple[SiteDefinition, ...]:
    """The definitions of the sites where these slices are, as far as the heartbeat has them."""
    found: list[SiteDefinition] = []
    for item in running:
        try:
            define = decode(read_text(os.pread(descriptor, TEXT_BYTES, text_at(item.slot))))
        except (OSError, WireError):
            continue
        if isinstance(define, Define):
            found += [site for site in define.sites if site.site_id == item.site_id]
    return tuple(found)


def _is_locked(descriptor: int) -> bool:
    """Whether another process holds the lock on the page; a dead one holds none."""
    try:
        asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
    except OSError:
        return True  # a system that cannot tell: no evidence of death
    return bool(kind != fcntl.F_UNLCK)
