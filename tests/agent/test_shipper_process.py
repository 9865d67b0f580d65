"""The shipper and the life of its process: forks, signals and the end of the interpreter. Each in a fresh process."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from tests.support.counting_source import CountingSource
from tests.support.shipping import running_shipper
from tests.support.waiting import wait_until

_ROOT = Path(__file__).parents[2]


def _run(script: str, socket_path: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` after a preamble that makes `source` and `shipper`, whose collector is not there."""
    preamble = f"""
        import logging, os, signal, sys, warnings
        from pathlib import Path
        from tests.support.counting_source import CountingSource
        from tests.support.shipping import make_shipper

        logging.getLogger("aiocop").addHandler(logging.NullHandler())
        logging.getLogger("aiocop").propagate = False
        source = CountingSource()
        shipper = make_shipper(source, Path({str(socket_path)!r}))
    """
    path = os.pathsep.join(str(_ROOT / part) for part in ("agent", "shared", "."))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(preamble) + textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="os.fork warns of threads from 3.12 on")
def test_a_fork_between_pause_and_resume_does_not_warn(tmp_path):
    result = _run(
        """
        def warnings_of_forks(pausing):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                for _ in range(20):
                    if pausing:
                        shipper.pause()
                    child = os.fork()
                    if not child:
                        shipper.abandon()
                        os._exit(0)
                    if pausing:
                        shipper.resume()
                    os.waitpid(child, 0)
            return len(seen)

        shipper.start()
        print(warnings_of_forks(pausing=True), warnings_of_forks(pausing=False))
        shipper.stop(0.1)
        """,
        tmp_path / "c.sock",
    )
    assert (result.stdout, result.stderr) == ("0 20\n", "")


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "os._exit(0)", "signal.raise_signal(signal.SIGTERM)"])
def test_a_process_that_ends_without_stop_neither_hangs_nor_makes_noise(tmp_path, ending):
    result = _run(
        f"""
        shipper.start()
        source.count(1, times=5)
        shipper.flush(0.05)
        {ending}
        """,
        tmp_path / "c.sock",
    )
    assert (result.stdout, result.stderr) == ("", "")
    assert result.returncode == (-15 if "SIGTERM" in ending else 0)


def test_a_signal_handler_may_ask_flush_and_stop(tmp_path):
    result = _run(
        """
        def handle(number, frame):
            shipper.statistics()
            shipper.flush(0.001)
            if stopping:
                shipper.stop(0.01)
            signal.setitimer(signal.ITIMER_REAL, 0.002)  # not before: handlers must not pile up

        stopping = False
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        shipper.start()
        for _ in range(500):
            source.count(1)
            shipper.statistics()
            shipper.flush(0.001)
        stopping = True
        print(shipper.stop(0.1))
        signal.setitimer(signal.ITIMER_REAL, 0)
        """,
        tmp_path / "c.sock",
    )
    assert result.stderr == ""
    assert result.stdout == "False\n"


def test_a_handler_that_interrupts_a_wake_up_while_the_thread_ends_may_flush(tmp_path):
    """The interrupted thread holds the waker's lock, which the thread needs for its last step."""
    with running_shipper(CountingSource(), tmp_path / "c.sock") as shipper, shipper._waker._lock:
        shipper._stop_by_ns = time.monotonic_ns()
        shipper.wake()
        wait_until(lambda: shipper._new_requests is None, "the thread to answer nobody any more")
        assert not shipper.flush(0.001)
        assert shipper._waker.is_open


def test_a_child_can_ship_for_itself(tmp_path):
    result = _run(
        """
        shipper.start()
        shipper.pause()
        child = os.fork()
        if not child:
            shipper.abandon()
            own = CountingSource()
            mine = make_shipper(own, Path("/nowhere.sock"))
            mine.start()
            own.count(1, times=3)
            pending = mine.statistics().pending
            mine.stop(0.1)
            os._exit(pending)
        shipper.resume()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        shipper.stop(0.1)
        """,
        tmp_path / "c.sock",
    )
    assert (result.stdout, result.stderr) == ("3\n", "")
