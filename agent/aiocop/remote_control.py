"""What the collector wants of this agent, checked and put in force; the agent's own settings otherwise.

Off unless the configuration allows it. Then a collector may pause the agent and let it go on, change its threshold and
the depth of its traces, and ask for captures (captures.py): nothing that makes other things leave the process than its
own configuration lets out. Each value is bounded (aiocop_wire.limits); what is out of bounds is refused and counted,
and the rest taken. What the process itself switched off stays off.

Who writes what. The shipper's thread takes controls and puts them in force, at most one in APPLY_EVERY_NS; what loops'
threads read are plain attributes of others, stored in one step. Everything that is put in force is put so under the
agent's lock, for which that thread never waits: `stop()` and a fork hold it while they wait for that thread. `reset`
and the agent's own settings come from threads that hold the lock. Any thread reads `status` and `in_force`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from aiocop.shipping.transport import NEVER_NS, ONE_MS_NS
from aiocop.slice import Slices
from aiocop.statistics import RemoteControlStatus
from aiocop.traces import MAX_SITE_FRAMES
from aiocop_wire import Control, Controlled
from aiocop_wire.limits import MAX_CONTROL_THRESHOLD_US, MAX_FRAMES, MIN_CONTROL_THRESHOLD_US

APPLY_EVERY_NS: Final = 250 * ONE_MS_NS
"""A collector that changes its mind more often is followed so often, in its latest mind."""
_RETRY_NS: Final = 50 * ONE_MS_NS
_NOTHING: Final = Control(revision=0)
_logger = logging.getLogger("aiocop")


class RemoteControl:
    """The settings of one agent that a collector may change. See aiocop.shipping.report_source.Controllable."""

    def __init__(self, slices: Slices, change: Callable[[Callable[[], None]], bool]) -> None:
        """`change` calls its argument under the agent's lock; False where somebody else holds that."""
        self.accepts = False
        """Whether the configuration allows remote control."""
        self.paused = False
        """Whether a collector wants nothing measured. Written under the agent's lock."""
        self._slices = slices
        self._change = change
        self._own_threshold_ns = slices.threshold_ns
        self._in_force = _NOTHING
        self._wanted: Control | None = None
        self._last_revision = -1
        self._next_change_ns = 0
        self._refused = 0
        self._refusal = ""
        self._said = False

    # --- the process's own settings, under the agent's lock -----------------------------------------------------------

    def set_own_threshold(self, threshold_ns: int) -> None:
        """What holds where no collector wants another one."""
        self._own_threshold_ns = threshold_ns
        if self._in_force.threshold_us is None:
            self._slices.threshold_ns = threshold_ns

    def reset(self, *, accepts: bool) -> None:
        """Back to the process's own settings: at a start, after stop() and in a forked child. The shipper's thread does
        not run."""
        self.accepts = accepts
        self._wanted = None
        self._last_revision = -1
        self._next_change_ns = 0
        self._refused = 0
        self._refusal = ""
        self._said = False
        self._slices.captures.begin_anew()
        self._put_in_force(_NOTHING)

    # --- the shipper's thread -----------------------------------------------------------------------------------------

    def connected(self, *, controlled: bool) -> None:
        """A collector said welcome: its revisions are its own. One that controls nobody wants nothing."""
        self._last_revision = -1
        self._wanted = None
        if not controlled and self._in_force != _NOTHING:
            self._wanted = _NOTHING

    def want(self, control: Control) -> None:
        """Take a control in, for `settle` to put in force."""
        if not self.accepts:
            return  # the agent has stopped meanwhile
        if control.revision <= self._last_revision:
            self._refuse(f"revision {control.revision} came after {self._last_revision}")
            return
        self._last_revision = control.revision
        self._wanted = control

    def settle(self, now_ns: int) -> None:
        """Put in force what is wanted, unless it is too soon or the agent is busy."""
        wanted = self._wanted
        if wanted is None or now_ns < self._next_change_ns:
            return
        self._next_change_ns = now_ns + APPLY_EVERY_NS
        allowed, refusals = _within_bounds(wanted)
        if not self._change(lambda: self._put_in_force(allowed)):
            self._next_change_ns = now_ns + _RETRY_NS
            return
        self._wanted = None
        self._refusal = ""
        if refusals:
            self._refuse("; ".join(refusals))
        self._tell(allowed)

    def next_turn_ns(self) -> int:
        """When `settle` is due."""
        return NEVER_NS if self._wanted is None else self._next_change_ns

    def in_force(self) -> Controlled:
        """What holds now, wherever it comes from."""
        slices = self._slices
        return Controlled(
            revision=self._in_force.revision,
            active=slices.active,
            threshold_us=slices.threshold_ns // 1000,
            trace_depth=slices.traces.kept_depth,
            refused=self._refusal,
        )

    def _put_in_force(self, control: Control) -> None:
        slices = self._slices
        self._in_force = control
        self.paused = control.active is False
        slices.threshold_ns = self._own_threshold_ns if control.threshold_us is None else control.threshold_us * 1000
        slices.captures.want(control.captures)
        depth = MAX_SITE_FRAMES if control.trace_depth is None else control.trace_depth
        if depth != slices.traces.kept_depth:
            slices.keep_traces_of(depth)

    def _refuse(self, reason: str) -> None:
        self._refused += 1
        self._refusal = reason

    def _tell(self, control: Control) -> None:
        if not self._said and control != _NOTHING._replace(revision=control.revision):
            self._said = True
            _logger.info(
                "aiocop: the collector's settings are in force (%s); further changes are only in statistics()",
                _shown(control),
            )

    # --- any thread ---------------------------------------------------------------------------------------------------

    def status(self) -> RemoteControlStatus:
        """One look, for statistics()."""
        control = self._in_force
        return RemoteControlStatus(
            allowed=self.accepts,
            revision=control.revision,
            paused=control.active is False,
            threshold_ms=None if control.threshold_us is None else control.threshold_us / 1000,
            trace_depth=control.trace_depth,
            captured=self._slices.captures.taken,
            refused=self._refused,
        )


def _within_bounds(control: Control) -> tuple[Control, list[str]]:
    """The part of a control that an agent takes, and why it does not take the rest."""
    refusals = []
    threshold_us, depth = control.threshold_us, control.trace_depth
    if threshold_us is not None and not MIN_CONTROL_THRESHOLD_US <= threshold_us <= MAX_CONTROL_THRESHOLD_US:
        refusals.append(
            f"threshold_us {threshold_us} is not within {MIN_CONTROL_THRESHOLD_US} and {MAX_CONTROL_THRESHOLD_US}"
        )
        threshold_us = None
    if depth is not None and not 1 <= depth <= MAX_FRAMES:
        refusals.append(f"trace_depth {depth} is not within 1 and {MAX_FRAMES}")
        depth = None
    return control._replace(threshold_us=threshold_us, trace_depth=depth), refusals


def _shown(control: Control) -> str:
    parts = ["paused"] if control.active is False else []
    if control.threshold_us is not None:
        parts.append(f"threshold {control.threshold_us / 1000:g} ms")
    if control.trace_depth is not None:
        parts.append(f"trace depth {control.trace_depth}")
    return ", ".join([*parts, f"revision {control.revision}"])
