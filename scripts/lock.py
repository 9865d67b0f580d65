"""Writes requirements/constraints.txt: the exact releases that development and CI install.

Run by `make lock`. On every supported Python, everything the project can ask for goes into an empty environment; what
came is written down once, with a marker where the Pythons differ.
"""

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ".[dev,postgres]"
HEADER = """\
# The exact releases that `make` and CI install: pip install -e '.[dev]' -c requirements/constraints.txt
# Written by `make lock` on CPython {pythons}. Users are bound by the ranges in pyproject.toml only.
"""


def installed_pythons() -> dict[str, str]:
    """Version to executable, of the supported Pythons on this machine."""
    found = subprocess.run([ROOT / "scripts" / "find-pythons.sh"], check=True, capture_output=True, text=True)
    pairs = (line.split(" ", 1) for line in found.stdout.splitlines())
    return {version: executable for version, executable in pairs if version in SUPPORTED}


def freeze(executable: str, folder: Path) -> dict[str, str]:
    """Name to release, of everything that a fresh install of the project brings on this Python."""
    subprocess.run([executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--editable", EXTRAS], check=True, cwd=ROOT)
    listing = subprocess.run(
        [python, "-m", "pip", "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
    )
    return dict(line.split("==", 1) for line in listing.stdout.splitlines() if "==" in line)


def merged(releases: dict[str, dict[str, str]]) -> list[str]:
    """One line per package and release; a marker only where not every Python gets the same."""
    pythons_by_pin: dict[tuple[str, str], list[str]] = defaultdict(list)
    for version, frozen in releases.items():
        for name, release in frozen.items():
            pythons_by_pin[name, release].append(version)
    lines = []
    for (name, release), versions in sorted(pythons_by_pin.items(), key=lambda item: item[0][0].lower()):
        marker = " or ".join(f'python_version == "{version}"' for version in versions)
        lines.append(f"{name}=={release}" + ("" if len(versions) == len(releases) else f" ; {marker}"))
    return lines


def main() -> int:
    pythons = installed_pythons()
    missing = [version for version in SUPPORTED if version not in pythons]
    if missing:
        print(f"lock: needs every supported Python, and did not find {', '.join(missing)}", file=sys.stderr)
        return 2
    releases = {}
    with tempfile.TemporaryDirectory(prefix="aiocop-lock-") as folder:
        for version, executable in pythons.items():
            print(f"lock: installing on Python {version} …", flush=True)
            releases[version] = freeze(executable, Path(folder) / version)
    lines = merged(releases)
    CONSTRAINTS.write_text(HEADER.format(pythons=", ".join(releases)) + "\n".join(lines) + "\n")
    print(f"lock: {len(lines)} lines in {CONSTRAINTS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
