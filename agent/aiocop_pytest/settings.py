"""What one test run asked for: flags, then `AIOCOP_*` variables, then the configuration file, then defaults.

`AIOCOP_COLLECTOR` and `AIOCOP_ENABLED` are not read: they are for services, and a developer's shell that has them must
not make test runs ship to a real collector, or pass.
"""

import os
from typing import NamedTuple

import pytest

from aiocop import Configuration
from aiocop_pytest.plugin import OPTIONS, flag_of

_SERVICES_ONLY = ("AIOCOP_COLLECTOR", "AIOCOP_ENABLED")
_DEFAULT = "default"


class WatchSettings(NamedTuple):
    """Made by `of`."""

    everywhere: bool
    """All tests, not only those marked."""
    threshold_ms: float
    collector: str | None
    """An address; None where nothing is shipped."""
    service: str
    environment: str
    release: str
    application: tuple[str, ...]

    @classmethod
    def of(cls, config: pytest.Config) -> "WatchSettings":
        """Raises pytest.UsageError that names the option and what would do."""
        environ = {name: text for name, text in os.environ.items() if name not in _SERVICES_ONLY}
        from_variables = Configuration.resolve(environ=environ).origins
        given: dict[str, str] = {}
        for name, _, _ in OPTIONS:
            variable = _variable(name)
            flag = config.getoption(f"aiocop_{name}")
            written = str(config.getini(f"aiocop_{name}"))
            if flag is not None:
                environ[variable] = flag
                given[variable] = flag_of(name)
            elif written and from_variables[name] == _DEFAULT:
                environ[variable] = written
                given[variable] = f"aiocop_{name}"
        found = Configuration.resolve(environ=environ, program=config.rootpath.name or "tests")
        if found.problems:
            raise pytest.UsageError("; ".join([_renamed(problem, given) for problem in found.problems]))
        return cls(
            everywhere=bool(config.getoption("aiocop") or config.getini("aiocop")),
            threshold_ms=found.threshold_ms,
            collector=environ.get(_variable("collector")) or None,
            service=found.service,
            environment=found.environment if found.origins["environment"] != _DEFAULT else "test",
            release=found.release,
            application=found.application,
        )


def _variable(name: str) -> str:
    return f"AIOCOP_{name.upper()}"


def _renamed(problem: str, given: dict[str, str]) -> str:
    """A problem of a variable, under the name of the option that the value really came from."""
    variable, equals, rest = problem.partition("=")
    return given.get(variable, variable) + equals + rest


def threshold_of(item: pytest.Item, settings: WatchSettings) -> float | None:
    """Milliseconds a test may block its loop; None where it may block as long as it likes.

    The closest marker wins: a class that may block can have a test that may not. Raises pytest.UsageError for a marker
    with arguments it does not have.
    """
    for marker in item.iter_markers():
        if marker.name == "allow_blocking":
            if marker.args[1:] or set(marker.kwargs) - {"reason"}:
                raise pytest.UsageError(f"{item.nodeid}: allow_blocking takes a reason and nothing else")
            return None
        if marker.name == "aiocop":
            return _marked_threshold(item, marker, settings)
    return settings.threshold_ms if settings.everywhere else None


def _marked_threshold(item: pytest.Item, marker: pytest.Mark, settings: WatchSettings) -> float:
    threshold_ms = marker.kwargs.get("threshold_ms", settings.threshold_ms)
    if marker.args or set(marker.kwargs) - {"threshold_ms"}:
        raise pytest.UsageError(f"{item.nodeid}: aiocop takes threshold_ms=… and nothing else")
    if isinstance(threshold_ms, bool) or not isinstance(threshold_ms, (int, float)) or not 0 < threshold_ms < 1e12:
        raise pytest.UsageError(
            f"{item.nodeid}: aiocop(threshold_ms={threshold_ms!r}): must be a number of milliseconds above 0"
        )
    return float(threshold_ms)
