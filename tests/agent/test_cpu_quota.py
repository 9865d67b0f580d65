"""A container that has used up its CPU quota stands still for most of each period: the host's doing, nobody's code."""

import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.running import clean_environment, run, write_program
from tests.support.waiting import wait_until

from aiocop.cpu_quota import CpuQuota

_PERIOD_US, _QUOTA_US = 100_000, 20_000
PROGRAM = """
import asyncio, json, sys, time
import aiocop

LOOPS = {"asyncio": asyncio.run}
if sys.argv[1] == "uvloop":
    import uvloop
    LOOPS["uvloop"] = uvloop.run
events = []

async def work():
    # Short slices, so that only those are long in which everything stood still.
    for _ in range(300):
        until = time.thread_time() + 0.002
        while time.thread_time() < until:
            pass
        await asyncio.sleep(0)

aiocop.start("shop", on_slow_task=events.append)
LOOPS[sys.argv[1]](work())
print(json.dumps([(event.cause, event.call_site, event.elapsed_ms) for event in events if event.exceeded_threshold]))
"""


@pytest.fixture
def limited() -> Iterator[Path]:
    """A control group (v1 or v2) whose processes get a fifth of a CPU."""
    root = Path("/sys/fs/cgroup")
    controller = root / "cpu" if (root / "cpu").is_dir() else root
    group = controller / f"aiocop-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"NOT TESTED: a CPU quota needs a control group that can be made here: {error}")
    try:
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(_QUOTA_US))
            else:
                (group / "cpu.max").write_text(f"{_QUOTA_US} {_PERIOD_US}")
        except OSError as error:
            pytest.skip(f"NOT TESTED: no CPU quota can be set here: {error}")
        yield group
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "its processes have ended")
        os.rmdir(group)


def throttled(group: Path) -> int:
    """In how many periods the quota was used up."""
    counts = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(counts["nr_throttled"])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_a_quota_takes_is_nobodys_fault(limited, tmp_path, loop):
    program = write_program(tmp_path / "program.py", PROGRAM)
    enter = 'echo $$ > "$1" && shift && exec "$@"'
    command = ["/bin/sh", "-c", enter, "sh", limited / "cgroup.procs", sys.executable, program, loop]
    said = run(*command, environment=clean_environment())
    assert said.returncode == 0, said.stderr
    events = json.loads(said.stdout)
    assert throttled(limited) > 5
    assert len(events) > 5, "it stood still for most of a tenth of a second, again and again"
    blamed = [event for event in events if event[0] != "starved"]
    # None, but for a busy host: the watchdog needs a CPU, too, to see when it began.
    assert 10 * len(blamed) <= len(events), blamed


def write_stat(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.stat").write_text(text)


@pytest.mark.parametrize(
    ("membership", "folder", "text", "expected_ns"),
    [
        ("4:memory:/x\n1:cpu:/a/b\n0::/\n", "cpu/a/b", "nr_periods 9\nnr_throttled 2\nthrottled_time 77\n", 77),
        ("3:cpu,cpuacct:/a\n", "cpu,cpuacct/a", "nr_periods 9\nthrottled_time 78\n", 78),
        ("3:cpu,cpuacct:/docker/c0ffee\n", "cpu", "nr_periods 9\nthrottled_time 79\n", 79),
        ("0::/a.slice/b.scope\n", "a.slice/b.scope", "usage_usec 5\nnr_periods 9\nthrottled_usec 80\n", 80_000),
        ("0::/\n", ".", "usage_usec 5\nnr_periods 9\nnr_throttled 1\nthrottled_usec 81\n", 81_000),
        ("0::/\n", ".", "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 82\n", 0),  # no quota now
        ("0::/\n", ".", "usage_usec 5\n", 0),  # the cpu controller is off
        ("0::/\n", "elsewhere", "nr_periods 9\nthrottled_usec 83\n", 0),
        ("", ".", "nr_periods 9\nthrottled_usec 84\n", 0),
    ],
)
def test_the_groups_numbers_are_found_wherever_they_are_kept(tmp_path, membership, folder, text, expected_ns):
    (tmp_path / "membership").write_text(membership)
    write_stat(tmp_path / "root" / folder, text)
    quota = CpuQuota(str(tmp_path / "membership"), str(tmp_path / "root"))
    assert quota.throttled_ns() == expected_ns
    quota.close()
    assert quota.throttled_ns() == 0


def test_without_control_groups_nothing_is_told(tmp_path):
    assert CpuQuota(str(tmp_path / "missing"), str(tmp_path)).throttled_ns() == 0
