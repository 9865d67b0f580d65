"""What is accepted is not reported, what is forbidden raises where it stands, and the catalogue can be added to."""

import asyncio
import sys
import time

import pytest
from tests.support.detecting import LOOPS, detecting, operations, run_tasks, slow

import aiocop

pytestmark = pytest.mark.parametrize("loop", list(LOOPS))


async def naps():
    time.sleep(0.06)


def computes_for(seconds):
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


async def computes():
    computes_for(0.06)


@pytest.fixture
def allowed():
    rules = []

    def allow(**patterns):
        rules.append(aiocop.allow(**patterns))
        return rules[-1]

    yield allow
    for rule in rules:
        aiocop.disallow(rule)


@pytest.mark.parametrize(
    "patterns",
    [
        {"operation": "time.sleep"},
        {"function": "naps"},
        {"module": "*test_allowing"},
        {"operation": "time.*", "function": "na?s"},
    ],
)
def test_an_allowed_call_is_not_reported_and_its_rule_counts(loop, allowed, patterns):
    rule = allowed(**patterns)
    with detecting() as events:
        run_tasks(loop, naps, naps)
        assert aiocop.statistics().recorded == 0
        assert aiocop.statistics().allowed == {str(rule): 2}
    assert slow(events) == []


def test_a_rule_made_later_allows_known_sites_and_can_be_taken_back(loop, allowed):
    with detecting() as events:
        run_tasks(loop, naps)
        rule = allowed(function="naps")
        run_tasks(loop, naps)
        aiocop.disallow(rule)
        run_tasks(loop, naps)
    assert len(slow(events)) == 2


def test_a_rule_for_another_function_allows_nothing(loop, allowed):
    allowed(operation="time.sleep", function="somebody_else")
    with detecting() as events:
        run_tasks(loop, naps)
        assert list(aiocop.statistics().allowed.values()) == [0]
    assert len(slow(events)) == 1


def test_allowed_cpu_is_not_reported(loop, allowed):
    allowed(function="computes_for")
    with detecting() as events:
        run_tasks(loop, computes)
    assert slow(events) == []


def test_what_remains_of_a_slice_whose_cpu_is_allowed_is_judged_by_itself(loop, allowed):
    took_ms = []

    async def also_naps():
        began_s = time.perf_counter()
        computes_for(0.3)
        time.sleep(0.04)
        took_ms.append((time.perf_counter() - began_s) * 1000)

    rule = allowed(function="computes_for")
    for _ in range(10):
        with detecting() as events:
            run_tasks(loop, also_naps)
        if rule.matches:  # on a busy host not every slice is looked at while it computes
            break
    (event,) = slow(events)
    assert rule.matches
    assert operations([event]) == ["time.sleep"]
    assert 40 <= event.elapsed_ms < took_ms[-1] - 150  # 300 ms of CPU time were allowed, however long they took


def test_a_rule_must_say_something(loop):
    with pytest.raises(ValueError, match="at least one"):
        aiocop.allow()


def test_allow_blocking_covers_its_block_and_nothing_else(loop):
    async def partly():
        with aiocop.allow_blocking():
            time.sleep(0.05)
        time.sleep(0.04)

    async def across_an_await():
        with aiocop.allow_blocking():
            time.sleep(0.05)
            await asyncio.sleep(0)
            time.sleep(0.05)
        await asyncio.sleep(0)

    with detecting() as events:
        run_tasks(loop, partly, across_an_await)
    (event,) = slow(events)
    assert event.task_name == "partly"
    assert operations([event]) == ["time.sleep"]
    assert 40 <= event.elapsed_ms < 90


def test_raising_at_the_call_leaves_the_rest_of_the_loop_alone(loop):
    reached = []

    async def main():
        other = asyncio.create_task(asyncio.sleep(0.01, "fine"))
        with aiocop.raise_on_violations(at_call=True):
            with pytest.raises(aiocop.HighSeverityBlockingIoException) as raised:
                await naps()
            with open("/dev/null"):
                reached.append("a moderate call is no violation")
        assert raised.value.events[0]["event"] == "time.sleep(0.06)"
        assert raised.traceback[-1].frame.code.raw.co_name != "main"
        assert any(entry.name == "naps" for entry in raised.traceback)
        return await other

    with detecting():
        began = time.perf_counter()
        assert LOOPS[loop](_returning(main)) is None
        assert reached
        assert time.perf_counter() > began


async def _returning(main):
    assert await main() == "fine"


def test_an_operation_of_ones_own(loop, tmp_path, monkeypatch):
    """A function of the user's, in a module that is imported only later, is wrapped like those of the catalogue."""
    package = tmp_path / "legacy_client"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "calls.py").write_text(
        "import threading\n_never = threading.Event()\n\n\ndef fetch(key):\n    _never.wait(0.05)\n    return key\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    aiocop.register_operation("legacy_client.calls.fetch", weight=aiocop.WEIGHT_HEAVY, advice="Use the new one.")
    assert aiocop.get_blocking_events_dict()["legacy_client.calls.fetch"] == 50

    async def fetches():
        return calls.fetch("k")

    try:
        with detecting() as events:
            calls = __import__("legacy_client.calls").calls
            open("/dev/null").close()  # any audit event will do
            assert "legacy_client.calls.fetch" in aiocop.get_patched_functions()
            run_tasks(loop, fetches)
        assert "legacy_client.calls.fetch" in operations(events)
        assert calls.fetch("x") == "x"
    finally:
        for name in [name for name in sys.modules if name.startswith("legacy_client")]:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(("fetch",), "dotted name"), (("a.b", {"weight": 7}), "weight"), (("a.b", {"cause": "magic"}), "cause")],
)
def test_a_bad_operation_is_refused(loop, arguments, text):
    target, options = arguments if len(arguments) == 2 else (arguments[0], {})
    with pytest.raises(ValueError, match=text):
        aiocop.register_operation(target, **options)
