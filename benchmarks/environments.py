"""Virtual environments that a script makes for what must not share one: the published `aiocop`, and what it is compared
with. Made once under .cache/, for one interpreter each, and made anew when what goes into them changed.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = "aiocop==1.2.1"
OURS = ("--editable", str(ROOT))


def interpreter_of(python: str) -> tuple[str, str]:
    """(version, executable of its base installation) of a Python."""
    code = (
        "import sys; print('.'.join(map(str, sys.version_info[:3])), getattr(sys, '_base_executable', sys.executable))"
    )
    version, executable = subprocess.run(
        [python, "-I", "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    return version, executable


def environment(name: str, requirements: tuple[str, ...], python: str = sys.executable) -> str:
    """The Python of an environment with these requirements; says so on stderr when it has to be made."""
    version, base = interpreter_of(python)
    folder = ROOT / ".cache" / "environments" / f"{name}-{version}"
    stamp = folder / "requirements"
    wanted = "\n".join(requirements)
    executable = str(folder / "bin" / "python")
    if stamp.exists() and stamp.read_text() == wanted:
        return executable
    print(f"Making {folder.relative_to(ROOT)} with {', '.join(requirements)} …", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([base, "-m", "venv", folder], check=True)
    install = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "requirements" / "constraints.txt", *requirements], check=True)
    stamp.write_text(wanted)
    return executable
