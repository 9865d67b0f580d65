"""The pytest plugin around a run: switched on and off, configured, distributed, and gone at the end."""

from pathlib import Path

import pytest
from tests.support.collector import run_collector
from tests.support.pytest_runs import pytest_runner

pytest_plugins = ["pytester"]

FREEZE = """\
import asyncio, sys, threading, time

async def freeze():
    time.sleep(0.3)

def test_frozen():
    asyncio.run(freeze())
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch):
    return pytest_runner(pytester, monkeypatch)


def test_off_it_is_there_and_does_not_even_import_the_agent(run, monkeypatch):
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")
    done = run(
        FREEZE
        + """
def test_nothing_is_there():
    assert "aiocop_pytest.plugin" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] in ("aiocop", "aiocop_wire", "msgpack")]
"""
    )
    done.assert_outcomes(passed=2)


def test_everything_is_given_back_at_the_end(run, pytester: pytest.Pytester):
    pytester.makeconftest(
        """
import asyncio.events, gc, threading, time

run_slice, listeners = asyncio.events.Handle._run, list(gc.callbacks)

def pytest_unconfigure(config):
    assert time.sleep.__class__.__name__ == "builtin_function_or_method"
    assert asyncio.events.Handle._run is run_slice
    assert gc.callbacks == listeners
    assert threading.enumerate() == [threading.main_thread()]
    print("all is as it was")
"""
    )
    source = FREEZE + "\ndef test_watched():\n    assert threading.active_count() == 2\n"
    done = run(source, "--aiocop", "-s")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["all is as it was"])


def test_the_program_under_test_may_start_and_stop_its_own(run):
    done = run(
        """
import asyncio, time, pytest, uvloop, aiocop

async def freeze():
    time.sleep(0.3)

@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_its_own_events(run):
    events = []
    aiocop.start(service="shop", collector="unix:///nowhere/shop.sock", threshold_ms=100, on_slow_task=events.append)
    aiocop.register_context_provider(lambda: {"mine": True})
    run(freeze())
    aiocop.stop(0)
    aiocop.clear_slow_task_callbacks()
    aiocop.clear_context_providers()
    slow = [(event.call_site, event.context) for event in events if event.exceeded_threshold]
    assert slow == [("test_shop.py:4:freeze", {"mine": True})]
    assert not aiocop.is_monitoring_active()

def test_watched_after_all():
    asyncio.run(freeze())
""",
        "--aiocop",
        "--aiocop-threshold-ms=150",
    )
    done.assert_outcomes(failed=3)
    assert "AssertionError" not in done.stdout.str()
    assert done.stdout.str().count("  trace      test_shop.py:4:freeze") == 3
    done.stdout.fnmatch_lines(["3 tests blocked the loop"])


@pytest.mark.parametrize(
    ("arguments", "settings", "complaint"),
    [
        (["--aiocop-threshold-ms=50ms"], "", "--aiocop-threshold-ms='50ms': must be a number of milliseconds above 0*"),
        (["--aiocop-collector=tcp://x"], "", "--aiocop-collector='tcp://x': *unix:// or udp://*"),
        ([], "aiocop_threshold_ms = -1", "aiocop_threshold_ms='-1': must be a number of milliseconds above 0"),
    ],
)
def test_a_bad_value_is_a_usage_error_that_names_it(run, arguments, settings, complaint):
    done = run(FREEZE, "--aiocop", *arguments, settings=settings)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: {complaint}"])


def test_a_bad_marker_is_a_usage_error_that_names_the_test(run):
    done = run("import pytest\n@pytest.mark.aiocop(50)\ndef test_marked(): pass\n")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: test_shop.py::test_marked: aiocop takes threshold_ms=* and nothing else"])


def test_flags_win_over_variables_and_these_over_the_file(run, monkeypatch):
    switched_on = "aiocop = true\naiocop_threshold_ms = 150\n"
    run(FREEZE, settings=switched_on).assert_outcomes(failed=1)
    monkeypatch.setenv("AIOCOP_THRESHOLD_MS", "5000")
    monkeypatch.setenv("AIOCOP_ENABLED", "0")
    run(FREEZE, settings=switched_on).assert_outcomes(passed=1)
    run(FREEZE, "--aiocop-threshold-ms=150", settings=switched_on).assert_outcomes(failed=1)


def test_workers_of_xdist_watch_and_the_controller_tells(run):
    source = FREEZE + "\ndef test_frozen_too():\n    asyncio.run(freeze())\n\ndef test_fine():\n    pass\n"
    done = run(source, "--aiocop", "--aiocop-threshold-ms=150", "-n", "2")
    done.assert_outcomes(passed=1, failed=2)
    done.stdout.fnmatch_lines(["Event loop blocked * ms at test_shop.py:4:freeze *", "2 tests blocked the loop"])


def test_findings_reach_a_collector_with_their_release(run, tmp_path: Path):
    with run_collector(tmp_path) as collector:
        done = run(
            FREEZE,
            "--aiocop",
            "--aiocop-threshold-ms=150",
            f"--aiocop-collector=unix://{collector.socket_path}",
            "--aiocop-service=shop",
            "--aiocop-release=2.0",
        )
        done.assert_outcomes(failed=1)
        assert "not everything reached" not in done.stdout.str()
        rows = collector.get("/hotspots", service="shop", environment="test")["hotspots"]
        row = {row["call_site"]: row for row in rows}["test_shop.py:4:freeze"]
    assert (row["first_release"], row["slow_count"]) == ("2.0", 1)


def test_what_does_not_reach_the_collector_is_said(run, tmp_path: Path):
    done = run(FREEZE, "--aiocop", f"--aiocop-collector=unix://{tmp_path}/nobody.sock")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([f"not everything reached the collector at unix://{tmp_path}/nobody.sock*"])
