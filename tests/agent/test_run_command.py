"""Which program and which Python a command line means, told from files alone."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from tests.support.running import write_program

from aiocop.run.command import (
    NOT_FOUND,
    USAGE,
    Command,
    CommandError,
    look_up,
    read_interpreter,
    split_python_arguments,
)

OWN_SCRIPTS = os.path.dirname(sys.executable)


def executable(path: Path, text: str) -> Path:
    write_program(path, text).chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("head", "interpreter"),
    [
        ("#!/venv/bin/python\n", "/venv/bin/python"),
        ("#! /venv/bin/python3.12 -sE\n", "/venv/bin/python3.12 -sE"),
        ("#!/usr/bin/env python3\n", "python3"),
        ("#!/usr/bin/env -S python3 -I -X dev\n", "python3 -I -X dev"),
        ("#!/usr/bin/env -S FOO=1 python3\n", "python3"),
        ("#!/usr/bin/pypy3\n", "/usr/bin/pypy3"),
        ("""#!/bin/sh\n'''exec' "/a venv/bin/python" "$0" "$@"\n' '''\n""", "'/a venv/bin/python'"),
        ("""#!/bin/sh\n'''exec' /long/bin/python3.11 "$0" "$@"\n' '''\n""", "/long/bin/python3.11"),
        ("#!/bin/sh\nexec python -m app\n", ""),
        ("#!/usr/bin/env bash\n", ""),
        ("#!/usr/bin/perl\n", ""),
        ("#!\n", ""),
        ("print('no first line')\n", ""),
        ("", ""),
        ("\x7fELF", ""),
    ],
)
def test_the_interpreter_that_a_script_names(tmp_path, head, interpreter):
    script = tmp_path / "script"
    script.write_bytes(head.encode("latin-1"))
    assert read_interpreter(str(script)) == tuple(shlex.split(interpreter))


@pytest.mark.parametrize(
    ("arguments", "options", "target"),
    [
        ("app.py --x", "", "app.py --x"),
        ("-m app -I", "", "-m app -I"),
        ("-Im app", "-I", "-m app"),
        ("-mapp", "", "-m app"),
        ("-X dev -W ignore -B app.py", "-X dev -W ignore -B", "app.py"),
        ("-Xdev -Wignore app.py", "-Xdev -Wignore", "app.py"),
        ("-bX dev app.py", "-bX dev", "app.py"),
        ("-c pass -m", "", "-c pass -m"),
        ("--check-hash-based-pycs never app.py", "--check-hash-based-pycs never", "app.py"),
        ("- x", "", "- x"),
        ("-V", "-V", ""),
        ("", "", ""),
    ],
)
def test_options_of_python_and_what_it_runs(arguments, options, target):
    assert split_python_arguments(arguments.split()) == (tuple(options.split()), tuple(target.split()))


@pytest.mark.parametrize(
    ("python_arguments", "program", "skips"),
    [
        ("-m shop.web --port 1", "shop.web", ""),
        ("-m shop.__main__", "shop", ""),
        ("/srv/shop.py", "shop", ""),
        ("-c pass", "python", ""),
        ("", "python", ""),
        ("-I shop.py", "shop", "-I"),
        ("-sE -S shop.py", "shop", "-E -S"),
        ("-W Ignore::I -X Snail shop.py", "shop", ""),
        ("shop.py -I", "shop", ""),
    ],
)
def test_the_name_of_the_service_and_what_skips_us(python_arguments, program, skips):
    arguments = tuple(python_arguments.split())
    command = Command(("python", *arguments), "/bin/python", "/bin/python", arguments)
    assert (command.program, command.skips_sitecustomize) == (program, skips)


def test_a_script_is_found_with_the_python_it_names(tmp_path):
    script = executable(tmp_path / "bin" / "serve", f"#!{sys.executable} -E\n")
    command = look_up(["serve", "app:app"], {"PATH": str(script.parent)}, OWN_SCRIPTS)
    assert (command.path, command.python, command.program) == (str(script), sys.executable, "serve")
    assert command.python_arguments == ("-E", str(script), "app:app")
    assert command.skips_sitecustomize == "-E"


def test_of_other_programs_nothing_is_known(tmp_path):
    executable(tmp_path / "serve", "#!/bin/sh\nexec python -I app.py\n")
    command = look_up(["serve"], {"PATH": str(tmp_path)}, OWN_SCRIPTS)
    assert (command.python, command.skips_sitecustomize, command.program) == (None, "", "serve")


def refusal(arguments: list[str], path: Path) -> tuple[int, str]:
    with pytest.raises(CommandError) as refused:
        look_up(arguments, {"PATH": str(path)}, OWN_SCRIPTS)
    return refused.value.exit_code, str(refused.value)


def test_what_cannot_be_started_is_told_with_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_program(tmp_path / "app.py", "")
    write_program(tmp_path / "package" / "__main__.py", "")
    executable(tmp_path / "stale", "#!/gone/bin/python\n")

    code, text = refusal(["app.py", "--name", "a b"], tmp_path)
    assert code == USAGE
    assert text.endswith("aiocop-run python app.py --name 'a b'")
    code, text = refusal(["./package"], tmp_path)
    assert code == USAGE
    assert text.endswith("aiocop-run python ./package")
    code, text = refusal(["uvicorn", "app:app"], tmp_path)
    assert code == NOT_FOUND
    assert text.endswith(f"aiocop-run {OWN_SCRIPTS}/uvicorn app:app")
    code, text = refusal(["no-such-thing"], tmp_path)
    assert (code, text.split(".")[0]) == (NOT_FOUND, "no-such-thing: command not found")
    code, text = refusal(["./no/such"], tmp_path)
    assert (code, text) == (NOT_FOUND, "./no/such: command not found. There is no such file.")
    code, text = refusal(["stale"], tmp_path)
    assert code == NOT_FOUND
    assert "/gone/bin/python, which is not there" in text
