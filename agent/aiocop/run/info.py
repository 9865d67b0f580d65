"""`aiocop-run --info`: what would hold for a command, where each value is from, whether the collector answers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiocop.config import OPTIONS, Configuration
from aiocop.run.command import USAGE, Command, CommandError, look_up
from aiocop.run.interpreter import Interpreter, refuse_without_aiocop
from aiocop.run.probe import Answer, ask_collectors
from aiocop_wire import __version__

UNREACHABLE: Final = 3


class Info(NamedTuple):
    """Everything `--info` tells."""

    options: dict[str, tuple[Any, str]]
    """By option: its value, and the flag, variable or `default` that it comes from."""
    enabled: bool
    answers: list[Answer]
    """Of the collectors that were asked; empty when switched off."""
    own: Interpreter
    command: Command | None
    its: Interpreter | None
    """The Python that the command runs on, where there is one and it is known."""
    refusal: CommandError | None
    """Why aiocop-run would not start the command."""
    warnings: list[str]

    @classmethod
    def gather(cls, command_line: Sequence[str], environ: Mapping[str, str], flags: Mapping[str, str]) -> Info:
        """Ask the command's Python and the collector. `flags` are the options given on the command line."""
        own = Interpreter.own()
        command = its = refusal = None
        warnings: list[str] = []
        if command_line:
            try:
                command = look_up(command_line, environ, os.path.dirname(sys.executable))
                if command.python is not None:
                    its = Interpreter.ask(command.python, environ)
                    refuse_without_aiocop(command, its, own)
            except CommandError as error:
                refusal = error
        program = command.program if command is not None else "(the program's name)"
        configuration = Configuration.resolve(environ=environ, program=program)
        if refusal is not None:
            warnings.append(str(refusal))
        elif its is not None and its.differs_from(own):
            warnings.append(f"the command runs on {its}, with the aiocop that is installed there; this is {own}")
        if command is not None and command.python is None:
            warnings.append(f"{command.path} is not a Python script: whether its Python has aiocop is not known")
        if command is not None and command.skips_sitecustomize:
            skips = command.skips_sitecustomize
            warnings.append(f"with {skips} Python takes nothing from aiocop-run: the process will not be watched")
        warnings += [f"{problem}; nothing will be shipped" for problem in configuration.problems]
        answers = ask_collectors(configuration) if configuration.shipping else []
        return cls(
            options={name: _told(configuration, name, flags) for name in (option.name for option in OPTIONS)},
            enabled=configuration.enabled,
            answers=answers,
            own=own,
            command=command,
            its=its,
            refusal=refusal,
            warnings=warnings,
        )

    @property
    def exit_code(self) -> int:
        """2 when the command would be refused, 3 when it would run and nobody listen, else 0."""
        if self.refusal is not None:
            return self.refusal.exit_code
        if self.enabled and not self.answers:
            return USAGE
        return UNREACHABLE if self.answers and all(answer.answers is False for answer in self.answers) else 0

    def as_json(self) -> str:
        """For programs."""
        told = {
            "version": __version__,
            "options": {name: {"value": value, "origin": origin} for name, (value, origin) in self.options.items()},
            "collectors": [answer._asdict() for answer in self.answers],
            "python": self.own._asdict(),
            "command": None
            if self.command is None
            else {
                "path": self.command.path,
                "program": self.command.program,
                "python": None if self.its is None else self.its._asdict(),
            },
            "warnings": self.warnings,
        }
        return json.dumps(told, indent=2) + "\n"

    def as_text(self) -> str:
        """For people."""
        rows = [(name.replace("_", "-"), _shown(value), origin) for name, (value, origin) in self.options.items()]
        wide = max(len(value) for _, value, _ in rows)
        lines = [f"aiocop-run {__version__}, {self.own} ({self.own.executable})", ""]
        lines += [f"  {name:<14} {value:<{wide}}  {origin}".rstrip() for name, value, origin in rows]
        lines.append("")
        if not self.enabled:
            lines.append("switched off: COMMAND would run as if aiocop-run were not there")
        lines += [f"collector {answer.address}: {answer.detail}" for answer in self.answers]
        if self.command is not None:
            lines.append(f"command {self.command.path}" + (f", on {self.its}" if self.its is not None else ""))
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines) + "\n"


def _told(configuration: Configuration, name: str, flags: Mapping[str, str]) -> tuple[Any, str]:
    value = getattr(configuration, name)
    if name == "collector":
        value = [str(address) for address in value]
    elif name in ("application", "ship_context", "ship_arguments"):
        value = list(value)
    elif name == "udp_key":
        value = str(value)  # whether there is one, not which
    return value, flags.get(name, configuration.origins[name])


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value) or "-"
