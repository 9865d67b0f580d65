"""`make demo` with real processes: the table, what it says when something is wrong, and that nothing stays behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest
from tests.support.collector import run_collector
from tests.support.waiting import wait_until

from demo.verdict import EXPECTED

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Demo:
    """A running demo. `output()` is what it printed so far, errors included."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> str:
        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.output())
            assert match or self.process.poll() is None, self.output()
            return match

        return wait_until(found, f"{pattern} from the demo").group(1)

    def status(self) -> int:
        return self.process.wait(timeout=120)


@contextmanager
def running_demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Start the demo with its temporary files in `folder`/tmp; kill it at the end if it is still there."""
    (folder / "tmp").mkdir()
    log = folder / "demo.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-u", "-m", "demo", *arguments],
            cwd=EXAMPLES,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
            # A shell that runs the tests in the background ignores SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield Demo(process, log)
        finally:
            if process.poll() is None:
                process.terminate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status == 200
    except URLError:
        return False


def processes_naming(text: str) -> list[int]:
    """The pids whose command line or environment has this text in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except (OSError, ProcessLookupError):
            continue  # gone meanwhile, or somebody else's
        if text.encode() in told:
            found.append(int(process.name))
    return found


def assert_nothing_stays(folder: Path) -> None:
    assert list((folder / "tmp").iterdir()) == []
    wait_until(lambda: not processes_naming(f"{folder}/tmp"), "the demo's processes to be gone")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the demo's own folder lies in it, and a socket's path may have no more than 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


def test_once_prints_the_table_and_cleans_up(tmp_path: Path):
    with running_demo(tmp_path, "--once", "--seconds", "5") as demo:
        status = demo.status()
        assert status == 0, demo.output()
    text = demo.output()
    for call_site in EXPECTED:
        path, _, function = call_site.partition(":")
        assert re.search(rf"\b{re.escape(path)}:\d+:{re.escape(function)}\b", text), call_site
    assert "Every known mistake of the shop is in the table" in text
    assert_nothing_stays(tmp_path)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_stays_up_until_it_is_told_to_stop(tmp_path: Path, signum: signal.Signals, status: int):
    with running_demo(tmp_path, "--seconds", "0.1", "--workers", "1") as demo:
        shop = demo.wait_for(r"shop +(http://\S+)")
        hotspots = demo.wait_for(r"hotspots +(http://\S+)")
        demo.wait_for(r"(until Ctrl-C)")
        assert answers(shop)
        assert answers(hotspots)
        demo.process.send_signal(signum)
        assert demo.status() == status, demo.output()
    assert not answers(shop)
    assert not answers(hotspots)
    assert_nothing_stays(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path):
    with run_collector(tmp_path) as stranger, running_demo(tmp_path, "--seconds", "0.1", "--workers", "1") as demo:
        shop = demo.wait_for(r"shop +(http://[^/\s]+)")
        demo.wait_for(r"(until Ctrl-C)")
        short = ("--once", "--seconds", "0.1", "--patience", "0")
        asked = subprocess.run(
            [sys.executable, "-m", "demo", *short, "--shop-url", shop, "--collector-url", stranger.url],
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert asked.returncode == 1, asked.stdout + asked.stderr
    assert set(re.findall(r"MISSING: (\S+) ", asked.stdout)) == set(EXPECTED)


def test_a_child_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path):
    with running_demo(tmp_path, "--seconds", "60", "--workers", "1") as demo:
        demo.wait_for(r"(Sending requests)")
        (collector,) = [
            pid for pid in processes_naming(f"{tmp_path}/tmp") if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(collector, signal.SIGKILL)
        assert demo.status() == 1, demo.output()
    assert "demo: collector ended with status -9." in demo.output()
    assert_nothing_stays(tmp_path)
