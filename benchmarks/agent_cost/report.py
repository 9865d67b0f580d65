"""From measurements to ratios with their spread, as Markdown."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.agent_cost.variants import BARE, CALLBACK, DEACTIVATED, DEBUG, PUBLISHED, SHIPPING, STOPPED, VARIANTS

Rounds = Sequence[dict[str, float]]
"""What one variant measured on one loop, by name, round after round."""


def spread(values: Iterable[float], digits: int = 1) -> str:
    """`median (min to max)`."""
    numbers = sorted(values)
    if not numbers:
        return "not run"
    return f"{statistics.median(numbers):.{digits}f} ({numbers[0]:.{digits}f} to {numbers[-1]:.{digits}f})"


def _added(measured: dict[str, Rounds], variant: str, name: str) -> list[float]:
    pairs = zip(measured.get(variant, ()), measured[BARE], strict=False)
    return [one[name] - bare[name] for one, bare in pairs]


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(headings) + " |",
        "| --- |" + " --- |" * (len(headings) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def tasks_tables(by_loop: dict[str, dict[str, Rounds]]) -> list[str]:
    """Microseconds added per task, and ours divided by theirs, round by round."""
    shown = (CALLBACK, SHIPPING, PUBLISHED, DEBUG)
    rows, ratios, left = [], [], []
    for loop, measured in by_loop.items():
        for name in measured[BARE][0]:
            bare = spread(one[name] for one in measured[BARE])
            rows.append([loop, name, bare, *(spread(_added(measured, variant, name)) for variant in shown)])
            theirs = _added(measured, PUBLISHED, name)
            per_variant = (
                spread((one / other for one, other in zip(_added(measured, variant, name), theirs, strict=False)), 2)
                for variant in (CALLBACK, SHIPPING)
            )
            ratios.append([loop, name, *per_variant])
            left.append([loop, name, *(spread(_added(measured, one, name), 2) for one in (STOPPED, DEACTIVATED))])
    return [
        "## Added per task, µs of CPU",
        "",
        *_table(["loop", "scenario", "bare", *(VARIANTS[one] for one in shown)], rows),
        "## Ours divided by aiocop 1.2.1 (aim: 0.10)",
        "",
        *_table(["loop", "scenario", "callback ÷ theirs", "shipping ÷ theirs"], ratios),
        "## Left after switching off, µs of CPU per task",
        "",
        *_table(["loop", "scenario", VARIANTS[STOPPED], VARIANTS[DEACTIVATED]], left),
    ]


def web_table(by_loop: dict[str, dict[str, Rounds]]) -> list[str]:
    """Requests per second as a percentage of bare, round by round."""
    shown = (CALLBACK, SHIPPING, PUBLISHED, DEBUG)
    rows = []
    for loop, measured in by_loop.items():
        for name in measured[BARE][0]:
            parts: list[str] = []
            for variant in shown:
                pairs = zip(measured.get(variant, ()), measured[BARE], strict=False)
                parts.append(spread(one[name] / bare[name] * 100 for one, bare in pairs))
            rows.append([loop, name, spread((one[name] for one in measured[BARE]), 0), *parts])
    headings = ["loop", "handler", "bare, requests/s", *(f"{VARIANTS[one]}, %" for one in shown)]
    return ["## FastAPI under wrk, requests per second in % of bare (aim: 98)", "", *_table(headings, rows)]


def switching_table(by_loop: dict[str, Rounds]) -> list[str]:
    """What a request costs more, from one process that switches the agent off and on."""
    rows = [
        [
            loop,
            *(spread(one[name] for one in rounds) for name in ("bare_us", "loop_us", "others_us", "slices")),
            spread(100 * one["bare_us"] / (one["bare_us"] + one["loop_us"] + one["others_us"]) for one in rounds),
        ]
        for loop, rounds in by_loop.items()
    ]
    headings = ["loop", "switched off, µs", "added on the loop's thread, µs", "added in other threads, µs"]
    return [
        "## The same handler that does nothing, in one process that switches the agent off and on, CPU per request",
        "",
        "In pairs of a fifth of a second each, so that what differs between processes does not matter",
        "(`benchmarks/agent_cost/switching.py`). The audit hook is there in both; FastAPI asks for `id()` three times",
        "per request, which are three audit events. What is added on the loop's thread is more than so many slices",
        "take below, where caches are warm: here a request's own work lies between two of them.",
        "",
        *_table([*headings, "slices per request", "requests in % of switched off"], rows),
    ]


def steps_tables(rounds: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """Where the time goes: nanoseconds per step, the interpreter's own share beside what the agent makes of it."""

    def rows(kind: str) -> list[list[str]]:
        return [[name, spread((one[kind][name] for one in rounds), 0)] for name in rounds[0][kind]]

    return [
        "## Where the time goes, ns of CPU on a loop's thread",
        "",
        "Least of many rounds in one process, on asyncio (`benchmarks/agent_cost/steps.py`), the median and range of",
        "several processes. What the interpreter charges whoever wants to know who blocked, for how long, from Python:",
        "",
        *_table(["part", "ns"], rows("parts")),
        "What the agent makes of it, as the difference it makes to a callback:",
        "",
        *_table(["path", "ns"], rows("paths")),
    ]


def at_rest_table(idle: dict[str, Rounds], memory: dict[str, Rounds]) -> list[str]:
    """CPU while nothing happens, and memory beyond bare."""
    less_bare: Callable[[str], list[float]] = lambda variant: _added(memory, variant, "resident_mib")  # noqa: E731
    rows = [
        [VARIANTS[variant], spread((one["idle_ms_per_s"] for one in idle[variant]), 2), spread(less_bare(variant))]
        for variant in idle
    ]
    headings = ["variant", "idle, ms of CPU per s (aim: below 1)", "MiB beyond bare with 1000 sites (aim: below 8)"]
    return ["## At rest, on asyncio", "", *_table(headings, rows)]
