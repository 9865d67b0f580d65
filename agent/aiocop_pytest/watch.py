"""The watch over a test run: one agent of its own, switched on for the tests that may not block.

The agent is not the one behind `import aiocop`: the program under test may start, stop and set up that one as it likes,
and neither disturbs the other.
"""

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

import pytest

from aiocop import Agent, SlowTaskEvent
from aiocop_pytest.failure_text import PHASES, explain, headline
from aiocop_pytest.settings import WatchSettings, threshold_of

_FLUSH_S: Final = 10.0
"""How long the end of a run waits for the collector."""
_MOST_IN_SUMMARY: Final = 10
_HEADLINES: Final = "aiocop_headlines"
"""Attribute of a test report: text is all that crosses from a worker of pytest-xdist to its controller."""
_UNDELIVERED: Final = "aiocop_undelivered"


class _Found(NamedTuple):
    """The freezes of one phase of a test."""

    when: str
    freezes: Sequence[SlowTaskEvent]
    text: str


_threshold_ms = pytest.StashKey[float | None]()
_found = pytest.StashKey[_Found]()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LoopWatch(config), "aiocop-watch")


class LoopWatch:
    """Hooks of one test run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._settings = WatchSettings.of(config)
        self._agent = Agent()
        self._started = False
        self._freezes: list[SlowTaskEvent] = []
        """Appended to by whichever thread's loop froze; replaced between phases."""
        self._blocked: dict[str, list[str]] = {}
        """By test, what its reports said."""
        self._undelivered: list[str] = []

    # --- the run ------------------------------------------------------------------------------------------------------

    def pytest_report_header(self) -> str:
        settings = self._settings
        if settings.collector is None:
            return f"aiocop: threshold {settings.threshold_ms:g} ms"
        release = f" {settings.release}" if settings.release else ""
        shipped_as = f"{settings.service}{release} ({settings.environment})"
        return f"aiocop: threshold {settings.threshold_ms:g} ms, ships as {shipped_as} to {settings.collector}"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Start before the first test, so that none of them sees it happen."""
        for item in session.items:
            item.stash[_threshold_ms] = threshold_of(item, self._settings)
        watched = any(item.stash[_threshold_ms] is not None for item in session.items)
        if watched and not self._started and not self._config.getoption("collectonly"):
            self._start()

    def _start(self) -> None:
        settings = self._settings
        self._started = True
        self._config.add_cleanup(self._stop)
        self._agent.start(
            settings.service,
            collector=settings.collector,
            environment=settings.environment,
            release=settings.release,
            threshold_ms=settings.threshold_ms,
            enabled=True,
            overhead_budget_percent=0,
            application=settings.application,
            on_slow_task=self._take,
            ship=settings.collector is not None,
        )

    def _stop(self) -> None:
        """Wherever the run ended; nothing is left to do after `pytest_sessionfinish`."""
        self._agent.stop()

    def _take(self, event: SlowTaskEvent) -> None:
        # Pauses of the garbage collector come when they come, and a busy machine gives CPU when it likes: no fault of
        # the test they happen in. An explicit gc.collect() is not part of gc_ms.
        innocent = event.cause == "starved" or event.elapsed_ms - event.gc_ms < event.threshold_ms
        if event.exceeded_threshold and not innocent:
            self._freezes.append(event)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._started:
            return
        flushed = self._agent.flush(_FLUSH_S)
        reason = self._agent.statistics().last_error
        if self._agent.stop(_FLUSH_S if flushed else 0.0):
            return
        problem = f"not everything reached the collector at {self._settings.collector}"
        self._undelivered.append(f"{problem} ({reason})" if reason else problem)
        worker_output = getattr(session.config, "workeroutput", None)
        if worker_output is not None:
            worker_output[_UNDELIVERED] = self._undelivered

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Of pytest-xdist, in the controller: a worker has ended."""
        self._undelivered += getattr(node, "workeroutput", {}).get(_UNDELIVERED, ())

    # --- a test -------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        threshold_ms = item.stash.get(_threshold_ms, None)
        if threshold_ms is not None:
            self._agent.threshold_ms = threshold_ms
            if not self._agent.active:
                self._agent.activate()
        elif self._agent.active:
            self._agent.deactivate()
        self._freezes = []
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._watched(item, "setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._watched(item, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._watched(item, "teardown"))

    def _watched(self, item: pytest.Item, when: str) -> Generator[None, object, object]:
        try:
            result = yield
        finally:
            # Also of a test that failed by itself: its report gets a section.
            freezes, self._freezes = self._freezes, []
            threshold_ms = item.stash.get(_threshold_ms, None)
            if freezes and threshold_ms is not None:
                item.stash[_found] = _Found(when, freezes, explain(freezes, when, threshold_ms))
        if freezes and threshold_ms is not None:
            pytest.fail(item.stash[_found].text, pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        found = item.stash.get(_found, None)
        if found is not None and found.when == call.when:
            del item.stash[_found]
            lines = [f"{headline(freeze)}  {item.nodeid} ({PHASES[found.when]})" for freeze in found.freezes]
            setattr(report, _HEADLINES, lines)
            if found.text not in report.longreprtext:
                report.sections.append((f"aiocop {found.when}", found.text))
        return report

    # --- the summary --------------------------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        lines = getattr(report, _HEADLINES, None)
        if lines:
            self._blocked.setdefault(report.nodeid, []).extend(lines)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._blocked and not self._undelivered:
            return
        terminalreporter.section("blocked event loops")
        if self._blocked:
            tests = "1 test" if len(self._blocked) == 1 else f"{len(self._blocked)} tests"
            terminalreporter.write_line(f"{tests} blocked the loop", red=True)
            lines = [line for found in self._blocked.values() for line in found]
            lines.sort(key=lambda line: float(line.partition(" ")[0]), reverse=True)
            for line in lines[:_MOST_IN_SUMMARY]:
                terminalreporter.write_line(f"  {line}")
            if len(lines) > _MOST_IN_SUMMARY:
                terminalreporter.write_line(f"  … and {len(lines) - _MOST_IN_SUMMARY} shorter freezes")
        for problem in dict.fromkeys(self._undelivered):
            terminalreporter.write_line(problem, yellow=True)
