"""Runs scenarios one after the other, each in a fresh process: `python worker.py --detector D --loop L NAME...`.

The interpreter starts once and imports what it needs; then each scenario gets a fork of it, in which nothing is set up
yet and no thread runs. Prints one line of JSON per scenario: its name and the lines that it wrote.
"""

import argparse
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.corpus.detectors import DETECTORS, Detector
from tests.corpus.harness import Harness
from tests.corpus.scenario import SCENARIOS, Scenario

TIME_LIMIT_S = 30.0
_POLL_S = 0.003


def load_scenarios() -> dict[str, Scenario]:
    """All of them, by name."""
    for path in sorted((Path(__file__).parent / "scenarios").glob("*.py")):
        importlib.import_module(f"tests.corpus.scenarios.{path.stem}")
    return SCENARIOS


def play_in_fork(scenario: Scenario, loop: str, detector: Detector, folder: Path) -> list[dict]:
    """The lines that the scenario wrote."""
    skipped = scenario.why_not()
    if skipped is not None:
        return [{"skipped": skipped}]
    output, said = folder / "output", folder / "said"
    output.write_text("")
    pid = os.fork()
    if pid == 0:
        _play_and_exit(scenario, Harness(loop, detector, output), said)
    finished = _wait(pid)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    if not finished:
        lines.append({"error": f"still running after {TIME_LIMIT_S:.0f} s"})
    elif not lines or "finished" not in lines[-1]:
        # Several lines, when the scenario itself failed: its last says what it was.
        text = said.read_text(errors="replace").strip() or "it ended without a word"
        lines.append({"error": text.splitlines()[-1], "text": text})
    return lines


def _play_and_exit(scenario: Scenario, harness: Harness, said: Path) -> None:
    os.setpgid(0, 0)
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 1
    try:
        harness.play(scenario)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> bool:
    deadline = time.monotonic() + TIME_LIMIT_S
    done = 0
    while not done and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        done, _ = os.waitpid(pid, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # also what it started and left
    if not done:
        os.waitpid(pid, 0)
    return bool(done)


def main() -> None:
    """Play what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--detector", choices=list(DETECTORS), required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], required=True)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    scenarios = load_scenarios()
    detector = DETECTORS[options.detector]()
    with tempfile.TemporaryDirectory() as folder:
        # What scenarios leave behind, some by being killed, goes with it.
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        for name in options.names or scenarios:
            started = time.monotonic()
            lines = play_in_fork(scenarios[name], options.loop, detector, Path(folder))
            lines.append({"took_s": round(time.monotonic() - started, 3)})
            print(json.dumps({"name": name, "lines": lines}), flush=True)


if __name__ == "__main__":
    main()
