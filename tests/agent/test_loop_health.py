"""How loops fare, from a real loop to the collector's answers: lag, the share of time blocked, what waited."""

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.collector import CollectorProcess, collector_environment, run_collector
from tests.support.detecting import LOOPS
from tests.support.waiting import wait_until

import aiocop
from aiocop.loop_health import UNKNOWN, LoopHealth, waiting_in

SERVICE = Path(__file__).parent.parent / "e2e" / "services" / "blocked_loop.py"


def run_service(collector: CollectorProcess, *arguments: str, udp: bool = False) -> None:
    address = "udp://{}:{}".format(*collector.udp) if udp else f"unix://{collector.socket_path}"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SERVICE), *arguments],
        env=collector_environment() | {"AIOCOP_COLLECTOR": address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def told_of(collector: CollectorProcess, service: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The service in `GET /services`, and the one loop of its one agent."""
    found = wait_until(
        lambda: [agent for agent in collector.get("/agents", service=service)["agents"] if agent["loops"]],
        f"{service}'s loops",
    )
    (loop,) = found[0]["loops"]
    (row,) = collector.get("/services", service=service, since="1h")["services"]
    return row, loop


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("udp", [False, True])
def test_a_blocked_loop_is_late_and_says_for_how_much_of_its_time(tmp_path, loop, udp):
    with run_collector(tmp_path, udp=True) as collector:
        run_service(collector, "blocked", loop, udp=udp)
        wait_until(lambda: collector.get("/services", service="blocked")["services"][0]["timers"], "its timers")
        row, shown = told_of(collector, "blocked")
        for told in (row, shown):
            assert 200 <= told["loop_blocked_ms"] < 5000
            assert told["loop_ms"] >= 400
            assert told["blocked_share"] == pytest.approx(told["loop_blocked_ms"] / told["loop_ms"], rel=0.01)
            assert told["slow_slices"] >= 1
            # Timers are due every other millisecond, so one was due as the freeze of 200 ms began.
            assert 150 <= told["lag_max_ms"] < 5000
            assert 100 <= told["lag_p99_ms"] <= told["lag_max_ms"]
            assert told["lag_p50_ms"] <= told["lag_p95_ms"] <= told["lag_p99_ms"]
            assert told["timers"] > 20
        assert (shown["thread_name"], shown["loop"]) == ("MainThread", loop)
        (hotspot,) = collector.get("/hotspots", service="blocked", operation="time.sleep")["hotspots"]
        detail = collector.get(f"/hotspots/{hotspot['id']}")
        metrics = collector.http.get("/metrics").text
        lag = [line for line in metrics.splitlines() if line.startswith("aiocop_loop_lag_seconds_bucket{")]
        counts = [float(line.rpartition(" ")[2]) for line in lag]
        assert counts == sorted(counts)
        assert counts[-1] == row["timers"]
        assert 'le="0.128"' in lag[7]
        assert counts[-1] > counts[7]
        if loop == "asyncio":
            assert detail["waiting_max"] >= 10
            assert detail["slow_events"][0]["waiting"] >= 10
            assert row["waiting_max"] >= 10
        else:
            assert (detail["waiting_max"], detail["waiting_mean"], row["waiting_max"]) == (None, None, 0)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_idle_loop_is_not_late_and_watched_all_the_same(tmp_path, loop):
    with run_collector(tmp_path) as collector:
        run_service(collector, "idle", loop)
        row, shown = told_of(collector, "idle")
        for told in (row, shown):
            assert told["loop_ms"] >= 400
            assert (told["timers"], told["lag_p50_ms"], told["lag_max_ms"]) == (0, None, None)
            assert told["blocked_share"] < 0.5
        assert row["count"] == 0


def test_each_loop_of_a_process_is_told_apart(tmp_path):
    def freeze(duration_s: float) -> None:
        async def main() -> None:
            await asyncio.sleep(0.001)
            time.sleep(duration_s)

        asyncio.run(main())

    with run_collector(tmp_path) as collector:
        aiocop.start(service="two", collector=f"unix://{collector.socket_path}", threshold_ms=30)
        try:
            threads = [
                threading.Thread(target=freeze, args=(duration_s,), name=name)
                for name, duration_s in (("short", 0.05), ("long", 0.2))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert aiocop.flush(60)
        finally:
            aiocop.stop(0)
        (agent,) = collector.get("/agents", service="two")["agents"]
        blocked_ms = {loop["thread_name"]: loop["loop_blocked_ms"] for loop in agent["loops"]}
        assert set(blocked_ms) >= {"short", "long"}
        assert 50 <= blocked_ms["short"] < blocked_ms["long"]
        (row,) = collector.get("/services", service="two")["services"]
        assert row["loop_blocked_ms"] == pytest.approx(sum(blocked_ms.values()), abs=0.01)


def test_a_loop_shows_what_is_ready_and_what_is_due():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert waiting_in(loop) == 0
        handles = [loop.call_soon(int) for _ in range(3)]
        handles += [loop.call_later(delay_s, int) for delay_s in (0, 0.001, 0.002, 60)]
        handles[4].cancel()
        time.sleep(0.01)
        assert waiting_in(loop) == 3 + 2
        for handle in handles:
            handle.cancel()

    asyncio.run(main())
    assert waiting_in(object()) == UNKNOWN


def test_a_take_holds_what_came_since_the_one_before():
    health = LoopHealth("main")
    for lag_ns in (-5, 100_000, 300_000_000):
        health.ran_late(lag_ns)
    health.froze(50_000_000, 1_000_000, 7)
    health.froze(40_000_000, 0, UNKNOWN)
    first = health.take(1, "asyncio")
    assert (first.blocked_us, first.starved_us, first.slow_slices) == (90_000, 1_000, 2)
    assert (first.waiting, first.waiting_max) == (7, 7)
    assert (first.lag_us, first.lag_max_us) == (300_100, 300_000)
    assert sum(first.lag_bins[1::2]) == 3
    health.ran_late(2_000_000)
    second = health.take(1, "asyncio")
    assert (second.lag_us, second.lag_max_us, second.lag_bins[1::2]) == (2_000, 2_000, (1,))
    assert (second.blocked_us, second.slow_slices, second.waiting_max) == (0, 0, 0)
    assert second.observed_us >= 0
