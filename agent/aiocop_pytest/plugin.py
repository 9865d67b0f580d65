"""What pytest loads in every run: options and markers. Off, it costs a look at the collected tests' markers.

`--aiocop`, `aiocop = true` in the configuration file, or a collected test marked `aiocop` loads `aiocop_pytest.watch`,
and with it the agent.
"""

from collections.abc import Sequence
from typing import Final

import pytest

_WATCH: Final = "aiocop_pytest.watch"

OPTIONS: Final = (
    ("threshold_ms", "MS", "Milliseconds that a test may block its event loop (30)."),
    ("collector", "ADDRESS", "Ship what was found to this collector: unix:///PATH or udp://HOST:PORT."),
    ("service", "NAME", "Service to ship as (the root folder's name)."),
    ("environment", "NAME", "Environment to ship as (test)."),
    ("release", "VERSION", "Release to ship as."),
    ("application", "PACKAGES", "Packages to blame although they are installed like a library; comma separated."),
)
"""Name, placeholder, effect. Each is a flag (`--aiocop-threshold-ms`) and a key of the file (`aiocop_threshold_ms`)."""

MARKERS: Final = (
    "aiocop(threshold_ms): fail this test when it blocks its event loop, with or without --aiocop.",
    "allow_blocking(reason): this test may block its event loop.",
)


def flag_of(name: str) -> str:
    """The command line's name of an option."""
    return "--aiocop-" + name.replace("_", "-")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("aiocop", "blocked event loops")
    effect = "Fail tests that block their event loop."
    group.addoption("--aiocop", action="store_true", default=False, help=effect)
    parser.addini("aiocop", effect, type="bool", default=False)
    for name, placeholder, effect in OPTIONS:
        group.addoption(flag_of(name), dest=f"aiocop_{name}", metavar=placeholder, default=None, help=effect)
        parser.addini(f"aiocop_{name}", effect, default="")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("aiocop") or config.getini("aiocop"):
        config.pluginmanager.import_plugin(_WATCH)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    if any(item.get_closest_marker("aiocop") for item in items):
        config.pluginmanager.import_plugin(_WATCH)
