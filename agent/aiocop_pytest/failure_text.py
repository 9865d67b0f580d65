"""What a failure report says about the freezes of one phase of a test."""

from collections.abc import Sequence
from typing import Final

from aiocop import BlockingEventInfo, SlowTaskEvent
from aiocop.catalogue import CPU, GC, TURN, WAIT

PHASES: Final = {"setup": "set-up", "call": "call", "teardown": "tear-down"}
_MOST_FREEZES: Final = 5
"""Of one phase, that are explained; the costliest first."""
_MOST_FRAMES: Final = 12
_ADVICE: Final[dict[str, str]] = {operation.cause: operation.advice for operation in (CPU, GC, TURN, WAIT)}
_WORDS: Final = {
    "cpu": "computing",
    "gc": "garbage collection",
    "gil": "another thread held the GIL",
    "loop": "many short callbacks in one turn of the loop",
    "wait": "waiting",
}


def explain(freezes: Sequence[SlowTaskEvent], when: str, threshold_ms: float) -> str:
    """The whole text; `when` is pytest's name of the phase."""
    costliest = sorted(freezes, key=lambda freeze: freeze.elapsed_ms, reverse=True)
    blocked = f"{costliest[0].elapsed_ms:.0f} ms at {_place(costliest[0])}"
    if len(freezes) > 1:
        total_ms = sum(freeze.elapsed_ms for freeze in freezes)
        blocked = f"{len(freezes)} times for {total_ms:.0f} ms in all, longest {blocked}"
    lines = [f"Event loop blocked {blocked} ({PHASES[when]}, threshold {threshold_ms:g} ms)"]
    for freeze in costliest[:_MOST_FREEZES]:
        lines += ["", *_freeze_lines(freeze)]
    if len(freezes) > _MOST_FREEZES:
        lines += ["", f"  … and {len(freezes) - _MOST_FREEZES} shorter ones"]
    return "\n".join(lines)


def headline(freeze: SlowTaskEvent) -> str:
    """One line: how long, where, by what."""
    return f"{freeze.elapsed_ms:.0f} ms  {_place(freeze)}  {_operation(freeze, _culprit(freeze))}"


def _place(freeze: SlowTaskEvent) -> str:
    return freeze.call_site or "<unknown>"


def _freeze_lines(freeze: SlowTaskEvent) -> list[str]:
    culprit = _culprit(freeze)
    operation = _operation(freeze, culprit)
    duration_ms = culprit.get("duration_ms") if culprit is not None else None
    measured = f": {duration_ms:.0f} ms" if duration_ms is not None else ""
    more = len(freeze.blocking_events) - (culprit is not None)
    lines = [
        f"  {freeze.elapsed_ms:.0f} ms at {_place(freeze)}",
        f"    operation  {operation}{measured}" + (f" (and {more} other blocking calls)" if more else ""),
    ]
    advice = _advice(freeze, culprit)
    if advice:
        lines.append(f"    advice     {advice}")
    frames = _trace(freeze, culprit).split(" <- ")
    if frames != [""]:
        lines.append(f"    trace      {frames[0]}")
        lines += [f"               {frame}" for frame in frames[1:_MOST_FRAMES]]
    if culprit is not None and "fingerprint" in culprit:
        lines.append(f"    site       {culprit['fingerprint']}")
    thread = "" if freeze.thread_name == "MainThread" else f" on thread {freeze.thread_name}"
    return [*lines, f"    task       {freeze.task_name or '<no task>'}{thread}, {freeze.loop} loop"]


def _culprit(freeze: SlowTaskEvent) -> BlockingEventInfo | None:
    """The blocking call that took longest at the call site; None where the time went without one."""
    if freeze.cause not in ("io", "wait") and freeze.call_site != "":
        explicit = [call for call in freeze.blocking_events if call["event"].startswith("gc.collect(")]
        return explicit[0] if freeze.cause == "gc" and explicit else None
    calls = [call for call in freeze.blocking_events if call.get("call_site") == freeze.call_site]
    return max(calls, key=lambda call: call.get("duration_ms") or 0.0, default=None)


def _operation(freeze: SlowTaskEvent, culprit: BlockingEventInfo | None) -> str:
    return culprit["event"] if culprit is not None else _WORDS.get(freeze.cause, freeze.cause)


def _advice(freeze: SlowTaskEvent, culprit: BlockingEventInfo | None) -> str:
    if culprit is not None:
        return culprit.get("advice", "")
    return _ADVICE.get(freeze.cause, "")


def _trace(freeze: SlowTaskEvent, culprit: BlockingEventInfo | None) -> str:
    """Of the call; otherwise the stack that was sampled most often at the call site."""
    if culprit is not None:
        return culprit["trace"]
    samples = [sample for sample in freeze.cpu_stack_samples if freeze.call_site in sample["trace"]]
    return samples[0]["trace"] if samples else ""
