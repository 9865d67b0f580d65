"""The command line of aiocop-run, and what becomes of it: another command's environment, and that command.

Exit codes: those of COMMAND, which replaces this process; before that 2 for a command line that cannot be used and for
a Python without aiocop, 127 for a command that is not found; `--info` exits 3 when no collector answers.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from aiocop.config import OPTIONS, Configuration, Option
from aiocop.run.command import NOT_FOUND, CommandError, look_up
from aiocop.run.info import Info
from aiocop.run.interpreter import Interpreter, refuse_without_aiocop
from aiocop_wire import __version__

BOOTSTRAP_FOLDER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap")
_PYTHONPATH: Final = "PYTHONPATH"
_FLAGS: Final = tuple(option for option in OPTIONS if option.name != "enabled" and not option.secret)
_METAVARS: Final = {
    "collector": "ADDRESS",
    "application": "PACKAGES",
    "ship_context": "NAMES",
    "ship_arguments": "OPERATIONS",
    "udp_key_file": "FILE",
    "remote_control": "1",
}

_EPILOG: Final = """\
examples:
  aiocop-run uvicorn app:app --workers 4
  aiocop-run --service shop --collector udp://10.0.0.7:8718 gunicorn -k uvicorn_worker.UvicornWorker app:app
  aiocop-run --threshold-ms 50 python -m app
  aiocop-run --info uvicorn app:app       show what would hold, and whether the collector answers
  AIOCOP_ENABLED=0 aiocop-run python -m app       run COMMAND as if aiocop-run were not there

Every option is also an environment variable (AIOCOP_SERVICE, AIOCOP_COLLECTOR, …); options win. COMMAND replaces
aiocop-run: same process id, same signals, its exit code. The processes it starts are watched too, each from the moment
it runs an event loop. Python's own options -E, -I and -S keep aiocop out of a process.

exit codes: those of COMMAND; 2 usage, or COMMAND's Python has no aiocop; 127 COMMAND not found; with --info also
3 no collector answers.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns an exit code, or does not return at all: COMMAND takes over the process."""
    parser = _parser()
    options = parser.parse_args(arguments)
    command_line: list[str] = options.command[1:] if options.command[:1] == ["--"] else options.command
    given = {option: text for option in _FLAGS if (text := getattr(options, option.name))}
    for option, text in given.items():
        problem = _problem(option, text)
        if problem:
            parser.error(problem)
    environ = {**os.environ, **{option.variables[0]: text for option, text in given.items()}}
    if options.info:
        info = Info.gather(command_line, environ, {option.name: _flag(option) for option in given})
        sys.stdout.write(info.as_json() if options.json else info.as_text())
        return info.exit_code
    if options.json:
        parser.error("--json goes with --info")
    if not command_line:
        parser.error("what is to be run? Give a COMMAND, like: aiocop-run python -m app")
    try:
        start(command_line, environ)
    except CommandError as error:
        _say(str(error))
        return error.exit_code


def start(command_line: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Become the command, watched unless it is switched off. Raises CommandError when that cannot be."""
    if not Configuration.resolve(environ=environ).enabled:
        _become(command_line, environ)
    command = look_up(command_line, environ, os.path.dirname(sys.executable))
    if command.python is not None:
        refuse_without_aiocop(command, Interpreter.ask(command.python, environ), Interpreter.own())
        if command.skips_sitecustomize:
            _say(
                f"warning: with {command.skips_sitecustomize} this Python takes nothing from aiocop-run and is not"
                f" watched; leave it out, or add aiocop.start() to the program"
            )
    _become(command_line, watched(environ))


def watched(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment in which every Python reads our sitecustomize first; once, however often aiocop-run is used."""
    before = environ.get(_PYTHONPATH)
    rest = [entry for entry in before.split(os.pathsep) if entry != BOOTSTRAP_FOLDER] if before else []
    return {**environ, _PYTHONPATH: os.pathsep.join([BOOTSTRAP_FOLDER, *rest])}


def _become(command_line: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    name = command_line[0]
    try:
        # S606: no shell, on purpose; the command is the user's own
        os.execvpe(name, list(command_line), environ)  # noqa: S606
    except FileNotFoundError:
        raise CommandError(f"{name}: command not found", NOT_FOUND) from None
    except OSError as error:
        hint = f". Run it with Python: aiocop-run python {name}" if error.errno == errno.ENOEXEC else ""
        raise CommandError(f"{name} cannot be started: {error.strerror}{hint}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aiocop-run",
        usage="aiocop-run [options] COMMAND …",
        description="Run COMMAND and find out what freezes the event loops of all its processes; no code change.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option in _FLAGS:
        metavar = "MS" if option.name.endswith("_ms") else _METAVARS.get(option.name, "NAME")
        default = f" Default: {option.default}." if option.default != "empty" else ""
        text = f"{option.effect}{default}"
        parser.add_argument(_flag(option), dest=option.name, metavar=metavar, help=text.replace("%", "%%"))
    parser.add_argument(
        "--info", action="store_true", help="Show what would hold and where it comes from; run nothing."
    )
    parser.add_argument("--json", action="store_true", help="With --info: for programs.")
    parser.add_argument("--version", action="version", version=f"aiocop-run {__version__}")
    parser.add_argument("command", metavar="COMMAND …", nargs=argparse.REMAINDER, help="The program and its arguments.")
    return parser


def _flag(option: Option) -> str:
    return "--" + option.name.replace("_", "-")


def _problem(option: Option, text: str) -> str:
    """What is wrong with a flag's value; empty when nothing is."""
    variable = option.variables[0]
    problems = Configuration.resolve(environ={variable: text}).problems
    return _flag(option) + problems[0].removeprefix(variable) if problems else ""


def _say(message: str) -> None:
    sys.stderr.write(f"aiocop-run: {message}\n")
