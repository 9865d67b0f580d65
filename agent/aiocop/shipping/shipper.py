"""The shipper: one daemon thread that carries what was counted to the collector.

Every second it takes a window from the source and hands it to the transport; at full minutes it takes one even when the
collector is away, so that minutes stay apart. It waits in one place, `poll` on the transport's descriptor and on a pipe
that wakes it, and nothing it calls blocks (but the look-up of a host name for udp).

`flush` and `stop` wait for it, bounded; `pause` and `resume` end and restart the thread around a fork, with the
connection left open; `abandon` is for the child.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from aiocop._stdlib import (
    LockType,
    RLock,
    allocate_lock,
    get_ident,
    monotonic_ns,
    sleep,
    stat,
    thread_time_ns,
    time_ns,
)
from aiocop.shipping.ledger import Ledger
from aiocop.shipping.pending import MINUTE_MS, PendingEvents, PendingWindow, PendingWindows
from aiocop.shipping.report_source import Controllable, ReportSource, StallSource, Window
from aiocop.shipping.reports import MAX_STALLS
from aiocop.shipping.scrubbing import Scrub, Scrubber
from aiocop.shipping.statistics import ShippingStatistics
from aiocop.shipping.transport import NEVER_NS, ONE_MS_NS, ONE_S_NS, REFUSED, STOPPED, WAITING, logger
from aiocop.shipping.transports import make_transport
from aiocop.shipping.waker import Waker
from aiocop_wire import Address, Health, Identity, Stall

__all__ = ["ReportSource", "Shipper", "Window"]

THREAD_NAME: Final = "aiocop-shipper"
_HEARTBEAT_NS: Final = 10 * ONE_S_NS
_LONGEST_WAIT_NS: Final = 60 * ONE_S_NS
_AFTER_ERROR_NS: Final = ONE_S_NS
_PAUSE_S: Final = 1.0
_HURRY_NS: Final = 200 * ONE_MS_NS
_QUEUE_FULL_EVENTS: Final = "queue_full_events"
_UNENCODABLE_EVENTS: Final = "unencodable_events"


class _FlushRequest:
    """Somebody waits for everything recorded so far to be delivered."""

    __slots__ = ("_done", "_settled", "taken", "ticket")

    def __init__(self) -> None:
        self._done: LockType = allocate_lock()
        self._done.acquire()
        self._settled = False
        self.taken = False  # a window was taken since the request
        self.ticket: int | None = None  # all of it is with the transport, which calls it this

    def answer(self, *, settled: bool) -> None:
        self._settled = settled
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        return self._done.acquire(timeout=max(0.0, timeout_s)) and self._settled


class Shipper:
    """Ships what `source` counts to the collector at one of `addresses` (unix addresses are alternatives)."""

    def __init__(
        self,
        *,
        source: ReportSource,
        identity: Callable[[], Identity],
        addresses: tuple[Address, ...],
        interval_s: float = 1.0,
        wall_clock_ns: Callable[[], int] = time_ns,
        stalls: StallSource | None = None,
        heartbeat_descriptor: Callable[[], int] = lambda: -1,
        udp_key: bytes = b"",
        control: Controllable | None = None,
        scrub: Scrub | None = None,
    ) -> None:
        self._source = source
        self._control = control
        self._scrubber = Scrubber(scrub, source)
        self._wall_clock_ns = wall_clock_ns
        self._interval_ns = int(interval_s * ONE_S_NS)
        self._ledger = Ledger(source.recorded)
        self._stalls = stalls
        self._transport = make_transport(
            addresses, identity, source, self._ledger, self._health, heartbeat_descriptor, udp_key, control
        )
        self._windows = PendingWindows()
        self._events = PendingEvents()
        # Re-entrant, because a signal handler may flush or stop while the thread it interrupted does.
        self._lifecycle = RLock()  # held by start, stop, pause and resume, never by the thread
        # Guards _new_requests, and that none comes after the last. Nobody takes another lock while holding it: a signal
        # handler that flushes may have interrupted whoever holds that one.
        self._requests_lock = RLock()
        self._new_requests: list[_FlushRequest] | None = None  # None while no thread will answer
        self._requests: list[_FlushRequest] = []  # this and the next three: the thread's own
        self._stop_request: _FlushRequest | None = None
        self._next_hurry_ns = 0
        self._waker = Waker()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._pausing = False  # written before waking the thread, read by it; so is the next
        self._stop_by_ns = NEVER_NS
        self._settled_at_stop = False
        self._window_started_ms = 0
        self._next_take_ns = 0
        self._next_heartbeat_ns = 0
        self._past_threads_cpu_ns = 0
        self._thread_cpu_ns = 0
        self._logged_error = False

    # Life

    def start(self) -> None:
        """Start the thread. Does nothing when it runs or the shipper was stopped.

        Raises OSError where the process has no descriptor left, RuntimeError where it can have no more threads.
        """
        with self._lifecycle:
            if self._waker.is_open or self._stopped:
                return
            self._waker.open()
            self._new_requests = []
            self._window_started_ms = self._wall_clock_ns() // ONE_MS_NS
            self._next_take_ns = monotonic_ns() + self._interval_ns
            try:
                self._start_thread()
            except RuntimeError:
                self._close()
                raise

    def _start_thread(self) -> None:
        self._pausing = False
        thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        thread.start()
        self._thread = thread

    def flush(self, timeout_s: float) -> bool:
        """Whether everything recorded before the call is delivered within `timeout_s`.

        Blocks the caller. False at once where waiting is in vain: the thread does not run, or is the caller.
        """
        thread = self._thread
        if thread is not None and thread.ident == get_ident():
            return False
        request = _FlushRequest()
        with self._requests_lock:
            if self._new_requests is None:
                return False
            self._new_requests.append(request)
        self._waker.wake()
        return request.wait(timeout_s)

    def stop(self, timeout_s: float) -> bool:
        """Deliver what was recorded, say farewell, end the thread, give every descriptor back.

        Whether all was delivered within `timeout_s`, at most how long this blocks. A collector that never answered is
        not waited for. Another call returns the same.
        """
        deadline_ns = monotonic_ns() + int(timeout_s * ONE_S_NS)
        if not self._lifecycle.acquire(timeout=max(0.0, timeout_s)):
            return False
        try:
            self._stopped = True
            thread = self._thread
            if thread is None or thread.ident == get_ident():
                return self._settled_at_stop or self._ledger.balance().pending == 0
            self._stop_by_ns = deadline_ns
            self._waker.wake()
            thread.join(max(0.0, timeout_s) + 0.25)
            if not thread.is_alive():
                self._thread = None
            return self._settled_at_stop
        finally:
            self._lifecycle.release()

    def wake(self) -> None:
        """There is something to ship that does not wait for the next window. Any thread; never blocks for long."""
        self._waker.wake()

    def pause(self) -> None:
        """End the thread and keep its connection: for the moment of a fork. `resume` must follow."""
        if not self._lifecycle.acquire(timeout=_PAUSE_S):
            return  # a stop is under way in another thread; the fork is not held up for it
        try:
            thread = self._thread
            if thread is None or thread.ident == get_ident() or self._stopped:
                return
            self._pausing = True
            self._waker.wake()
            thread.join(_PAUSE_S)
            if not thread.is_alive():
                self._thread = None
                _wait_for_exit(thread.native_id)
        finally:
            self._lifecycle.release()

    def resume(self) -> None:
        """After `pause`, in the parent."""
        if not self._lifecycle.acquire(timeout=_PAUSE_S):
            return
        try:
            if not self._pausing or self._stopped:
                return
            if self._thread is not None:  # looking up a name, most likely; it did not end in time
                self._thread.join(_PAUSE_S)
            if self._thread is None or not self._thread.is_alive():
                self._start_thread()
            self._pausing = False
        finally:
            self._lifecycle.release()

    def abandon(self) -> None:
        """In a forked child: close the inherited descriptors, say nothing to anybody, touch no lock."""
        self._stopped = True
        self._thread = None
        self._new_requests = None
        self._transport.abandon()
        self._waker.abandon()

    def statistics(self) -> ShippingStatistics:
        """One consistent look, from any thread."""
        transport = self._transport
        balance = self._ledger.balance()
        return ShippingStatistics(
            recorded=balance.recorded,
            acknowledged=balance.delivered,
            pending=balance.pending,
            dropped=balance.dropped,
            shipped=balance.shipped,
            slow_events_acknowledged=balance.slow_events_delivered,
            slow_events_pending=balance.slow_events_pending,
            reports_sent=transport.reports_sent,
            reports_acknowledged=transport.reports_acknowledged,
            bytes_sent=transport.bytes_sent,
            connection=transport.state if self._waker.is_open else STOPPED,
            collector=transport.address,
            connection_failures=transport.failures,
            last_error=transport.last_error,
            agent_cpu_ns=self._past_threads_cpu_ns + self._thread_cpu_ns,
            scrub_failures=self._scrubber.failures,
        )

    def _health(self) -> Health:
        health = self._source.health()
        own_cpu_us = (self._past_threads_cpu_ns + self._thread_cpu_ns) // 1000
        return health._replace(agent_cpu_us=health.agent_cpu_us + own_cpu_us)

    # The thread

    def _run(self) -> None:
        mask = 0
        try:
            while not self._pausing:
                try:
                    finished = self._turn(mask)
                    wait_ns = self._wait_ns()
                # The border of the thread: a mistake of ours costs a second, not the service's telemetry.
                except Exception as error:  # noqa: BLE001
                    self._note_error(error)
                    finished, wait_ns = monotonic_ns() >= self._stop_by_ns, _AFTER_ERROR_NS
                self._thread_cpu_ns = thread_time_ns()
                if finished:
                    self._close()
                    return
                mask = self._waker.wait(wait_ns, self._transport.descriptor(), self._transport.interest())
        finally:
            self._past_threads_cpu_ns += thread_time_ns()
            self._thread_cpu_ns = 0

    def _turn(self, mask: int) -> bool:
        """Do everything that can be done now. True when the thread's work is over."""
        now_ns = monotonic_ns()
        self._collect_requests(now_ns)
        self._transport.turn(now_ns, mask)
        if self._control is not None:
            self._control.settle(now_ns)
        self._move(now_ns)
        self._settle()
        if self._stop_request is None:
            return False
        settled = self._stop_request not in self._requests
        if settled or self._is_hopeless() or now_ns >= self._stop_by_ns:
            self._settled_at_stop = settled
            self._transport.farewell(now_ns)
            return True
        return False

    def _is_hopeless(self) -> bool:
        """Whether a process that ends should not wait: nobody is there, and nobody ever was."""
        transport = self._transport
        never_answered = transport.state == WAITING and transport.failures > 0 and not transport.was_connected
        return never_answered or transport.state == REFUSED

    def _collect_requests(self, now_ns: int) -> None:
        with self._requests_lock:
            fresh, self._new_requests = self._new_requests or [], []
        if self._stop_by_ns != NEVER_NS and self._stop_request is None:
            self._stop_request = _FlushRequest()
            fresh.append(self._stop_request)
        self._requests += fresh
        if fresh or (self._requests and now_ns >= self._next_hurry_ns):
            self._next_hurry_ns = now_ns + _HURRY_NS
            self._transport.hurry(now_ns)

    def _move(self, now_ns: int) -> None:
        """From the source into the queue, from the queue to the transport."""
        transport = self._transport
        wall_ms = self._wall_clock_ns() // ONE_MS_NS
        minute_over = wall_ms // MINUTE_MS != self._window_started_ms // MINUTE_MS
        wanted = now_ns >= self._next_take_ns or any(not request.taken for request in self._requests)
        if minute_over or (wanted and transport.ready()):
            self._take(now_ns, wall_ms)
        stalls = self._stalls
        if stalls is not None:
            transport.show_stalls(now_ns, stalls.going_on())
        while transport.ready() and self._has_something_to_send(now_ns):
            self._next_heartbeat_ns = now_ns + _HEARTBEAT_NS
            self._send_oldest(now_ns, wall_ms)
        if transport.ready() and now_ns >= self._next_heartbeat_ns:
            self._next_heartbeat_ns = now_ns + _HEARTBEAT_NS
            transport.send(now_ns, PendingWindow(wall_ms, wall_ms, ()), ())
        transport.turn(now_ns, 0)

    def _has_something_to_send(self, now_ns: int) -> bool:
        if self._events or (self._stalls is not None and self._stalls.ended) or self._windows.presses():
            return True
        # What idle loops did goes with the sign of life that is due anyway, unless somebody waits for all there is.
        return bool(self._windows) and (bool(self._requests) or now_ns >= self._next_heartbeat_ns)

    def _send_oldest(self, now_ns: int, wall_ms: int) -> None:
        window = self._windows.oldest() if self._windows else PendingWindow(wall_ms, wall_ms, ())
        events = self._events.pop_all()
        try:
            self._transport.send(now_ns, window, events, self._pop_stalls())
        except (TypeError, ValueError, OverflowError):  # OverflowError is msgpack's for integers above 64 bits
            self._ledger.drop_queued_events(len(events), _UNENCODABLE_EVENTS)
            raise
        if self._windows:
            self._windows.remove_oldest()

    def _pop_stalls(self) -> tuple[Stall, ...]:
        if self._stalls is None:
            return ()
        ended = self._stalls.ended
        return tuple([ended.popleft() for _ in range(min(len(ended), MAX_STALLS))])  # nobody else takes from it

    def _take(self, now_ns: int, wall_ms: int) -> None:
        taken = self._source.take()
        for request in self._requests:
            request.taken = True
        window = PendingWindow(self._window_started_ms, wall_ms, taken.deltas, taken.loops)
        self._ledger.take(window.calls, len(taken.slow_events), taken.dropped)
        self._windows.add(window)
        left_out = self._events.add([self._scrubber.scrub(event) for event in taken.slow_events])
        if left_out:
            self._ledger.drop_queued_events(left_out, _QUEUE_FULL_EVENTS)
        self._window_started_ms = wall_ms
        self._next_take_ns = now_ns + self._interval_ns

    def _settle(self) -> None:
        """Answer those whose part is delivered."""
        waiting = []
        for request in self._requests:
            if request.taken and request.ticket is None and not self._windows and not self._events:
                request.ticket = self._transport.ticket()
            if request.ticket is not None and self._transport.settled(request.ticket):
                request.answer(settled=True)
            else:
                waiting.append(request)
        self._requests = waiting

    def _wait_ns(self) -> int:
        now_ns = monotonic_ns()
        wall_ms = self._wall_clock_ns() // ONE_MS_NS
        until_ns = min(
            now_ns + (MINUTE_MS - wall_ms % MINUTE_MS) * ONE_MS_NS,
            now_ns + _LONGEST_WAIT_NS,
            self._transport.next_turn_ns(),
            self._stop_by_ns,
            NEVER_NS if self._control is None else self._control.next_turn_ns(),
        )
        if self._transport.ready():
            until_ns = min(until_ns, self._next_take_ns, self._next_heartbeat_ns)
        if self._requests and self._transport.state == WAITING:
            until_ns = min(until_ns, self._next_hurry_ns)
        return max(0, until_ns - now_ns)

    def _note_error(self, error: Exception) -> None:
        self._transport.break_off(monotonic_ns(), f"{type(error).__name__}: {error}")
        if not self._logged_error:
            self._logged_error = True
            logger.error("aiocop: shipping met an error and goes on; further ones are only counted", exc_info=error)

    def _close(self) -> None:
        self._transport.close()
        with self._requests_lock:
            unanswered = self._requests + (self._new_requests or [])
            self._requests, self._new_requests = [], None
        self._waker.close()
        for request in unanswered:
            request.answer(settled=False)


def _wait_for_exit(native_id: int | None) -> None:
    """Until the kernel forgets the thread: `join` returns a little earlier, and os.fork counts threads by /proc."""
    deadline_ns = monotonic_ns() + 100 * ONE_MS_NS
    while monotonic_ns() < deadline_ns:
        try:
            stat(f"/proc/self/task/{native_id}")
        except OSError:
            return
        sleep(0.0005)
