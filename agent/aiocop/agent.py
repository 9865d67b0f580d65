"""The agent of one process: owns every station, sets them up, and takes them down again.

    loops ─┐
    calls ─┼─> slice ─> events (callbacks) ─┐
    watchdog┘            └─> aggregate ──────┴─> shipper ─> transport

Only this file knows them all. Set-up may happen in any order and from any thread, under one lock that no loop's slice
ever takes.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from aiocop import sqlite_queries
from aiocop.aggregate import Aggregate
from aiocop.allowing import AllowBlocking, AllowRule
from aiocop.calibration import calibrate
from aiocop.calls import Calls
from aiocop.catalogue import OPERATION_CAUSES, OWN, Operation, OperationCause, standard_operations
from aiocop.config import Configuration
from aiocop.disclosure import EVERYTHING, Disclosure
from aiocop.events import Events, SlowTaskCallback
from aiocop.frames import FrameNames
from aiocop.governor import Governor
from aiocop.heartbeat import Heartbeat, open_heartbeat
from aiocop.identity import ProcessIdentity
from aiocop.installed import own_places
from aiocop.loops import RUNNER_MODULE, Loops
from aiocop.opentelemetry_context import active_span
from aiocop.remote_control import RemoteControl
from aiocop.severity import WEIGHTS
from aiocop.shipping.scrubbing import Scrub
from aiocop.shipping.shipper import Shipper
from aiocop.slice import Slices
from aiocop.stalls import StallBoard
from aiocop.statistics import Statistics
from aiocop.traces import Traces
from aiocop.turns import Turns
from aiocop.watchdog import Watchdog

_logger = logging.getLogger("aiocop")
DEFAULT_THRESHOLD_MS: Final = 30.0
EXIT_FLUSH_S: Final = 2.0
_CLOSED: Final = -1


class Agent:
    """Everything `import aiocop` does, as one object. A process has one, made by `aiocop.api`."""

    def __init__(self) -> None:
        self._names = FrameNames(runner_module=RUNNER_MODULE)
        self._traces = Traces(self._names)
        self.events = Events(self._traces)
        self._slices = Slices(
            threshold_ns=round(DEFAULT_THRESHOLD_MS * 1e6),
            traces=self._traces,
            aggregate=Aggregate(self._traces),
            events=self.events,
        )
        self._governor = Governor(self._slices, calibrate)
        self._watchdog = Watchdog(self._slices, self._governor)
        self._slices.aggregate = self._new_aggregate()
        self.calls = Calls(self._slices, standard_operations())
        self._sqlite_queries = sqlite_queries.SqliteQueries(self._slices, self.calls.operations)
        self._loops = Loops(self._slices, self._watchdog)
        self._turns = Turns(self._slices)
        self.remote_control = RemoteControl(self._slices, self._change_now)
        self._activated = False
        """What activate() and deactivate() said; a collector may pause the agent all the same."""
        self._shipper: Shipper | None = None
        self._scrub: Scrub | None = None
        self.configuration: Configuration | None = None
        self._wrappers_installed = False
        self._detecting = False
        self._lock = threading.RLock()
        self._process_hooks_registered = False
        self._resume_watchdog = False
        self._interrupted: Operation | None = None
        """What the forking thread was in the middle of."""

    # --- one call -----------------------------------------------------------------------------------------------------

    def start(
        self,
        service: str | None = None,
        *,
        collector: str | None = None,
        environment: str | None = None,
        release: str | None = None,
        threshold_ms: float | None = None,
        stall_after_ms: float | None = None,
        enabled: bool | None = None,
        remote_control: bool | None = None,
        overhead_budget_percent: float | None = None,
        application: Sequence[str] = (),
        ship_context: Sequence[str] | None = None,
        ship_arguments: Sequence[str] | None = None,
        scrub: Scrub | None = None,
        udp_key_file: str | None = None,
        udp_key: str | None = None,
        on_slow_task: SlowTaskCallback | None = None,
        ship: bool = True,
    ) -> Agent:
        """See `aiocop.start`. Without `ship` nothing leaves the process, whatever collector there is."""
        configuration = Configuration.resolve(
            service,
            collector=collector,
            environment=environment,
            release=release,
            threshold_ms=threshold_ms,
            stall_after_ms=stall_after_ms,
            enabled=enabled,
            remote_control=remote_control,
            overhead_budget_percent=overhead_budget_percent,
            application=application,
            ship_context=ship_context,
            ship_arguments=ship_arguments,
            udp_key_file=udp_key_file,
            udp_key=udp_key,
        )
        if not ship:
            configuration = configuration._replace(shipping=False)
        with self._lock:
            if self.configuration is not None:
                return self
            self.configuration = configuration
            for problem in configuration.problems:
                _logger.error("aiocop ships nothing because of a bad environment variable: %s", problem)
            if not configuration.enabled:
                _logger.info("aiocop is off (enabled=0, by %s)", configuration.origins["enabled"])
                return self
            self._scrub = scrub
            self._names.set_application(configuration.application)
            self._governor.govern(configuration.overhead_budget_percent / 100)
            self._register_process_hooks()
            self.events.add_provider(active_span, before_slices=False)
            if on_slow_task is not None:
                self.events.add_callback(on_slow_task)
            if not self._wrappers_installed:
                self.patch_audit_functions()
            if not self.calls.hook_installed:
                self.start_blocking_io_detection()
            if not self._detecting:
                self.detect_slow_tasks(configuration.threshold_ms)
            if configuration.shipping:
                self._complain_of_unknown_operations(configuration.ship_arguments)
                self._start_shipping(configuration)
            self.activate()
        _logger.info(
            "aiocop watches %s: threshold %g ms, collector %s",
            configuration.service,
            self._slices.threshold_ns / 1e6,
            " or ".join(map(str, configuration.collector)) if configuration.shipping else "off",
        )
        return self

    def _complain_of_unknown_operations(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name != EVERYTHING and name not in self.calls.operations]
        if unknown:
            _logger.warning("aiocop: ship_arguments names no operation of the catalogue: %s", ", ".join(unknown))

    def _start_shipping(self, configuration: Configuration) -> None:
        self._slices.shipping = True
        self.remote_control.reset(accepts=configuration.remote_control)
        self._slices.disclosure = Disclosure.of(self.events, configuration.ship_context, configuration.ship_arguments)
        stall_after_ns = round(configuration.stall_after_ms * 1e6)
        stalls = heartbeat = None
        # Without the watchdog nobody looks at slices that run, nor says when they have ended.
        if self._watchdog.running:
            stalls = StallBoard(self._traces, stall_after_ns, self._wake_shipper)
            heartbeat = open_heartbeat(stall_after_ns)
        self._slices.stalls = stalls
        self._slices.show_on(heartbeat)
        self._shipper = Shipper(
            source=self._slices.aggregate,
            identity=ProcessIdentity(configuration, self._loop_names),
            addresses=configuration.collector,
            stalls=stalls,
            heartbeat_descriptor=lambda: _CLOSED if heartbeat is None else heartbeat.descriptor,
            udp_key=configuration.udp_key.reveal(),
            control=self.remote_control,
            scrub=self._scrub,
        )
        try:
            self._shipper.start()
        except (OSError, RuntimeError) as error:  # no descriptor or no thread left, or none allowed
            self._shipper = None
            self._end_heartbeat(Heartbeat.close)
            self._slices.shipping = False
            self._slices.disclosure = None
            _logger.warning("aiocop ships nothing, for it cannot have a thread or a descriptor: %s", error)

    def _wake_shipper(self) -> None:
        shipper = self._shipper
        if shipper is not None:
            shipper.wake()

    def _end_heartbeat(self, end: Callable[[Heartbeat], None]) -> None:
        heartbeat = self._slices.heartbeat
        self._slices.stalls = None
        self._slices.show_on(None)
        if heartbeat is not None:
            end(heartbeat)

    def flush(self, timeout: float = EXIT_FLUSH_S) -> bool:
        """See `aiocop.flush`."""
        shipper = self._shipper
        return shipper.flush(timeout) if shipper is not None else True

    def stop(self, timeout: float = EXIT_FLUSH_S) -> bool:
        """See `aiocop.stop`."""
        with self._lock:
            self._activated = False
            self._slices.active = False
            self.events.remove_provider(active_span)
            self._loops.remove()
            self._turns.remove()
            self._slices.gc_pauses.remove()
            self._sqlite_queries.remove()
            self.calls.remove()
            self._watchdog.stop()
            shipper, self._shipper = self._shipper, None
            # Before the flush: without the watchdog nobody would say that a slice has ended.
            self._end_heartbeat(Heartbeat.close)
            flushed = shipper.stop(timeout) if shipper is not None else True
            self.remote_control.reset(accepts=False)
            self._slices.shipping = False
            self._slices.disclosure = None
            self._slices.begin_anew(self._new_aggregate())
            self._governor.rest()
            self._wrappers_installed = False
            self._detecting = False
            self.configuration = None
        return flushed

    # --- step by step, as published -----------------------------------------------------------------------------------

    def patch_audit_functions(self) -> None:
        """See `aiocop.patch_audit_functions`."""
        with self._lock:
            if self._wrappers_installed:
                _logger.warning("patch_audit_functions called more than once, ignoring")
                return
            self._wrappers_installed = True
            self.calls.install_wrappers()
            self.calls.when_imported(sqlite_queries.MODULE, self._sqlite_queries.install)

    def start_blocking_io_detection(self, trace_depth: int = 20) -> None:
        """See `aiocop.start_blocking_io_detection`."""
        with self._lock:
            if self.calls.hook_installed:
                _logger.warning("start_blocking_io_detection called more than once, ignoring")
                return
            self._slices.trace_depth = trace_depth
            self.calls.install_hook()

    def detect_slow_tasks(
        self,
        threshold_ms: float = DEFAULT_THRESHOLD_MS,
        on_slow_task: SlowTaskCallback | None = None,
        *,
        sample: bool = True,
    ) -> None:
        """See `aiocop.detect_slow_tasks`."""
        with self._lock:
            if self._detecting:
                _logger.warning("detect_slow_tasks called more than once, ignoring")
                return
            self._detecting = True
            self._names.set_own_places(own_places(sys.path))
            self.remote_control.set_own_threshold(round(threshold_ms * 1e6))
            if on_slow_task is not None:
                self.events.add_callback(on_slow_task)
            self._loops.install()
            self.calls.when_imported("uvloop", self._loops.install_uvloop)
            if self._activated:
                self._settle_activity()
            self._register_process_hooks()
            if sample:
                self._watchdog.start()

    def start_cpu_sampling(self, interval_ms: float, arm_after_ms: float | None, max_samples_per_slice: int) -> None:
        """See `aiocop.start_cpu_sampling`."""
        with self._lock:
            if self._watchdog.running:
                _logger.warning("start_cpu_sampling called more than once, ignoring")
                return
            self._watchdog.interval_ns = round(interval_ms * 1e6)
            self._watchdog.arm_ns = None if arm_after_ms is None else round(arm_after_ms * 1e6)
            self._watchdog.max_samples = max_samples_per_slice
            self._register_process_hooks()
            self._watchdog.start()

    def activate(self) -> None:
        """See `aiocop.activate`."""
        with self._lock:
            self._activated = True
            self._settle_activity()

    def deactivate(self) -> None:
        """See `aiocop.deactivate`."""
        with self._lock:
            self._activated = False
            self._settle_activity()

    def _settle_activity(self) -> None:
        """Measure, or do not, as the process and the collector want it."""
        if not self._activated or self.remote_control.paused:
            self._slices.active = False
            self._loops.pause()
            self._turns.remove()
            self._slices.gc_pauses.remove()
            return
        if self._detecting:
            self._loops.install()
            self._turns.install()
            self._slices.gc_pauses.install()
        self._slices.active = True
        # Called inside a task, the rest of its running slice counts too.
        if self._detecting and asyncio._get_running_loop() is not None:  # noqa: SLF001 - get_running_loop raises
            self._slices.enter_implicit(self._slices.this_thread())

    def _change_now(self, change: Callable[[], None]) -> bool:
        """Change what a collector wants to be changed. False where somebody holds the lock: who may wait for us."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            change()
            self._settle_activity()
        finally:
            self._lock.release()
        return True

    def allow(self, operation: str | None, module: str | None, function: str | None) -> AllowRule:
        """See `aiocop.allow`."""
        if operation is None and module is None and function is None:
            raise ValueError("allow() needs at least one of operation=, module= and function=")
        rule = AllowRule(operation, module, function)
        with self._lock:
            self._traces.set_rules((*self._traces.rules, rule))
        return rule

    def disallow(self, rule: AllowRule) -> None:
        """See `aiocop.disallow`."""
        with self._lock:
            self._traces.set_rules(tuple([known for known in self._traces.rules if known is not rule]))

    def allow_blocking(self) -> AllowBlocking:
        """See `aiocop.allow_blocking`."""
        return AllowBlocking(self._slices)

    def register_operation(
        self, target: str, *, weight: int, cause: OperationCause, advice: str, name: str | None
    ) -> None:
        """See `aiocop.register_operation`."""
        module, dot, _ = target.rpartition(".")
        if not dot or not module:
            raise ValueError(f"register_operation({target!r}): give a dotted name, like 'shop.legacy.Client.fetch'")
        if weight not in WEIGHTS:
            raise ValueError(f"register_operation({target!r}): weight must be one of {WEIGHTS}, not {weight!r}")
        if cause not in OPERATION_CAUSES:
            raise ValueError(f"register_operation({target!r}): cause must be one of {OPERATION_CAUSES}, not {cause!r}")
        with self._lock:
            self.calls.add(Operation(name or target, weight, cause, advice, targets=(target,)))

    # --- questions ----------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        return self._slices.active

    @property
    def sampling(self) -> bool:
        return self._watchdog.running

    @property
    def threshold_ms(self) -> float:
        return self._slices.threshold_ns / 1e6

    @threshold_ms.setter
    def threshold_ms(self, threshold_ms: float) -> None:
        """From the next slice on, unless a collector wants another one."""
        with self._lock:
            self.remote_control.set_own_threshold(round(threshold_ms * 1e6))

    def reset_blocking_events(self) -> None:
        """See `aiocop.reset_blocking_events`."""
        self._slices.forget_calls()

    def statistics(self) -> Statistics:
        """See `aiocop.statistics`."""
        shipper = self._shipper
        aggregate = self._slices.aggregate
        common: dict[str, Any] = {
            "active": self._slices.active,
            "slices": aggregate.slices(),
            "faults": self._slices.faults,
            "callback_failures": self.events.failures,
            "remote_control": self.remote_control.status(),
            "overhead": self._governor.status(),
            "allowed": {str(rule): rule.matches for rule in self._traces.rules},
        }
        if shipper is None:
            recorded = aggregate.recorded()
            return Statistics(
                recorded=recorded,
                shipped=0,
                acknowledged=0,
                pending=recorded,
                dropped={},
                connection="off",
                collector="",
                last_error="",
                scrub_failures=0,
                agent_cpu_ns=self._watchdog.cpu_ns,
                **common,
            )
        shipping = shipper.statistics()
        return Statistics(
            recorded=shipping.recorded,
            shipped=shipping.shipped,
            acknowledged=shipping.acknowledged,
            pending=shipping.pending,
            dropped=shipping.dropped,
            connection=shipping.connection,
            collector=shipping.collector,
            last_error=shipping.last_error,
            scrub_failures=shipping.scrub_failures,
            agent_cpu_ns=shipping.agent_cpu_ns + self._watchdog.cpu_ns,
            **common,
        )

    def _loop_names(self) -> str:
        return ",".join(sorted({thread.loop for thread in list(self._slices.threads.values()) if thread.loop}))

    def _new_aggregate(self) -> Aggregate:
        return Aggregate(self._traces, lambda: self._watchdog.cpu_ns, self._governor.reported)

    # --- the process --------------------------------------------------------------------------------------------------

    def _register_process_hooks(self) -> None:
        """At exit and around fork. Neither can be taken back; without anything to do they return at once."""
        if not self._process_hooks_registered:
            self._process_hooks_registered = True
            atexit.register(self._at_exit)
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def _at_exit(self) -> None:
        if self._detecting or self._shipper is not None:
            self.stop(EXIT_FLUSH_S)

    def _before_fork(self) -> None:
        # From CPython 3.12 on os.fork warns while other threads run: ours end for the moment.
        if self._detecting:
            self._lock.acquire()
            self._interrupted = self._slices.this_thread_runs(OWN)
            self._resume_watchdog = self._watchdog.running
            self._watchdog.stop()
            if self._shipper is not None:
                self._shipper.pause()

    def _after_fork_in_parent(self) -> None:
        if self._detecting:
            if self._shipper is not None:
                self._shipper.resume()
            if self._resume_watchdog:
                self._watchdog.start()
            self._slices.this_thread_runs(self._interrupted)
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        """The child is a new agent: it counts from zero under a new identity."""
        if not self._detecting:
            return
        self._lock = threading.RLock()
        was_paused = self.remote_control.paused
        self._watchdog.abandon()
        if self._shipper is not None:
            self._shipper.abandon()
        self._end_heartbeat(Heartbeat.abandon)
        self._slices.begin_anew(self._new_aggregate())
        self._governor.begin_anew()
        if self._resume_watchdog:
            self._watchdog.start()
        if self._shipper is not None and self.configuration is not None:
            self._start_shipping(self.configuration)
            if was_paused:
                self._settle_activity()  # nobody has paused this one yet
