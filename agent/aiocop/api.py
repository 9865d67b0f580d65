"""The module-level functions of `import aiocop`: each one asks the process's one agent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from aiocop.agent import Agent
from aiocop.allowing import AllowBlocking, AllowRule
from aiocop.events import ContextProvider, RaiseOnViolations, SlowTaskCallback
from aiocop.severity import WEIGHT_MODERATE
from aiocop.shipping.scrubbing import Scrub
from aiocop.statistics import Statistics

_agent = Agent()


def start(
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
) -> Agent:
    """Set up, activate and ship, in one call; before a loop runs or inside of one. Further calls change nothing.

    `collector` is an address, `unix:///run/aiocop/collector.sock` or `udp://127.0.0.1:8718`. `threshold_ms` is the time
    from which a slice is slow. `remote_control` lets the collector change settings of this agent (docs/configuration.md
    says which). `overhead_budget_percent` is the part of a loop's time that the agent may take before it looks less
    closely. `application` names packages that are application code although they are installed like libraries. Slow
    events may take along the context values that `ship_context` names, and the arguments of the operations that
    `ship_arguments` names; `scrub(source, name, value)` returns what is shipped of each instead, None for nothing
    (docs/privacy.md). `udp_key_file` (or `udp_key`) is the key shared with a udp collector. What is not given comes
    from the environment (`AIOCOP_SERVICE`, …).

    Raises ValueError for a bad argument. A bad environment variable is logged, and shipping stays off.
    """
    return _agent.start(
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
        scrub=scrub,
        udp_key_file=udp_key_file,
        udp_key=udp_key,
        on_slow_task=on_slow_task,
    )


def flush(timeout: float = 2.0) -> bool:
    """Wait until all that was recorded before this call is acknowledged (unix) or sent (udp).

    Blocks its caller for at most `timeout` seconds: in a coroutine, use `await asyncio.to_thread(aiocop.flush)`. False
    when time ran out. The slice that is running is not included.
    """
    return _agent.flush(timeout)


def stop(timeout: float = 2.0) -> bool:
    """Flush, then give every patched function back its original. True when everything was delivered.

    Callbacks and context providers stay registered. `start()` may be called again, with other settings.
    """
    return _agent.stop(timeout)


def statistics() -> Statistics:
    """What the agent counted, shipped and dropped so far, and what it costs."""
    return _agent.statistics()


def patch_audit_functions() -> None:
    """Wrap the functions that block without telling Python's audit hooks, and those whose duration matters."""
    _agent.patch_audit_functions()


def start_blocking_io_detection(trace_depth: int = 20) -> None:
    """Install the audit hook. `trace_depth` is how many frames of a trace events show."""
    _agent.start_blocking_io_detection(trace_depth)


def detect_slow_tasks(
    threshold_ms: float = 30,
    on_slow_task: SlowTaskCallback | None = None,
    cpu_sampling: bool = True,  # noqa: FBT001, FBT002 - published signature
) -> None:
    """Measure the slices of all loops; `on_slow_task` receives those with blocking calls or above the threshold.

    `cpu_sampling` starts the watchdog with its defaults, unless start_cpu_sampling() has been called before.
    """
    _agent.detect_slow_tasks(threshold_ms, on_slow_task, sample=cpu_sampling)


def start_cpu_sampling(
    interval_ms: float = 10,
    arm_after_ms: float | None = None,
    idle_interval_ms: float | None = None,  # noqa: ARG001 - published; the watchdog is parked while loops are idle
    max_samples_per_slice: int = 32,
    trace_depth: int = 20,  # noqa: ARG001 - published; samples keep the whole stack of a slice
) -> None:
    """Start the watchdog with settings of its own: a sample every `interval_ms` from `arm_after_ms` on.

    `arm_after_ms` is half the threshold unless given. `idle_interval_ms` and `trace_depth` are accepted for programs
    written for the published aiocop and have no effect here.
    """
    _agent.start_cpu_sampling(interval_ms, arm_after_ms, max_samples_per_slice)


def is_cpu_sampling_started() -> bool:
    """Whether the watchdog runs."""
    return _agent.sampling


def activate() -> None:
    """Begin or go on measuring, on all loops of all threads, those to come included."""
    _agent.activate()


def deactivate() -> None:
    """Pause measuring; what is set up stays set up."""
    _agent.deactivate()


