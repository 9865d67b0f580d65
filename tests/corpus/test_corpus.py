"""Every scenario of the corpus, on both loops, under the agent: found, at its line, once, with its time and cause."""

import sys

import pytest
from tests.corpus.expectation import SKIPPED
from tests.corpus.expected_failures import EXPECTED_FAILURES
from tests.corpus.running import Subject, run_corpus
from tests.corpus.worker import load_scenarios

SCENARIOS = load_scenarios()
LOOPS = ("asyncio", "uvloop")


def _parameters():
    for name, scenario in SCENARIOS.items():
        for loop in LOOPS:
            reason = EXPECTED_FAILURES.get((name, loop))
            unable = scenario.why_not()
            marks = [pytest.mark.skip(reason=unable)] if unable else []
            marks += [pytest.mark.xfail(strict=True, reason=reason)] if reason and not unable else []
            yield pytest.param(name, loop, marks=marks, id=f"{name}-{loop}")


@pytest.fixture(scope="module")
def verdicts(request):
    """Of all scenarios that are asked for, run at once."""
    wanted = {}
    for item in request.session.items:
        if item.path == request.path and getattr(item, "originalname", "") == "test_scenario":
            subject = Subject("ours", sys.executable, item.callspec.params["loop"])
            wanted.setdefault(subject, []).append(item.callspec.params["name"])
    return {
        (name, subject.loop): verdict
        for (subject, name), verdict in run_corpus(SCENARIOS, wanted, no_second_chance=EXPECTED_FAILURES).items()
    }


@pytest.mark.parametrize(("name", "loop"), list(_parameters()))
def test_scenario(verdicts, name, loop):
    verdict = verdicts[name, loop]
    if verdict.word == SKIPPED:
        pytest.skip(str(verdict))
    if not verdict.conclusive:
        pytest.skip(f"the host had no CPU for it for {verdict.queued_ms:.0f} ms each time: {verdict}")
    assert verdict.right, f"{SCENARIOS[name].says}: {verdict}"


def test_what_is_expected_to_fail_exists():
    assert {name for name, _ in EXPECTED_FAILURES} <= set(SCENARIOS)
