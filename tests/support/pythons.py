"""The CPythons of this machine, and empty environments made with them."""

import functools
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


@functools.cache
def installed_pythons() -> dict[str, str]:
    """Version to executable, as scripts/find-pythons.sh finds them."""
    found = subprocess.run([ROOT / "scripts" / "find-pythons.sh"], check=True, capture_output=True, text=True)
    return dict(line.split(" ", 1) for line in found.stdout.splitlines())


def python_or_skip(version: str) -> str:
    """The executable of that version; skips the test where there is none."""
    executable = installed_pythons().get(version)
    if executable is None:
        pytest.skip(f"no CPython {version} is installed here")
    return executable


@dataclass(frozen=True)
class Environment:
    """A virtual environment in `folder`."""

    folder: Path

    @classmethod
    def make(cls, executable: str, folder: Path) -> "Environment":
        """An empty one."""
        subprocess.run([executable, "-m", "venv", folder], check=True)
        return cls(folder)

    def command(self, name: str) -> Path:
        """A script of the environment."""
        return self.folder / "bin" / name

    def install(self, *requirements: str) -> None:
        """Install with the releases that the project is developed with."""
        self._pip("install", "--quiet", "--constraint", str(ROOT / "requirements" / "constraints.txt"), *requirements)

    def distributions(self) -> dict[str, str]:
        """Name to version of what is installed, without the installers themselves."""
        listed = json.loads(self._pip("list", "--format", "json"))
        return {item["name"]: item["version"] for item in listed if item["name"] not in ("pip", "setuptools")}

    def run(self, *arguments: str | Path, **options) -> "subprocess.CompletedProcess[str]":
        """Python with these arguments, isolated from this process's environment variables for Python."""
        return subprocess.run(
            [self.command("python"), "-I", *arguments], capture_output=True, text=True, timeout=120, **options
        )

    def _pip(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.command("python"), "-m", "pip", "--disable-pip-version-check", *arguments],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
