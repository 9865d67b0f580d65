"""docs/pytest.md says what the plugin does: its options, markers and examples."""

import re
from pathlib import Path

import pytest
from tests.support.pytest_runs import pytest_runner

from aiocop_pytest.plugin import MARKERS, OPTIONS, flag_of

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "pytest.md").read_text()


def snippet(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def test_every_option_is_in_the_table():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    documented = {cells[0]: cells for cells in rows if cells[0].startswith("`--")}
    assert set(documented) == {"`--aiocop`"} | {f"`{flag_of(name)} {placeholder}`" for name, placeholder, _ in OPTIONS}
    for name, placeholder, effect in OPTIONS:
        cells = documented[f"`{flag_of(name)} {placeholder}`"]
        assert cells[2] == f"`aiocop_{name}`"
        assert cells[4].replace("`", "").rstrip(".") in effect


def test_every_marker_is_explained():
    for marker in MARKERS:
        assert f"`@pytest.mark.{marker.partition('(')[0]}" in PAGE


def test_the_example_passes_with_the_settings_shown(pytester: pytest.Pytester, monkeypatch):
    run = pytest_runner(pytester, monkeypatch)
    settings = snippet("ini").removeprefix("[pytest]\n")
    run(snippet("python"), "--strict-markers", settings=settings).assert_outcomes(passed=2)


def test_the_report_shown_is_laid_out_like_a_real_one(pytester: pytest.Pytester, monkeypatch):
    run = pytest_runner(pytester, monkeypatch)
    source = "import asyncio, time\nasync def create_order():\n    time.sleep(0.4)\n"
    done = run(
        source + "def test_checkout():\n    asyncio.run(create_order())\n", "--aiocop", "--aiocop-threshold-ms=200"
    )
    labels = re.compile(
        r"^    (\w+) +|^ +[\d]+ ms +(?:at )?|^(Event loop blocked|1 test blocked the loop)", re.MULTILINE
    )
    real = done.stdout.str().partition("= FAILURES =")[2].partition("short test summary")[0]
    assert labels.findall(snippet("text")) == labels.findall(real)
