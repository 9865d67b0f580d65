"""The thread that looks at slices while they run.

It wakes when a running slice reaches half the threshold, and from then on takes samples of its stack: every
`interval_ns` at first, more rarely as the slice grows old, so that a freeze of minutes costs no more samples than a
freeze of a second. While no slice runs it is parked on a lock and costs nothing; the next slice wakes it.

A native call that holds the GIL keeps this thread from running; the stack it sees right afterwards is still the
culprit's.
"""

import threading
from typing import Final

from aiocop._stdlib import allocate_lock, current_frames, perf_counter_ns, thread_time_ns
from aiocop.attribution import Moment, Sample
from aiocop.loop_thread import LoopThread
from aiocop.slice import MAX_SAMPLES_PER_SLICE, Slices
from aiocop.traces import MAX_SITE_FRAMES

THREAD_NAME: Final = "aiocop-watchdog"
_SHORTEST_SLEEP_NS: Final = 1_000_000
_SHORTEST_ARM_NS: Final = 1_000_000


class Watchdog:
    """Samples the slices that overrun. `start` and `stop` may be called again and again, from one thread at a time."""

    def __init__(self, slices: Slices) -> None:
        self.parked = False
        """Read at the start of every slice. Written by the watchdog's thread (True) and whoever wakes it (False)."""
        self.cpu_ns = 0
        """CPU time of the watchdog's thread, as of its last look. Written by that thread."""
        self.interval_ns = 10_000_000
        self.arm_ns: int | None = None
        """Age from which a slice is sampled; None is half the threshold."""
        self.max_samples = MAX_SAMPLES_PER_SLICE
        self._slices = slices
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._wake = allocate_lock()
        self._wake.acquire()

    @property
    def running(self) -> bool:
        return self._thread is not None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._stopping = False
            self.parked = False
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._thread.start()

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
        self.parked = False
        self._wake = allocate_lock()
        self._wake.acquire()

    def wake(self) -> None:
        """Let the parked thread look again. Called on a loop's thread: two releases of a lock at most, no waiting."""
        self.parked = False
        try:
            self._wake.release()
        except RuntimeError:
            # Another loop's thread released it in the same moment; one wake-up is enough.
            return

    def _run(self) -> None:
        past_cpu_ns = self.cpu_ns
        while not self._stopping:
            wait_ns = self._look()
            self.cpu_ns = past_cpu_ns + thread_time_ns()
            if wait_ns is None:
                self.parked = True
                # A slice that began before it could see `parked` has nobody to wake: look once more.
                if self._stopping or any(thread.started_ns for thread in list(self._slices.threads.values())):
                    self.parked = False
                    continue
                self._wake.acquire()
                # Look at once: the GIL may have been held since the slice woke us. Then stay awake for a while: to be
                # parked and woken between many short slices would cost the loop more than to look in vain.
                wait_ns = self._look() or self._armed_after_ns()
            self._wake.acquire(timeout=max(wait_ns, _SHORTEST_SLEEP_NS) / 1e9)

    def _armed_after_ns(self) -> int:
        return max(_SHORTEST_ARM_NS, self._slices.threshold_ns // 2) if self.arm_ns is None else self.arm_ns

    def _look(self) -> int | None:
        """Sample what is old enough. How long until something else may be, None while no slice runs."""
        arm_ns = self._armed_after_ns()
        wait_ns: int | None = None
        for thread in list(self._slices.threads.values()):
            started_ns = thread.started_ns
            if not started_ns:
                continue
            age_ns = perf_counter_ns() - started_ns
            if age_ns >= arm_ns:
                self._sample(thread, started_ns)
                next_ns = max(self.interval_ns, age_ns // 16)
            else:
                thread.glimpse = Moment(perf_counter_ns(), thread.clock.read())
                next_ns = arm_ns - age_ns
            wait_ns = next_ns if wait_ns is None else min(wait_ns, next_ns)
        return wait_ns

    def _sample(self, thread: LoopThread, started_ns: int) -> None:
        samples = thread.samples
        if len(samples) >= self.max_samples:
            return
        times = thread.clock.read()
        stack = self._slices.traces.stack(current_frames().get(thread.ident), MAX_SITE_FRAMES)
        measured = thread.operation is not None
        # Looking took a while: only if the same slice still runs was it this slice that was seen.
        if thread.started_ns == started_ns:
            samples.append(Sample(started_ns, perf_counter_ns(), times, measured, stack))
