"""Whether the Python that a command runs on has aiocop: it is asked itself, by running it once."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Final, NamedTuple

from aiocop.run.command import Command, CommandError

_TIMEOUT_S: Final = 30.0
_LINES: Final = 3
_OURS: Final = "aiocop-telemetry"
# aiocop_wire, because the published aiocop shares our other name. Runs on any Python that the PATH may hold.
_QUESTION: Final = """
import sys
try:
    from importlib.util import find_spec
    found = find_spec("aiocop_wire") is not None
except ImportError:
    found = False
sys.stdout.write("\\n%d.%d\\n%s\\n%d" % (sys.version_info[0], sys.version_info[1], sys.prefix, found))
"""


class Interpreter(NamedTuple):
    """A Python."""

    executable: str
    version: str
    """Major and minor: packages with extension modules are for one of these."""
    prefix: str
    """Its environment."""
    has_aiocop: bool

    @classmethod
    def own(cls) -> Interpreter:
        """The Python that this code runs on."""
        return cls(sys.executable, "{}.{}".format(*sys.version_info), sys.prefix, has_aiocop=True)

    @classmethod
    def ask(cls, executable: str, environ: Mapping[str, str]) -> Interpreter:
        """The Python at `executable`. Raises CommandError where it cannot say."""
        own = cls.own()
        if _is_same_file(executable, own.executable):
            return own._replace(executable=executable)
        try:
            # S603: it is the program that the user asks to run
            asked = subprocess.run(  # noqa: S603
                [executable, "-c", _QUESTION], env=dict(environ), capture_output=True, timeout=_TIMEOUT_S, check=True
            )
            answer = asked.stdout.decode("utf-8", "surrogateescape")
            version, prefix, found = answer.splitlines()[-_LINES:]
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise CommandError(f"{executable} does not run as a Python: {error}") from None
        return cls(executable, version, prefix, has_aiocop=found == "1")

    def differs_from(self, other: Interpreter) -> bool:
        """Whether packages installed for one are not the other's."""
        return self.version != other.version or os.path.realpath(self.prefix) != os.path.realpath(other.prefix)

    def __str__(self) -> str:
        return f"Python {self.version} in {self.prefix}"


def refuse_without_aiocop(command: Command, its: Interpreter, own: Interpreter) -> None:
    """Raises CommandError when the command's processes could not import aiocop: they would run unwatched."""
    if its.has_aiocop:
        return
    name, *rest = command.arguments
    inside = os.path.join(os.path.dirname(own.executable), os.path.basename(name))
    advice = f"Install aiocop there, and use the aiocop-run that comes with it: {its.executable} -m pip install {_OURS}"
    if os.access(inside, os.X_OK):
        advice = f"Run the one of that environment: {shlex.join(['aiocop-run', inside, *rest])}\nOr: {advice}"
    raise CommandError(
        f"{command.path} runs on {its} ({its.executable}), where aiocop is not installed;"
        f" aiocop-run belongs to {own}.\n{advice}"
    )


def _is_same_file(path: str, other: str) -> bool:
    """Of one environment, that is: a virtual environment's `python` is a link to the Python it was made with."""
    return os.path.realpath(path) == os.path.realpath(other) and os.path.realpath(
        os.path.dirname(os.path.abspath(path))
    ) == os.path.realpath(os.path.dirname(os.path.abspath(other)))
