"""aiocop-run becomes the command, or says what is wrong before anything runs."""

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from tests.support.running import AIOCOP_RUN, SCRIPTS, clean_environment, path_with, run, write_program

from aiocop.config import OPTIONS
from aiocop.run.launcher import BOOTSTRAP_FOLDER
from aiocop_wire import __version__

TELLS = """
import json, os, sys
mine = {name: value for name, value in os.environ.items() if name.startswith("AIOCOP_")}
print(json.dumps({"pid": os.getpid(), "arguments": sys.argv[1:], "aiocop": mine, "path": os.environ.get("PYTHONPATH")}))
sys.exit(7)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write_program(tmp_path / "program.py", TELLS)


@pytest.fixture(scope="module")
def other_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the same Python without aiocop, with a script `serve`."""
    folder = tmp_path_factory.mktemp("other")
    venv.create(folder, symlinks=True)
    script = write_program(folder / "bin" / "serve", f"#!{folder}/bin/python\nprint('has run')\n")
    script.chmod(0o755)
    return folder


def test_the_command_replaces_us_with_its_arguments_and_exit_code(program):
    command = [AIOCOP_RUN, "--service", "shop", sys.executable, program, "--service", "theirs", "--", "-x", "--help"]
    process = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    told = json.loads(said)
    assert process.returncode == 7
    assert told["pid"] == process.pid
    assert told["arguments"] == ["--service", "theirs", "--", "-x", "--help"]
    assert told["aiocop"]["AIOCOP_SERVICE"] == "shop"


def test_options_win_over_the_environment_and_what_is_not_given_stays(program):
    given = ["--service=shop", "--collector=udp://127.0.0.1:25001", "--environment", "prod", "--release", "1.2"]
    given += ["--threshold-ms", "50", "--application", "shop,cart"]
    environment = clean_environment(AIOCOP_SERVICE="other", AIOCOP_TOKEN="kept", AIOCOP_THRESHOLD_MS="10")
    told = json.loads(run(AIOCOP_RUN, *given, "--", sys.executable, program, environment=environment).stdout)
    assert told["aiocop"] == {
        "AIOCOP_SERVICE": "shop",
        "AIOCOP_COLLECTOR": "udp://127.0.0.1:25001",
        "AIOCOP_ENVIRONMENT": "prod",
        "AIOCOP_RELEASE": "1.2",
        "AIOCOP_THRESHOLD_MS": "50",
        "AIOCOP_APPLICATION": "shop,cart",
        "AIOCOP_TOKEN": "kept",
    }


@pytest.mark.parametrize("before", [None, "", "/a:/b", ":/a"])
def test_pythonpath_is_prefixed_once(program, before):
    environment = clean_environment()
    # The project itself may be found by PYTHONPATH where the tests run from a copy.
    inherited = environment.pop("PYTHONPATH", None)
    if before is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [before, inherited]))
    elif inherited:
        environment["PYTHONPATH"] = inherited
    expected = os.pathsep.join([BOOTSTRAP_FOLDER, *filter(None, [environment.get("PYTHONPATH")])])
    twice = [AIOCOP_RUN, AIOCOP_RUN, sys.executable]
    assert json.loads(run(*twice, program, environment=environment).stdout)["path"] == expected


@pytest.mark.parametrize("off", ["0", "false"])
def test_switched_off_the_command_runs_as_if_we_were_not_there(program, other_environment, off):
    environment = clean_environment(AIOCOP_ENABLED=off)
    told = json.loads(run(AIOCOP_RUN, sys.executable, program, environment=environment).stdout)
    assert told["path"] == environment.get("PYTHONPATH")
    ran = run(AIOCOP_RUN, other_environment / "bin" / "serve", environment=environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "has run\n", "")


