"""A database whose disk is full takes nothing, and loses nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.fleet import expect_every_count_once, run_fleet
from tests.support.collector import run_collector
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

_DISK_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("NOT TESTED: a full disk needs root and the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 9, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError:
                continue


def test_full_for_a_while(small_disk, tmp_path, extent):
    with (
        run_collector(tmp_path, "--database", f"sqlite:///{small_disk}/collector.sqlite3") as collector,
        run_fleet(tmp_path, f"unix://{collector.socket_path}", extent.agents) as agents,
    ):
        wait_until(lambda: collector.counters().get("commits", 0) > 2, "a first commit")
        _fill(small_disk / "filler")
        wait_until(lambda: collector.counters().get("commits_failed", 0) > 1, "commits that fail")
        readiness = collector.http.get("/readyz")
        assert readiness.status_code == 503
        assert "free space on its volume" in readiness.json()["writer"]["error"]
        assert collector.http.get("/hotspots").status_code == 200
        (small_disk / "filler").unlink()
        expect_every_count_once(collector, agents)
        assert collector.stop() == 0