def is_monitoring_active() -> bool:
    """Whether slices are measured."""
    return _agent.active


def register_slow_task_callback(callback: SlowTaskCallback) -> None:
    """Call `callback` with every SlowTaskEvent, on the loop's thread right after the slice; keep it short."""
    _agent.events.add_callback(callback)


def unregister_slow_task_callback(callback: SlowTaskCallback) -> None:
    """Forget a callback; one that is not registered is no error."""
    _agent.events.remove_callback(callback)


def clear_slow_task_callbacks() -> None:
    """Forget all callbacks."""
    _agent.events.clear_callbacks()


def register_context_provider(provider: ContextProvider, *, before_slices: bool = True) -> None:
    """Ask `provider` for context (request id, span) of each slice; what it returns is in `SlowTaskEvent.context`.

    It is asked before each slice, at the slice's first blocking call, and after it when it is reported. With
    `before_slices=False` it is not asked before, and so costs nothing as long as nothing blocks; that suits context
    which the slice leaves in place, like a contextvar that is set and never reset.
    """
    _agent.events.add_provider(provider, before_slices=before_slices)


def unregister_context_provider(provider: ContextProvider) -> None:
    """Forget a context provider; one that is not registered is no error."""
    _agent.events.remove_provider(provider)


def clear_context_providers() -> None:
    """Forget all context providers."""
    _agent.events.clear_providers()


def enable_raise_on_violations() -> None:
    """Raise HighSeverityBlockingIoException after slow slices with severe blocking calls, in the current context."""
    _agent.events.enable_raising()


def disable_raise_on_violations() -> None:
    """The opposite, in the current context."""
    _agent.events.disable_raising()


def is_raise_on_violations_enabled() -> bool:
    """Whether the current context asks for exceptions."""
    return _agent.events.raising_enabled()


def raise_on_violations(*, at_call: bool = False) -> RaiseOnViolations:
    """`with aiocop.raise_on_violations():` — enable_raise_on_violations() for the block.

    With `at_call`, a call of high severity raises HighSeverityBlockingIoException itself, in the offending line and
    before it happens: `pytest.raises` and `try` around an `await` work, and the rest of the loop goes on.
    """
    return RaiseOnViolations(_agent.events, at_call=at_call)


def allow(*, operation: str | None = None, module: str | None = None, function: str | None = None) -> AllowRule:
    """Accept the blocking calls that match all given patterns (`*` and `?` as in file names), from now on.

    `module` (with its submodules) and `function` (a qualified name) match one and the same frame between the call and
    its call site. What is allowed is neither counted nor reported; `statistics().allowed` tells how often each rule
    matched. Raises ValueError when no pattern is given.
    """
    return _agent.allow(operation, module, function)


def disallow(rule: AllowRule) -> None:
    """Take a rule of allow() back; one that is not there is no error."""
    _agent.disallow(rule)


def allow_blocking() -> AllowBlocking:
    """`with aiocop.allow_blocking():` — what blocks in the block, in the current task, is accepted."""
    return _agent.allow_blocking()


def register_operation(
    target: str,
    *,
    weight: int = WEIGHT_MODERATE,
    cause: Literal["io", "wait", "cpu"] = "io",
    advice: str = "",
    name: str | None = None,
) -> None:
    """Add a blocking function to the catalogue, by its dotted name: `register_operation("shop.legacy.Client.fetch")`.

    It is wrapped with the others, at once where they are wrapped already, or when its module is imported. `weight` is
    one of WEIGHT_*; `name` is what events and hotspots call it. A name that is known is replaced from the next start().
    Raises ValueError for a target without a dot or an unknown weight or cause.
    """
    _agent.register_operation(target, weight=weight, cause=cause, advice=advice, name=name)


def reset_blocking_events() -> None:
    """Forget the blocking calls that the running slice's event would describe."""
    _agent.reset_blocking_events()


def get_patched_functions() -> list[str]:
    """Names of the operations that are wrapped."""
    return list(_agent.calls.patched)


def get_blocking_events_dict() -> dict[str, int]:
    """Severity weight of every operation, by name."""
    return {name: operation.weight for name, operation in _agent.calls.operations.items()}


def get_slow_task_threshold_ms() -> float:
    """Milliseconds from which a slice is slow."""
    return _agent.threshold_ms
