"""Programs in fresh processes, as `aiocop-run` starts them or without it."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.collector import DEADLINE_S

from aiocop.run.launcher import watched

SCRIPTS = Path(sys.executable).parent
AIOCOP_RUN = str(SCRIPTS / "aiocop-run")


def clean_environment(**more: str) -> dict[str, str]:
    """This process's, without a developer's own settings for the agent and without a collector to be found."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIOCOP_", "OTEL_", "DD_"))}
    return inherited | {"AIOCOP_COLLECTOR": "unix:///nowhere/collector.sock"} | more


def path_with(*folders: Path) -> str:
    """PYTHONPATH with `folders` before what is in it already."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def write_program(path: Path, text: str) -> Path:
    """A file with this text, dedented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def run(
    *command: str | Path, environment: dict[str, str], cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run to its end."""
    return subprocess.run(
        [str(word) for word in command],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def run_watched(program: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A program in the environment that aiocop-run makes, without the launcher itself."""
    return run(sys.executable, program, *arguments, environment=watched(clean_environment(**environment)))
