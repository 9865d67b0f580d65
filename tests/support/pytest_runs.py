"""Real runs of pytest with the plugin, in processes of their own.

Only the plugins that matter are loaded (by PYTEST_PLUGINS), which takes a tenth of the time that all installed ones do.
"""

import os
from collections.abc import Callable

import pytest

PLUGINS = "aiocop_pytest.plugin,pytest_asyncio.plugin,anyio.pytest_plugin,xdist.plugin"
SETTINGS = "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"


def pytest_runner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """`run(source, *arguments, settings="")` runs the source as `test_shop.py`, with lines of an ini file."""
    for name in list(os.environ):
        if name.startswith("AIOCOP_"):
            monkeypatch.delenv(name)
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):  # the last two make pytest print whole messages twice
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", PLUGINS)

    def run(source: str, *arguments: str, settings: str = "") -> pytest.RunResult:
        pytester.makeini(SETTINGS + settings)
        pytester.makepyfile(test_shop=source)
        return pytester.runpytest_subprocess(*arguments)

    return run
