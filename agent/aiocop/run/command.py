"""Which program a command line runs, and which Python that program runs on, found out without running anything.

A program is Python itself, or a script whose first line names a Python (as pip writes them for `uvicorn`, `gunicorn`),
or something else (`tini`, `bash`, `uwsgi`), of which nothing is known: what it starts finds the environment all the
same.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

USAGE: Final = 2
NOT_FOUND: Final = 127
"""As shells, env(1) and timeout(1) say it."""

_PYTHON: Final = re.compile(r"(?:python|pypy)[0-9.]*t?(?:-dbg)?")
_SH_TRAMPOLINE: Final = re.compile(r"""''''?exec['"]* (?P<interpreter>"[^"]+"|'[^']+'|\S+) "\$0" "\$@\"""")
"""What pip writes where the path to Python is too long or has spaces: the second line of a script for /bin/sh."""
_FIRST_LINES_BYTES: Final = 4096
_OPTIONS_WITH_VALUE: Final = "WX"
_SKIPPING: Final = frozenset("EIS")
"""Options of Python without which a sitecustomize on PYTHONPATH is not run: -E and -I ignore PYTHONPATH, -S site."""


class CommandError(Exception):
    """A command that cannot be started, or not watched. Caught by the launcher: it says the text and exits."""

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Command(NamedTuple):
    """A command line, looked up."""

    arguments: tuple[str, ...]
    path: str
    """The program's file."""
    python: str | None
    """The Python that runs it; None where that is not known."""
    python_arguments: tuple[str, ...]
    """What this Python is given before the program's own arguments: options, `-m` and module, script."""

    @property
    def program(self) -> str:
        """The name by which the service goes unless it is given one."""
        if self.python is None or self.path != self.python:
            return _stem(self.path)
        _, target = split_python_arguments(self.arguments[1:])
        if target[:1] == ("-m",):
            return target[1].removesuffix(".__main__") if len(target) > 1 else "python"
        return _stem(target[0]) if target and not target[0].startswith("-") else "python"

    @property
    def skips_sitecustomize(self) -> str:
        """The options, like `-I`, that make this Python pass by the sitecustomize; empty where there is none."""
        if self.python is None:
            return ""
        options, _ = split_python_arguments(self.python_arguments)
        letters = (letter for option in options for letter in _letters(option))
        return " ".join(f"-{letter}" for letter in dict.fromkeys(letters) if letter in _SKIPPING)


def look_up(arguments: Sequence[str], environ: Mapping[str, str], own_scripts: str) -> Command:
    """The command, found as exec will find it. Raises CommandError, which says what to type instead.

    `own_scripts` is the folder of the environment that aiocop-run belongs to.
    """
    name = arguments[0]
    path = shutil.which(name, path=environ.get("PATH", os.defpath))
    if path is None:
        raise _not_startable(arguments, own_scripts)
    if _is_python(path):
        return Command(tuple(arguments), path, path, tuple(arguments[1:]))
    interpreter = read_interpreter(path)
    if not interpreter:
        return Command(tuple(arguments), path, None, ())
    python = shutil.which(interpreter[0], path=environ.get("PATH", os.defpath))
    if python is None:
        raise CommandError(
            f"{path} wants to be run by {interpreter[0]}, which is not there. Was its environment moved or removed?"
            f" Install {os.path.basename(path)} anew.",
            NOT_FOUND,
        )
    return Command(tuple(arguments), path, python, (*interpreter[1:], path, *arguments[1:]))


def _not_startable(arguments: Sequence[str], own_scripts: str) -> CommandError:
    name = arguments[0]
    rest = arguments[1:]
    if os.path.isfile(name) or (os.path.isdir(name) and os.path.isfile(os.path.join(name, "__main__.py"))):
        with_python = shlex.join(["aiocop-run", "python", name, *rest])
        return CommandError(f"{name} exists but is not an executable program. Run it with Python: {with_python}")
    own = os.path.join(own_scripts, name)
    if os.path.basename(name) == name and os.access(own, os.X_OK):
        with_path = shlex.join(["aiocop-run", own, *rest])
        return CommandError(f"{name} is not on the PATH. There is one beside aiocop-run: {with_path}", NOT_FOUND)
    where = "There is no such file." if os.path.dirname(name) else "It is not on the PATH; is it installed?"
    return CommandError(f"{name}: command not found. {where}", NOT_FOUND)


def read_interpreter(path: str) -> tuple[str, ...]:
    """The Python and its options that a script's first lines name; empty for anything else.

    Sources: execve(2) for `#!`, env(1) for `-S`, distlib's scripts.py for the two lines that pip writes for /bin/sh.
    """
    try:
        with open(path, "rb") as script:
            head = script.read(_FIRST_LINES_BYTES)
    except OSError:
        return ()
    if not head.startswith(b"#!"):
        return ()
    first, _, rest = head[2:].decode("utf-8", "surrogateescape").partition("\n")
    program, _, argument = first.strip().partition(" ")
    words = [program, *_split(argument)]
    if os.path.basename(program) == "sh":
        trampoline = _SH_TRAMPOLINE.match(rest)
        words = _split(trampoline["interpreter"]) if trampoline else []
    elif os.path.basename(program) == "env":
        words = words[1:]
        while words and (words[0].startswith("-") or "=" in words[0]):
            del words[0]
    return tuple(words) if words and _is_python(words[0]) else ()


def split_python_arguments(arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Python's options, and from what it runs (`-m`, `-c`, a script) on the rest. Source: Python's `--help`."""
    index = 0
    while index < len(arguments):
        argument = arguments[index]
        if not argument.startswith("-") or argument == "-":
            break
        if argument.startswith("--"):
            index += 2 if argument == "--check-hash-based-pycs" else 1
            continue
        for position, letter in enumerate(argument[1:], 1):
            value = argument[position + 1 :]
            if letter in "cm":
                flags = (f"-{argument[1:position]}",) if position > 1 else ()
                target = (f"-{letter}", value) if value else (f"-{letter}",)
                return (*arguments[:index], *flags), (*target, *arguments[index + 1 :])
            if letter in _OPTIONS_WITH_VALUE:
                index += 0 if value else 1
                break
        index += 1
    return tuple(arguments[:index]), tuple(arguments[index:])


def _letters(option: str) -> str:
    """The one-letter options in `-sE`; what follows one that takes a value is its value."""
    if not option.startswith("-") or option.startswith("--"):
        return ""
    return re.split(f"[{_OPTIONS_WITH_VALUE}]", option[1:])[0]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an odd quote
        return text.split()


def _is_python(path: str) -> bool:
    return _PYTHON.fullmatch(os.path.basename(path)) is not None


def _stem(path: str) -> str:
    stem, extension = os.path.splitext(os.path.basename(path.rstrip("/")))
    return stem if extension in (".py", ".pyc", ".pyz") else stem + extension
