"""The one expectation language: what a detector said about a scenario, judged against what happened.

| verdict | for a scenario that freezes its loop |
| --- | --- |
| missed | no event over the threshold holds 60 % of the time the culprit took |
| detected | one does |
| pinned | and names file, line and function of the culprit |

For a single short call of the catalogue, detected means that the operation was named and pinned that it was named at
its line. For an innocent scenario the verdict is silent, or a false alarm: an event over the threshold, or a blocking
call named where there is none. What a verdict alone would hide is noted: a second event, a cause or operation other
than the scenario's, a duration more than 10 % away.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from tests.corpus.scenario import CALL, INNOCENT, Place, Scenario

MISSED, DETECTED, PINNED = "missed", "detected", "pinned"
SILENT, FALSE_ALARM = "silent", "false alarm"
SKIPPED, BROKEN = "skipped", "broken"

PART_OF_DURATION = 0.6
DURATION_TOLERANCE = 0.1
INCONCLUSIVE_FROM_MS = 10.0
"""A scenario whose threads waited longer for a CPU froze its loop in other ways than it says, or for longer."""
SLICE_TOLERANCE_MS = 10.0
"""A slice is longer than its culprit: what else happens in it, on a machine that is busy."""


@dataclass(frozen=True)
class Observed:
    """What a detector reported once, in words that all of them can be translated to."""

    exceeded: bool
    elapsed_ms: float | None = None
    """None where the detector does not measure."""
    named: list[str] = field(default_factory=list)
    """Places presented as the culprit: `path:line:function`, or `path:line`."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """(operation, place) of the calls it lists."""
    trace: list[str] = field(default_factory=list)
    """Every other place that it prints."""
    cause: str | None = None


@dataclass(frozen=True)
class Outcome:
    """One run of one scenario under one detector."""

    observed: list[Observed]
    laps_ms: list[float]
    """What the stopwatch read: how long the culprit really took."""
    error: str | None = None
    skipped: str | None = None
    queued_ms: float = 0.0
    """How long the host let its threads wait for a CPU."""


@dataclass(frozen=True)
class Verdict:
    """`word` is one of the constants above; `notes` say what is not quite right, or why nothing can be said."""

    word: str
    notes: tuple[str, ...] = ()
    queued_ms: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.word} ({'; '.join(self.notes)})" if self.notes else self.word

    @property
    def right(self) -> bool:
        """Whether nothing is missing or wrong."""
        return self.word in (PINNED, SILENT) and not self.notes

    @property
    def conclusive(self) -> bool:
        """Whether it tells of the detector, and not of a host that had no CPU for the scenario when it was due."""
        return self.right or self.queued_ms < INCONCLUSIVE_FROM_MS


def judge(scenario: Scenario, outcome: Outcome) -> Verdict:
    """What the detector deserves for the scenario."""
    return replace(_judge(scenario, outcome), queued_ms=outcome.queued_ms)


def _judge(scenario: Scenario, outcome: Outcome) -> Verdict:
    if outcome.skipped is not None:
        return Verdict(SKIPPED, (outcome.skipped,))
    if outcome.error is not None:
        return Verdict(BROKEN, (outcome.error,))
    if scenario.kind == INNOCENT:
        return _judge_innocent(outcome)
    if scenario.kind == CALL:
        return _judge_call(scenario, outcome)
    return _judge_freeze(scenario, outcome)


def _judge_innocent(outcome: Outcome) -> Verdict:
    alarms = [one for one in outcome.observed if _is_alarm(one)]
    if not alarms:
        return Verdict(SILENT)
    first = alarms[0]
    what = first.calls[0][0] if first.calls else (first.named or ["a slice"])[0].rpartition("/")[2]
    return Verdict(FALSE_ALARM, (f"{len(alarms)} times {what}" if len(alarms) > 1 else what,))


def _is_alarm(one: Observed) -> bool:
    return (one.exceeded or bool(one.calls)) and one.cause != "starved"


def _judge_call(scenario: Scenario, outcome: Outcome) -> Verdict:
    named = [call for one in outcome.observed for call in one.calls]
    places = [place for operation, place in named if same_operation(operation, scenario.operation)]
    if not places:
        return Verdict(MISSED, (f"named: {', '.join(sorted({operation for operation, _ in named}))}",) if named else ())
    if any(matches(scenario, place) for place in places):
        return Verdict(PINNED)
    return Verdict(DETECTED, (f"at {places[0].rpartition('/')[2]}",))


def _judge_freeze(scenario: Scenario, outcome: Outcome) -> Verdict:
    truth_ms = max(outcome.laps_ms, default=0.0)
    slow = [one for one in outcome.observed if one.exceeded and one.cause != "starved"]
    found = [one for one in slow if one.elapsed_ms is None or one.elapsed_ms >= PART_OF_DURATION * truth_ms]
    if not found:
        return Verdict(MISSED, (f"{max(one.elapsed_ms or 0 for one in slow):.0f} ms seen",) if slow else ())
    best = max(found, key=lambda one: any(matches(scenario, place) for place in one.named))
    pinned = any(matches(scenario, place) for place in best.named)
    notes = [f"{len(slow)} events"] if len(slow) > max(1, len(outcome.laps_ms)) else []
    if not pinned:
        seen = any(matches(scenario, place) for place in best.trace)
        notes.append("in the trace" if seen else f"at {(best.named or ['no line'])[0].rpartition('/')[2]}")
    notes += _notes_on(scenario, best, truth_ms)
    return Verdict(PINNED if pinned else DETECTED, tuple(notes))


def _notes_on(scenario: Scenario, one: Observed, truth_ms: float) -> list[str]:
    notes = []
    if one.cause is not None and scenario.causes and one.cause not in scenario.causes:
        notes.append(f"cause {one.cause}")
    operations = {operation for operation, _ in one.calls}
    wanted = scenario.operation
    if one.cause is not None and wanted is not None and not any(same_operation(name, wanted) for name in operations):
        notes.append(f"operation {', '.join(sorted(operations)) or 'not named'}")
    if one.elapsed_ms is not None and truth_ms:
        low, high = (1 - DURATION_TOLERANCE) * truth_ms, (1 + DURATION_TOLERANCE) * truth_ms + SLICE_TOLERANCE_MS
        if not low <= one.elapsed_ms <= high:
            notes.append(f"{one.elapsed_ms:.0f} ms for {truth_ms:.0f} ms")
    return notes


def same_operation(named: str, wanted: str) -> bool:
    """`socket.connect`, as the audit event is called, is `socket.socket.connect`."""
    ours, theirs = named.split("."), wanted.split(".")
    return (ours[0], ours[-1]) == (theirs[0], theirs[-1])


def matches(scenario: Scenario, named: str) -> bool:
    """Whether `path:line:function`, `path:line` or a pseudo call site is the scenario's culprit."""
    if named in scenario.pseudo_culprits:
        return True
    return any(_is_at(place, named) for place in scenario.culprits)


def _is_at(place: Place, named: str) -> bool:
    path, _, rest = named.partition(":")
    line, _, function = rest.partition(":")
    if path.rpartition("/")[2] != place.file or line != str(place.line):
        return False
    return not function or function.rpartition(".")[2] in place.functions


def parse_outcome(lines: list[dict[str, Any]]) -> Outcome:
    """From what a run wrote: see worker.py."""
    observed, laps_ms, error, skipped, finished = [], [], None, None, False
    queued_ms = 0.0
    for line in lines:
        if "observed" in line:
            observed.append(Observed(**line["observed"]))
        laps_ms += line.get("laps_ms", ())
        error = line.get("error", error)
        skipped = line.get("skipped", skipped)
        queued_ms += line.get("queued_ms", 0.0)
        finished |= "finished" in line
    if not finished and error is None and skipped is None:
        error = "the process ended early"
    return Outcome(observed, laps_ms, error, skipped, queued_ms)
