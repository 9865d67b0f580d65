"""The lines on stderr: one for each thing that happened, whatever its facts are."""

import io
import logging
import re
import sys

import pytest

from aiocop_collector.log import Log, configure_log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def configured(monkeypatch):
    """Configures the log for a new standard error, and gives that back."""
    logger = logging.getLogger("aiocop_collector")
    before = list(logger.handlers), logger.level, logger.propagate
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def configure(stream: io.StringIO) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", stream)
        configure_log()
        return stream

    yield configure
    logger.handlers, logger.level, logger.propagate = before


def test_a_line_has_time_level_event_and_its_facts_by_name(configured):
    said = configured(io.StringIO())
    Log("store").warning("it is 100% full", file="a.sqlite3", error="no room: wait", after_s=1.5, why=None, a='"')
    (line,) = said.getvalue().splitlines()
    at, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", at)
    assert rest == (
        "[warning  ] it is 100% full                a='\"' after_s=1.5 error='no room: wait' file=a.sqlite3 why=None"
    )


def test_a_fact_of_several_lines_stays_on_one(configured):
    said = configured(io.StringIO())
    Log().info("collecting", database="a\nb")
    assert said.getvalue().endswith("[info     ] collecting                     database='a\\nb'\n")
    assert said.getvalue().count("\n") == 1


def test_a_defect_comes_with_its_traceback(configured):
    said = configured(io.StringIO())
    try:
        raise ValueError("broken")
    except ValueError as error:
        Log("receive").error("a stream ended", exc_info=error)
    first, *rest = said.getvalue().splitlines()
    assert first.endswith("[error    ] a stream ended")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: broken"


def test_colours_are_for_terminals_and_change_no_word(configured):
    plain = configured(io.StringIO())
    Log().info("collecting", database="x")
    coloured = configured(Terminal())
    Log().info("collecting", database="x")
    assert "\x1b" not in plain.getvalue()
    assert "\x1b" in coloured.getvalue()
    without = re.sub(r"\x1b\[\d+m", "", coloured.getvalue())
    assert without.split(" ", 1)[1] == plain.getvalue().split(" ", 1)[1]


@pytest.mark.parametrize(
    ("variable", "stream", "coloured"), [("NO_COLOR", Terminal, False), ("FORCE_COLOR", io.StringIO, True)]
)
def test_the_environment_decides_about_colours(configured, monkeypatch, variable, stream, coloured):
    monkeypatch.setenv(variable, "1")
    said = configured(stream())
    Log().info("collecting")
    assert ("\x1b" in said.getvalue()) is coloured


def test_configured_twice_it_says_things_once(configured):
    configured(io.StringIO())
    said = configured(io.StringIO())
    Log("store").info("once")
    assert said.getvalue().count("once") == 1
