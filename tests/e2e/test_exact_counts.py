"""From a line of a real service to a row of GET /hotspots: exact counts, the right place, honest times."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.support.collector import DEADLINE_S, CollectorProcess, collector_environment, run_collector
from tests.support.waiting import wait_until

SERVICE = Path(__file__).parent / "services" / "counted.py"


def line_of(text: str) -> int:
    (line,) = [number for number, line in enumerate(SERVICE.read_text().splitlines(), 1) if text in line]
    return line


@contextmanager
def running_service(collector: str, *arguments: str) -> Iterator[str]:
    """The service under uvicorn; yields its URL. It must end cleanly and quietly on SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(SERVICE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=collector_environment() | {"AIOCOP_COLLECTOR": collector},
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        with httpx.Client(trust_env=False) as http:
            wait_until(lambda: _answers(http, url), "the service answers")
        yield url
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in said, said
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _answers(http: httpx.Client, url: str) -> bool:
    try:
        http.get(url)
    except httpx.TransportError:
        return False
    return True


def expect_the_known_freezes(collector: CollectorProcess, measured_ms: float, times: int = 1) -> None:
    answer = collector.get("/hotspots", service="counted", since="1h")
    rows = {row["call_site"]: row for row in answer["hotspots"]}
    naps = rows[f"counted.py:{line_of('time.sleep(0.002)')}:takes_naps"]
    files = rows[f"counted.py:{line_of('with open(os.devnull)')}:opens_files"]
    assert (naps["count"], files["count"]) == (1000 * times, 500 * times)
    assert naps["blocked_ms"] == pytest.approx(measured_ms, rel=0.1)
    assert naps["operations"] == [{"name": "time.sleep", "count": naps["count"], "blocked_ms": naps["blocked_ms"]}]
    assert [operation["name"] for operation in files["operations"]] == ["open"]
    assert not any("does_it_right" in call_site for call_site in rows), rows


@pytest.fixture
def collector(tmp_path) -> Iterator[CollectorProcess]:
    with run_collector(tmp_path, udp=True) as running:
        yield running


def address(collector: CollectorProcess, transport: str) -> str:
    return f"unix://{collector.socket_path}" if transport == "unix" else "udp://{}:{}".format(*collector.udp)


@pytest.mark.parametrize("transport", ["unix", "udp"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_counts_are_exact_under_uvicorn(collector, loop, transport):
    with running_service(address(collector, transport), "before-run", loop) as url:
        worked = httpx.get(f"{url}/work", timeout=DEADLINE_S, trust_env=False).json()
        assert worked["flushed"] is True
        assert worked["faults"] == 0
        expect_the_known_freezes(collector, worked["measured_ms"])
        (agent,) = collector.get("/agents")["agents"]
        assert (agent["service"], agent["reports_lost"], agent["reports_duplicated"]) == ("counted", 0, 0)
        assert (agent["overhead"]["budget"], agent["overhead"]["level"]) == (0.01, 0)


def test_started_in_a_lifespan(collector):
    with running_service(address(collector, "unix"), "lifespan", "uvloop") as url:
        worked = httpx.get(f"{url}/work", timeout=DEADLINE_S, trust_env=False).json()
        expect_the_known_freezes(collector, worked["measured_ms"])


@pytest.mark.parametrize("how", ["uvloop-main", "plain"])
def test_started_in_a_script(collector, how):
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(SERVICE), how, "30"],
        env=collector_environment() | {"AIOCOP_COLLECTOR": address(collector, "unix")},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    expect_the_known_freezes(collector, json.loads(ended.stdout)["measured_ms"])


def test_a_collector_that_is_killed_and_comes_back_changes_nothing(collector):
    """SIGKILL while the service works; it goes on, and after the restart every count is there once."""
    with running_service(address(collector, "unix"), "before-run", "uvloop") as url:
        first = httpx.get(f"{url}/work", timeout=DEADLINE_S, trust_env=False).json()
        collector.kill()
        away = httpx.get(f"{url}/work?flush_s=0.1", timeout=DEADLINE_S, trust_env=False).json()
        assert away["flushed"] is False
        collector.start()
        back = httpx.get(f"{url}/work", timeout=DEADLINE_S, trust_env=False).json()
        assert back["flushed"] is True
        expect_the_known_freezes(collector, sum(done["measured_ms"] for done in (first, away, back)), times=3)


def test_a_service_without_a_collector_works_and_says_so_once(tmp_path):
    ended = subprocess.run(
        [sys.executable, str(SERVICE), "plain", "0.1"],
        env=collector_environment() | {"AIOCOP_COLLECTOR": f"unix://{tmp_path}/nobody.sock"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["recorded"] >= 1500
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "nobody.sock" in ended.stderr


QUICK_START = """
import asyncio
import aiocop

def on_slow_task(event):
    print(f"SLOW TASK DETECTED: {event.elapsed_ms:.1f}ms")
    print(f"  Severity: {event.severity_level}")
    for evt in event.blocking_events:
        print(f"  - {evt['event']} at {evt['entry_point']}")

async def blocking_task():
    # This synchronous open() will block the loop - aiocop will catch it!
    with open("/dev/null", "w") as f:
        f.write("data")
    await asyncio.sleep(0.1)

async def main():
    aiocop.patch_audit_functions()
    aiocop.start_blocking_io_detection()
    aiocop.detect_slow_tasks(threshold_ms=10, on_slow_task=on_slow_task)
    aiocop.activate()
    await asyncio.gather(blocking_task(), blocking_task())

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_published_quick_start_runs_as_it_stands(tmp_path):
    program = tmp_path / "test_aiocop.py"
    program.write_text(inspect.cleandoc(QUICK_START))
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=DEADLINE_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    line = next(number for number, text in enumerate(program.read_text().splitlines(), 1) if "with open" in text)
    assert ended.stdout.count("SLOW TASK DETECTED") >= 2
    assert ended.stdout.count(f"  - open(/dev/null, w) at test_aiocop.py:{line}:blocking_task") == 2
