"""Runs the corpus: a worker per detector and loop, two at a time, and a verdict per scenario."""

import json
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tests.corpus.expectation import BROKEN, DETECTED, MISSED, PINNED, SILENT, SKIPPED, Verdict, judge, parse_outcome
from tests.corpus.scenario import Scenario

WORKER = Path(__file__).with_name("worker.py")
PARALLEL = 2
ATTEMPTS = 3
"""A host that gives its CPU to others makes any detector look bad: what is not right is tried again, for all alike."""
MORE_ATTEMPTS = 3
"""For what was inconclusive each time."""
_ORDER = (BROKEN, "false alarm", MISSED, DETECTED, PINNED, SILENT, SKIPPED)


@dataclass(frozen=True)
class Subject:
    """A detector, the interpreter it is installed for, and a loop."""

    detector: str
    python: str
    loop: str


Verdicts = dict[tuple[Subject, str], Verdict]


def run_corpus(
    scenarios: dict[str, Scenario],
    wanted: dict[Subject, list[str]],
    *,
    no_second_chance: Iterable[tuple[str, str]] = (),
) -> Verdicts:
    """Run scenarios by name under each subject; the best verdict of a few attempts.

    `no_second_chance` holds (name, loop) of what is known to fail.
    """
    given_up = set(no_second_chance)
    verdicts: Verdicts = {}
    remaining = {subject: list(names) for subject, names in wanted.items()}
    for attempt in range(ATTEMPTS + MORE_ATTEMPTS):
        with ThreadPoolExecutor(PARALLEL) as pool:
            for subject, found in zip(
                remaining, pool.map(lambda item: _run(scenarios, *item), remaining.items()), strict=True
            ):
                for name, verdict in found.items():
                    before = verdicts.get((subject, name))
                    verdicts[subject, name] = verdict if before is None else _better(before, verdict)
        conclusive_ends = attempt + 1 >= ATTEMPTS
        remaining = {
            subject: [
                name
                for name in names
                if (name, subject.loop) not in given_up
                and not _settled(verdicts[subject, name])
                and not (conclusive_ends and verdicts[subject, name].conclusive)
            ]
            for subject, names in remaining.items()
        }
        remaining = {subject: names for subject, names in remaining.items() if names}
    return verdicts


def _run(scenarios: dict[str, Scenario], subject: Subject, names: list[str]) -> dict[str, Verdict]:
    command = [subject.python, WORKER, "--detector", subject.detector, "--loop", subject.loop, *names]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        run = json.loads(line)
        found[run["name"]] = judge(scenarios[run["name"]], parse_outcome(run["lines"]))
    missing = set(names) - set(found)
    if missing:
        raise RuntimeError(f"{subject} ended with {done.returncode} before {len(missing)} scenarios:\n{done.stderr}")
    return found


def _settled(verdict: Verdict) -> bool:
    return verdict.right or verdict.word == SKIPPED


def _better(one: Verdict, other: Verdict) -> Verdict:
    """The better of two; conclusive if either was."""
    return replace(max(one, other, key=_rank), queued_ms=min(one.queued_ms, other.queued_ms))


def _rank(verdict: Verdict) -> tuple[int, int]:
    return _ORDER.index(verdict.word), -len(verdict.notes)
