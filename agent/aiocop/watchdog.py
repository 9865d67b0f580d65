"""The thread that looks at slices while they run.

It wakes when a running slice reaches half the threshold, and from then on takes samples of its stack: every
`interval_ns` at first, more rarely as the slice grows old, so that a freeze of minutes costs no more samples than a
freeze of a second. While no slice runs it is parked on a lock and costs nothing; the next slice wakes it.

A slice that runs past `stall_after` it tells to the stall board (stalls.py), and until it has ended it looks at least
twice a second. On the heartbeat it marks that it could look, which slices have ended, and where it saw one that runs.

A native call that holds the GIL keeps this thread from running; the stack it sees right afterwards is still the
culprit's. But only then: whatever gives up the GIL, as reading a file does, lets the loop go on. So samples are taken
before anything else, and again after each reading that took long.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from aiocop._stdlib import allocate_lock, current_frames, perf_counter_ns, thread_time_ns
from aiocop.attribution import Moment, Sample
from aiocop.catalogue import CPU
from aiocop.governor import Governor
from aiocop.loop_thread import LoopThread
from aiocop.slice import MAX_SAMPLES_PER_SLICE, Slices
from aiocop.stalls import REFRESH_NS
from aiocop.starvation import NEVER
from aiocop.thread_clock import ThreadClock, ThreadTimes
from aiocop.uvloop_turns import UvloopTurns
from aiocop_wire.heartbeat import BEGUN, FINISHED, SEEN, SEEN_IN

THREAD_NAME: Final = "aiocop-cpu-sampler"  # as published; programs look for it
_logger: Final = logging.getLogger("aiocop")
_SHORTEST_SLEEP_NS: Final = 1_000_000
_SHORTEST_ARM_NS: Final = 1_000_000
_STALLED_LOOK_NS: Final = REFRESH_NS // 2
_KEPT_NS: Final = 2_000_000
"""A reading that took so long, of some microseconds, was kept waiting for the GIL."""
_FOR_EVER: Final = -1.0
_GOVERNED_PARK_S: Final = 1.0


class Watchdog:
    """Samples the slices that overrun. `start` and `stop` may be called again and again, from one thread at a time."""

    def __init__(self, slices: Slices, governor: Governor) -> None:
        self.parked = False
        """Written by the watchdog's thread (True) and whoever wakes it (False). While it is True, Starvation.due_ns is
        0, which is what the start of every slice reads."""
        self.cpu_ns = 0
        """CPU time of the watchdog's thread, as of its last look. Written by that thread."""
        self.interval_ns = 10_000_000
        self.arm_ns: int | None = None
        """Age from which a slice is sampled; None is half the threshold."""
        self.max_samples = MAX_SAMPLES_PER_SLICE
        self._slices = slices
        self._starvation = slices.starvation
        self.uvloop_turns = UvloopTurns(slices)
        self._clock: ThreadClock | None = None
        """Of the watchdog's thread, while it runs."""
        self._governor = governor
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._wake = allocate_lock()
        self._wake.acquire()

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Start the thread, unless it runs.

        Where there can be none (an isolated sub-interpreter, a limit of the process) calls that block are still seen.
        """
        if self._thread is None:
            self._stopping = False
            self.parked = False
            self._starvation.parks()  # until its first look, slices look for themselves
            self._starvation.watch_quota()
            try:
                thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                thread.start()
            except RuntimeError as error:
                self._starvation.begin_anew()  # nobody sleeps who could be late
                _logger.warning("aiocop takes no CPU samples, for it cannot have a thread: %s", error)
            else:
                self._thread = thread

    def stop(self) -> None:
        """End the thread and wait for it."""
        thread = self._thread
        if thread is not None:
            self._stopping = True
            self.wake()
            thread.join()
            self._thread = None

    def abandon(self) -> None:
        """In a forked child: the thread stayed with the parent."""
        self._thread = None
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.close()
        self.parked = False
        self._wake = allocate_lock()
        self._wake.acquire()

    def attend(self, thread: LoopThread) -> int:
        """A slice begins while the watchdog is parked or late. Called on the loop's thread.

        Returns when the slice begins (perf_counter_ns), which may be later now.
        """
        started_ns = thread.started_ns
        # First of all: waking the watchdog may cost the loop its CPU.
        before = thread.glimpse
        thread.note(Moment(started_ns, thread.clock.read()))
        at_most_ns = NEVER
        self.uvloop_turns.note_loop(thread)
        if self.parked:
            self.wake()
        elif before is not None:
            self._starvation.judge(started_ns)
            at_most_ns = self._starvation.held_ns(before.at_ns)
        try:
            self._slices.begin_late(thread, before, at_most_ns)
        except Exception:  # noqa: BLE001 - the border to the service: its callback is about to run
            self._slices.fault()
        if not thread.started_ns:
            thread.started_ns = thread.beat[BEGUN] = started_ns = perf_counter_ns()
        return started_ns

    def wake(self) -> None:
        """Let the parked thread look again. Called on a loop's thread: two releases of a lock at most, no waiting."""
        self.parked = False
        clock = self._clock
        if clock is not None:
            self._starvation.sleeps_until(perf_counter_ns(), clock)
        try:
            self._wake.release()
        except RuntimeError:
            # Another loop's thread released it in the same moment; one wake-up is enough.
            return

    def _run(self) -> None:
        # Between here and the first look nothing else is read: see `_see`.
        self._clock = clock = ThreadClock()
        try:
            self._look_on(clock)
        finally:
            self._starvation.begin_anew()
            self._clock = None
            clock.close()

    def _look_on(self, clock: ThreadClock) -> None:
        past_cpu_ns = self.cpu_ns
        starvation = self._starvation
        while not self._stopping:
            wait_ns = self._look_safely()
            self.cpu_ns = past_cpu_ns + thread_time_ns()
            if wait_ns is None:
                self.parked = True
                starvation.parks()
                # A slice that began before it could see `parked` has nobody to wake: look once more.
                if self._stopping or self._running():
                    self.parked = False
                    starvation.due_ns = NEVER
                    continue
                # While the governor holds something back, it has to see that the storm is over.
                if not self._wake.acquire(timeout=_GOVERNED_PARK_S if self._governor.governs else _FOR_EVER):
                    self.parked = False
                    starvation.due_ns = NEVER
                    continue
                if self._stopping:
                    # A slice woke us, and stop() had nothing left to wake: nobody would again.
                    break
                # Look at once: the GIL may have been held since the slice woke us. Then stay awake for a while: to be
                # parked and woken between many short slices would cost the loop more than to look in vain.
                wait_ns = self._look_safely() or self._armed_after_ns()
            wait_ns = max(wait_ns, _SHORTEST_SLEEP_NS)
            now_ns = perf_counter_ns()
            starvation.sleeps_until(now_ns + wait_ns, clock)
            if perf_counter_ns() - now_ns >= _KEPT_NS:
                self._see_safely()
            self._wake.acquire(timeout=wait_ns / 1e9)

    def _armed_after_ns(self) -> int:
        return max(_SHORTEST_ARM_NS, self._slices.threshold_ns // 2) if self.arm_ns is None else self.arm_ns

    def _look_safely(self) -> int | None:
        self._see_safely()
        try:
            self._governor.look()
            return self._look()
        except Exception:  # noqa: BLE001 - the border of the thread: without it slices would seem to run for ever
            self._slices.fault()
            return _STALLED_LOOK_NS

    def _see_safely(self) -> None:
        try:
            self._see()
        except Exception:  # noqa: BLE001 - the border of the thread, as above
            self._slices.fault()

    def _running(self) -> set[int]:
        """The slices that run, by their start; those that ended are marked so on the heartbeat."""
        running: set[int] = set()
        for thread in list(self._slices.threads.values()):
            begun_ns = thread.beat[BEGUN]
            started_ns = thread.started_ns
            if started_ns:
                running.add(started_ns)
                if thread.beat[FINISHED] == started_ns:
                    thread.beat[FINISHED] = 0  # context providers ran when we looked last: not a part of the slice
            else:
                # What was there before we saw that nothing runs has ended, whatever begins right now.
                thread.beat[FINISHED] = begun_ns
        return running

    def _look(self) -> int | None:
        """Sample what is old enough. How long until something else may be, None while no slice runs."""
        read_ns = perf_counter_ns()
        held_ns = self._starvation.judge(read_ns)
        read_ns = self._see_if_kept(read_ns)
        for _ in self._slices.workers.note():
            read_ns = self._see_if_kept(read_ns)
        self._starvation.note_quota()
        self._see_if_kept(read_ns)
        arm_ns = self._armed_after_ns()
        wait_ns: int | None = None
        stalls = self._slices.stalls
        heartbeat = self._slices.heartbeat
        if heartbeat is not None:
            heartbeat.looked(perf_counter_ns())
        running = self._running()
        for thread in list(self._slices.threads.values()):
            started_ns = thread.started_ns
            if not started_ns:
                if not held_ns:  # else the thread must find out itself whether it wanted to run
                    self._glimpse(thread)
                continue
            age_ns = perf_counter_ns() - started_ns
            next_ns = self._look_at(thread, started_ns, age_ns, arm_ns)
            if stalls is not None:
                if age_ns >= stalls.stall_after_ns:
                    stalls.look(thread, started_ns, perf_counter_ns())
                    next_ns = min(next_ns, _STALLED_LOOK_NS)
                else:
                    next_ns = min(next_ns, stalls.stall_after_ns - age_ns)
            wait_ns = next_ns if wait_ns is None else min(wait_ns, next_ns)
        if stalls is not None:
            stalls.settle(running | self._running())
        return wait_ns

    def _look_at(self, thread: LoopThread, started_ns: int, age_ns: int, arm_ns: int) -> int:
        """See to the sample that is due. How long until the next one is."""
        if age_ns < arm_ns:
            self._glimpse(thread)
            return arm_ns - age_ns
        if self._due_ns(thread, started_ns, age_ns) <= _SHORTEST_SLEEP_NS:
            self._sample(thread, started_ns)  # it came of age meanwhile
        self._complete(thread, started_ns)
        due_ns = self._due_ns(thread, started_ns, age_ns)
        return due_ns if due_ns > _SHORTEST_SLEEP_NS else self._between_ns(age_ns)

    def _between_ns(self, age_ns: int) -> int:
        """How long between two samples of a slice."""
        return max(self.interval_ns, age_ns // 16)

    def _due_ns(self, thread: LoopThread, started_ns: int, age_ns: int) -> int:
        """How long until the next sample of a slice that is old enough."""
        samples = thread.samples
        if not samples or samples[-1].started_ns != started_ns:
            return 0
        return samples[-1].at_ns + self._between_ns(age_ns) - perf_counter_ns()

    def _see_if_kept(self, since_ns: int) -> int:
        """Something was read since then: whoever kept us waiting for the GIL meanwhile still stands there. Now."""
        now_ns = perf_counter_ns()
        if now_ns - since_ns >= _KEPT_NS:
            self._see()
        return perf_counter_ns()

    def _see(self) -> None:
        """Take the samples that are due, without anything that gives up the GIL."""
        arm_ns = self._armed_after_ns()
        for thread in list(self._slices.threads.values()):
            started_ns = thread.started_ns
            if started_ns:
                age_ns = perf_counter_ns() - started_ns
                if age_ns >= arm_ns and self._due_ns(thread, started_ns, age_ns) <= _SHORTEST_SLEEP_NS:
                    self._sample(thread, started_ns)

    def _times(self, thread: LoopThread) -> ThreadTimes | None:
        before_ns = perf_counter_ns()
        times = thread.clock.read()
        self._see_if_kept(before_ns)
        return times

    def _glimpse(self, thread: LoopThread) -> None:
        seen = Moment(perf_counter_ns(), self._times(thread))
        thread.note(seen)
        self.uvloop_turns.looked(thread, seen)

    def _sample(self, thread: LoopThread, started_ns: int) -> None:
        """Without the thread's times, see `_complete`."""
        samples = thread.samples
        if len(samples) >= self.max_samples:
            return
        measured = thread.operation is not None
        traces = self._slices.traces
        stack = traces.stack(current_frames().get(thread.ident), traces.looked_depth)
        # Looking took a while: only if the same slice still runs was it this slice that was seen.
        if thread.started_ns == started_ns:
            samples.append(Sample(started_ns, perf_counter_ns(), None, measured, stack))

    def _complete(self, thread: LoopThread, started_ns: int) -> None:
        """What gives up the GIL and can wait: the thread's times, and what the heartbeat says of the last sample."""
        samples = thread.samples
        sample = samples[-1] if samples else None
        if sample is None or sample.started_ns != started_ns or sample.times is not None:
            return
        if self._slices.heartbeat is not None and not sample.measured:
            definition = self._slices.traces.site(CPU, sample.stack).definition
            if thread.beat[SEEN] != definition.site_id:
                thread.tell(definition)
                thread.beat[SEEN] = definition.site_id
            thread.beat[SEEN_IN] = started_ns
        times = thread.clock.read()
        # The thread was there for as long as this took, or the slice is over and accounted for without its times.
        if thread.started_ns == started_ns and samples[-1] is sample:
            samples[-1] = sample._replace(at_ns=perf_counter_ns(), times=times)
