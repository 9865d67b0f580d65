"""What a scenario runs in: a loop of the kind that is asked for, and the detector that watches it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from tests.corpus.detectors import Detector
from tests.corpus.scenario import Scenario, stopwatch

RUNNERS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}

_TASKS = Path("/proc/self/task")
Main = Callable[[], Coroutine[Any, Any, object]]


class Harness:
    """One scenario in one fresh process."""

    def __init__(self, loop: str, detector: Detector, output: Path) -> None:
        self.loop = loop
        self.detector = detector
        self._output = output

    def play(self, scenario: Scenario) -> None:
        """Prepare, set the detector up, run, and write down what it said."""
        prepared = () if scenario.prepare is None else (scenario.prepare(),)
        queued_ms = _queued_ms()
        self.detector.set_up()
        try:
            if asyncio.iscoroutinefunction(scenario.function):
                self.run(lambda: scenario.function(*prepared), task_name=scenario.name)
            else:
                scenario.function(self, *prepared)
        except BaseException as error:
            if not isinstance(error, self.detector.raises):
                raise
        self.deliver()
        self.write(queued_ms=_queued_ms() - queued_ms)
        self.write(finished=True)

    def run(self, main: Main, *, task_name: str = "") -> None:
        """Run a coroutine function as a task of a fresh loop in which the detector was activated before."""

        async def activate_and_run() -> None:
            self.detector.activate()
            async with self.detector.around():
                await asyncio.create_task(main(), name=task_name)
                await asyncio.sleep(0.005)  # what the task left to the loop

        self.run_bare(activate_and_run)

    def run_bare(self, main: Main) -> None:
        """Run a coroutine function as a fresh loop's main task: nobody activates anything."""
        RUNNERS[self.loop](main(), debug=self.detector.debug)

    def activate(self) -> None:
        """Where the scenario's own program would: before its loop, or at its start."""
        self.detector.activate()

    def deliver(self) -> None:
        """Write down what was reported until now. In a process that forks its workers: call it in these."""
        for observed in self.detector.take():
            self.write(observed=vars(observed))
        self.write(laps_ms=stopwatch.laps_ms)
        stopwatch.laps_ms = []

    def write(self, **line: Any) -> None:
        """One line for whoever judges."""
        with self._output.open("a") as output:
            output.write(json.dumps(line) + "\n")


def _queued_ms() -> float:
    """How long the threads that live now were ready and had no CPU; 0 where the system does not tell."""
    if not _TASKS.exists():
        return 0.0
    return sum(int((task / "schedstat").read_text().split()[1]) for task in _TASKS.iterdir()) / 1e6