def test_signals_reach_the_command(tmp_path):
    program = write_program(
        tmp_path / "program.py",
        """
        import asyncio, signal, sys

        async def main():
            stop = asyncio.Event()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
            print("ready", flush=True)
            await stop.wait()
            sys.exit(5)

        asyncio.run(main())
        """,
    )
    process = subprocess.Popen(
        [AIOCOP_RUN, sys.executable, program],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 5


def test_another_environment_without_aiocop_is_refused(program, other_environment):
    """Both by its Python and by a script that names it; nothing of the command runs."""
    environment = clean_environment()
    environment.pop("PYTHONPATH", None)
    for command in ([other_environment / "bin" / "python", program], [other_environment / "bin" / "serve"]):
        refused = run(AIOCOP_RUN, *command, environment=environment)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert f"in {other_environment}" in refused.stderr
        assert (
            f"aiocop-run belongs to Python {sys.version_info[0]}.{sys.version_info[1]} in {sys.prefix}"
            in refused.stderr
        )
        assert f"{other_environment}/bin/python -m pip install aiocop-telemetry" in refused.stderr
        assert refused.stderr.startswith("aiocop-run: ")
    refused = run(AIOCOP_RUN, other_environment / "bin" / "python", "a b.py", environment=environment)
    assert f"aiocop-run {SCRIPTS}/python 'a b.py'" in refused.stderr


def test_another_environment_that_has_aiocop_will_do(program, other_environment):
    """Here by PYTHONPATH: what counts is whether its processes can import it."""
    folders = {Path(sys.modules[name].__file__).parent.parent for name in ("aiocop", "aiocop_wire", "msgpack")}
    environment = clean_environment(PYTHONPATH=path_with(*folders))
    ran = run(AIOCOP_RUN, other_environment / "bin" / "python", program, environment=environment)
    assert (ran.returncode, ran.stderr) == (7, "")
    info = run(AIOCOP_RUN, "--info", other_environment / "bin" / "python", program, environment=environment)
    assert (
        f"warning: the command runs on Python {sys.version_info[0]}.{sys.version_info[1]} in {other_environment}"
        in info.stdout
    )


@pytest.mark.parametrize("option", ["-I", "-E", "-S"])
def test_an_option_that_keeps_us_out_is_said_and_obeyed(tmp_path, option):
    program = write_program(tmp_path / "program.py", "import sys; print('bootstrap' in str(sys.path))")
    ran = run(AIOCOP_RUN, sys.executable, option, program, environment=clean_environment())
    assert ran.returncode == 0
    assert ran.stdout == ("True\n" if option == "-S" else "False\n")
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"aiocop-run: warning: with {option} ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "what is to be run? Give a COMMAND"),
        (["--"], 2, "what is to be run? Give a COMMAND"),
        (["--threshold-ms", "30ms", "true"], 2, "--threshold-ms='30ms': must be a number of milliseconds above 0"),
        (["--collector", "tcp://x", "true"], 2, "an address starts with unix:// or udp://"),
        (["--application", "a b", "true"], 2, "'a b' is not the name of a package"),
        (["--servise", "x", "true"], 2, "unrecognized arguments: --servise"),
        (["--json", "true"], 2, "--json goes with --info"),
        (["no-such-command"], 127, "no-such-command: command not found"),
    ],
)
def test_mistakes_on_the_command_line(arguments, code, said):
    ended = run(AIOCOP_RUN, *arguments, environment=clean_environment())
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_the_kernel_refuses_is_one_sentence(tmp_path):
    without_first_line = write_program(tmp_path / "app", "print('works')\n")
    without_first_line.chmod(0o755)
    ended = run(AIOCOP_RUN, without_first_line, environment=clean_environment())
    assert ended.returncode == 2
    assert ended.stderr.endswith(f"Run it with Python: aiocop-run python {without_first_line}\n")


def test_help_teaches():
    helped = run(AIOCOP_RUN, "--help", environment=clean_environment(COLUMNS="200"))
    assert helped.returncode == 0
    for option in OPTIONS:
        if option.secret:
            assert f"--{option.name.replace('_', '-')} " not in helped.stdout
        elif option.name != "enabled":
            assert f"--{option.name.replace('_', '-')} " in helped.stdout
            assert option.effect in " ".join(helped.stdout.split())
    assert "aiocop-run uvicorn app:app --workers 4" in helped.stdout
    assert run(AIOCOP_RUN, "--version", environment=clean_environment()).stdout == f"aiocop-run {__version__}\n"


def test_it_is_a_module_too(program):
    assert (
        run(sys.executable, "-m", "aiocop.run", sys.executable, program, environment=clean_environment()).returncode
        == 7
    )
