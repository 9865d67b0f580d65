"""The pytest plugin in real runs: what fails, what passes, and what the report says."""

import re

import pytest
from tests.support.pytest_runs import pytest_runner

pytest_plugins = ["pytester"]

WATCHED = ("--aiocop", "--aiocop-threshold-ms=150")
IMPORTS = "import asyncio, time, pytest\nfrom shop import *\n"

SHOP = """\
import asyncio, time

async def freeze(seconds=0.3):
    time.sleep(seconds)

async def rest():
    await asyncio.sleep(0.3)
    await asyncio.to_thread(time.sleep, 0.3)
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch):
    """Runs pytest over the given source, beside a module `shop` that can freeze."""
    pytester.makepyfile(shop=SHOP)
    run = pytest_runner(pytester, monkeypatch)
    return lambda source, *arguments: run(IMPORTS + source, *arguments)


def test_a_blocked_loop_fails_its_test_and_shows_where(run):
    done = run(
        """
def test_innocent():
    asyncio.run(rest())

def test_frozen():
    asyncio.run(freeze())
""",
        *WATCHED,
    )
    done.assert_outcomes(passed=1, failed=1)
    line = SHOP.splitlines().index("    time.sleep(seconds)") + 1
    done.stdout.re_match_lines(
        [
            r"_+ test_frozen _+",
            rf"Event loop blocked \d+ ms at shop.py:{line}:freeze \(call, threshold 150 ms\)",
            r"    operation  time.sleep\(0.3\): \d+ ms",
            r"    advice     Use await asyncio.sleep\(\).",
            rf"    trace      shop.py:{line}:freeze",
            r"=+ blocked event loops =+",
            r"1 test blocked the loop",
            rf"  \d+ ms  shop.py:{line}:freeze  time.sleep\(0.3\)  test_shop.py::test_frozen \(call\)",
        ]
    )
    assert "test_innocent" not in done.stdout.str()


def test_computing_is_blamed_on_its_line_without_a_blocking_call(run):
    done = run(
        """
async def crunch():
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        sum(range(1000))

def test_crunching():
    asyncio.run(crunch())
""",
        *WATCHED,
    )
    done.assert_outcomes(failed=1)
    done.stdout.re_match_lines(
        [
            r"Event loop blocked \d+ ms at test_shop.py:\d+:crunch \(call, .*",
            r"    operation  computing",
            r"    advice     Move it to a process pool.*",
            r"    trace      test_shop.py:\d+:crunch",
        ]
    )


def test_every_way_to_run_a_loop_is_watched(run):
    done = run(
        """
import unittest, uvloop

@pytest.mark.asyncio
async def test_pytest_asyncio():
    await freeze()

@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})])
@pytest.mark.anyio
async def test_anyio(anyio_backend):
    await freeze()

def test_uvloop():
    uvloop.run(freeze())

class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_unittest(self):
        await freeze()

@pytest.mark.asyncio
async def test_innocent():
    await rest()
""",
        *WATCHED,
    )
    done.assert_outcomes(passed=1, failed=5)
    assert len(re.findall(r"^Event loop blocked \d+ ms at shop\.py:\d+:freeze", done.stdout.str(), re.MULTILINE)) == 5
    done.stdout.fnmatch_lines(["5 tests blocked the loop"])


def test_freezes_of_fixtures_belong_to_the_phase_they_happen_in(run):
    done = run(
        """
import pytest_asyncio

@pytest_asyncio.fixture
async def slow_to_set_up():
    await freeze()
    yield

@pytest_asyncio.fixture
async def slow_to_tear_down():
    yield
    await freeze()

@pytest.mark.asyncio
async def test_one(slow_to_set_up):
    pass

@pytest.mark.asyncio
async def test_two(slow_to_tear_down):
    pass
""",
        *WATCHED,
    )
    done.assert_outcomes(passed=1, errors=2)
    done.stdout.re_match_lines(
        [
            r"_+ ERROR at setup of test_one _+",
            r"Event loop blocked \d+ ms at shop.py:\d+:freeze \(set-up, .*",
            r"_+ ERROR at teardown of test_two _+",
            r"Event loop blocked \d+ ms at shop.py:\d+:freeze \(tear-down, .*",
        ]
    )


def test_a_test_that_fails_by_itself_keeps_its_failure_and_gets_a_section(run):
    done = run(
        """
def test_wrong():
    asyncio.run(freeze())
    assert 1 == 2

def test_skipped():
    asyncio.run(freeze())
    pytest.skip("for another reason")

@pytest.mark.xfail(strict=True)
def test_known_to_block():
    asyncio.run(freeze())
""",
        *WATCHED,
    )
    done.assert_outcomes(failed=1, skipped=1, xfailed=1)
    done.stdout.re_match_lines(
        [r"E +assert 1 == 2", r"-+ aiocop call -+", r"Event loop blocked \d+ ms at shop.py:\d+:freeze .*"]
    )


def test_markers_win_over_the_run(run):
    source = """
@pytest.mark.allow_blocking(reason="a start-up script")
def test_allowed():
    asyncio.run(freeze())

@pytest.mark.aiocop(threshold_ms=3000)
def test_patient():
    asyncio.run(freeze())

@pytest.mark.aiocop(threshold_ms=100)
def test_strict():
    asyncio.run(freeze(0.2))

@pytest.mark.allow_blocking
class TestAllowed:
    def test_allowed_too(self):
        asyncio.run(freeze())

    @pytest.mark.aiocop
    def test_not_this_one(self):
        asyncio.run(freeze())

def test_plain():
    asyncio.run(freeze(0.2))
"""
    everywhere = run(source, "--aiocop", "--aiocop-threshold-ms=150", "--strict-markers")
    everywhere.assert_outcomes(passed=3, failed=3)
    everywhere.stdout.fnmatch_lines_random(
        ["FAILED *::test_strict*", "FAILED *::test_not_this_one*", "FAILED *::test_plain*"]
    )
    marked_only = run(source, "--aiocop-threshold-ms=150", "--strict-markers")
    marked_only.assert_outcomes(passed=4, failed=2)
    marked_only.stdout.fnmatch_lines_random(["FAILED *::test_strict*", "FAILED *::test_not_this_one*"])


def test_a_pause_of_the_garbage_collector_is_not_held_against_the_test(run):
    done = run(
        """
import gc

gc.disable()
heap = [[] for _ in range(1_000_000)]

async def pause():
    gc.enable()
    [[] for _ in range(10_000)]
    gc.disable()

def test_pause_of_the_garbage_collector():
    asyncio.run(pause())

async def collect():
    gc.collect()

def test_explicit_collection():
    asyncio.run(collect())
""",
        "--aiocop",
        "--aiocop-threshold-ms=15",
    )
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.re_match_lines(
        [
            r"Event loop blocked \d+ ms at test_shop.py:\d+:collect \(call, .*",
            r"    operation  gc.collect\(\): \d+ ms",
            r"    advice     Collect between requests.*",
        ]
    )
