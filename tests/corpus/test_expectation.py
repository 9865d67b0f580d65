"""The expectation language itself: each verdict and each note, from observations that deserve it."""

import pytest
from tests.corpus.expectation import Observed, Outcome, Verdict, judge
from tests.corpus.scenario import CALL, FREEZE, INNOCENT, Place, Scenario

CULPRIT = (Place("orders.py", 7, frozenset(("create", "<listcomp>"))),)


def scenario(kind=FREEZE, **fields):
    return Scenario("group", "group.name", "says", kind, print, CULPRIT, operation="time.sleep", **fields)


def slow(elapsed_ms=60.0, named=("shop/orders.py:7:Orders.create",), **fields):
    return Observed(True, elapsed_ms, list(named), **{"calls": [("time.sleep", named[0])], **fields})


@pytest.mark.parametrize(
    ("observed", "verdict"),
    [
        ([], Verdict("missed")),
        ([Observed(False, 60.0)], Verdict("missed")),
        ([slow(35.0)], Verdict("missed", ("35 ms seen",))),
        ([slow()], Verdict("pinned")),
        ([slow(named=["/x/orders.py:7:<listcomp>"])], Verdict("pinned")),
        ([slow(named=["/x/orders.py:7"])], Verdict("pinned")),
        ([slow(named=["orders.py:8:create"])], Verdict("detected", ("at orders.py:8:create",))),
        ([slow(named=["orders.py:7:other"])], Verdict("detected", ("at orders.py:7:other",))),
        ([slow(named=["time.py:1:sleep"], trace=["orders.py:7:create"])], Verdict("detected", ("in the trace",))),
        ([slow(), slow()], Verdict("pinned", ("2 events",))),
        ([slow(90.0)], Verdict("pinned", ("90 ms for 60 ms",))),
        ([slow(45.0)], Verdict("pinned", ("45 ms for 60 ms",))),
        ([slow(cause="cpu")], Verdict("pinned", ("cause cpu",))),
        ([slow(cause="wait", calls=[("open", "x")])], Verdict("pinned", ("operation open",))),
        ([slow(None)], Verdict("pinned")),
    ],
)
def test_freezes(observed, verdict):
    assert judge(scenario(causes=("wait",)), Outcome(observed, [60.0])) == verdict


def test_a_pseudo_call_site_is_a_culprit():
    said = slow(named=["<gc>"], cause="gc", calls=[("time.sleep", "")])
    assert judge(scenario(pseudo_culprits=("<gc>",)), Outcome([said], [60.0])).right


@pytest.mark.parametrize(
    ("calls", "verdict"),
    [
        ([], Verdict("missed")),
        ([("open", "orders.py:7:create")], Verdict("missed", ("named: open",))),
        ([("time.sleep", "lib.py:1:f")], Verdict("detected", ("at lib.py:1:f",))),
        ([("time.sleep", "lib.py:1:f"), ("time.sleep", "orders.py:7:create")], Verdict("pinned")),
    ],
)
def test_calls(calls, verdict):
    assert judge(scenario(CALL), Outcome([Observed(False, 0.1, calls=calls)], [])) == verdict


@pytest.mark.parametrize(
    ("observed", "word"),
    [
        ([], "silent"),
        ([Observed(False, 1.0)], "silent"),
        ([slow(cause="starved")], "silent"),
        ([Observed(True, 50.0)], "false alarm"),
        ([Observed(False, 1.0, calls=[("open", "x.py:1:f")])], "false alarm"),
    ],
)
def test_innocents(observed, word):
    assert judge(scenario(INNOCENT), Outcome(observed, [])).word == word


def test_what_broke_or_was_skipped_is_not_judged():
    assert judge(scenario(), Outcome([slow()], [], error="ValueError")) == Verdict("broken", ("ValueError",))
    assert judge(scenario(), Outcome([], [], skipped="needs x")) == Verdict("skipped", ("needs x",))


def test_a_wrong_verdict_of_a_starved_scenario_proves_nothing():
    assert not judge(scenario(), Outcome([], [60.0], queued_ms=50.0)).conclusive
    assert judge(scenario(), Outcome([], [60.0], queued_ms=1.0)).conclusive
    assert judge(scenario(), Outcome([slow()], [60.0], queued_ms=50.0)).conclusive
