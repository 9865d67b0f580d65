"""The distribution as users get it: built from a clean copy, installed into empty environments, and used."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from tests.support.pythons import ROOT, VERSIONS, Environment, installed_pythons, python_or_skip
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]

PACKAGES = ("aiocop", "aiocop_collector", "aiocop_pytest", "aiocop_wire")

SERVICE = """
import asyncio, sys, time
import aiocop

async def main():
    time.sleep(0.05)
    await asyncio.sleep(0)
    time.sleep(0.05)

agent = aiocop.start(service="wheel", collector=sys.argv[1])
asyncio.run(main())
flushed = aiocop.flush(timeout=float(sys.argv[2]))
recorded = aiocop.statistics().recorded
stopped = aiocop.stop(timeout=0.1)
assert time.sleep.__module__ == "time" and type(time.sleep).__name__ == "builtin_function_or_method"
print(recorded, flushed)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it, out of a copy of what git knows or would add."""
    folder = tmp_path_factory.mktemp("wheel")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():  # not what was removed and is not committed yet
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_holds_four_typed_packages_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata_name,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(metadata_name).decode())
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert metadata["Name"] == "aiocop-telemetry"
    needed = [text for text in metadata.get_all("Requires-Dist") if "extra ==" not in text]
    assert [re.match(r"[\w.-]+", text).group() for text in needed] == ["msgpack"]
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_wheel_has_every_file_of_the_packages(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = wheel.parents[1] / "source"
    expected = {
        str(path.relative_to(top))
        for top in (source / "agent", source / "shared", source / "collector")
        for path in top.rglob("*")
        if path.is_file()
    }
    assert packed == expected


def test_the_sdist_has_the_tests_and_the_examples(built: Path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/conftest.py", "examples/shop/main.py"} <= names


@pytest.mark.parametrize("version", VERSIONS)
def test_the_base_install_is_the_agent_with_msgpack(wheel: Path, tmp_path: Path, version: str):
    environment = Environment.make(python_or_skip(version), tmp_path / "venv")
    environment.install(str(wheel))
    assert set(environment.distributions()) == {"aiocop-telemetry", "msgpack"}

    (tmp_path / "service.py").write_text(SERVICE)
    nobody = f"unix://{tmp_path}/nobody.sock"
    done = environment.run("-W", "error", tmp_path / "service.py", nobody, "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 False\n"
    assert "Traceback" not in done.stderr

    asked = subprocess.run([environment.command("aiocop-collector"), "--help"], capture_output=True, text=True)
    assert asked.returncode == 2
    assert asked.stdout == ""
    assert re.fullmatch(r"aiocop-collector .*'aiocop-telemetry\[collector\]'.*\n", asked.stderr)


def test_the_collector_extra_brings_the_service(wheel: Path, tmp_path: Path):
    # On the oldest Python: the one whose dependencies differ most from those that the other tests run with.
    oldest = min(installed_pythons(), key=lambda version: tuple(map(int, version.split("."))))
    environment = Environment.make(installed_pythons()[oldest], tmp_path / "venv")
    environment.install(f"{wheel}[collector]")
    command = environment.command("aiocop-collector")
    said = subprocess.run([command, "--version"], check=True, capture_output=True, text=True)
    assert re.fullmatch(r"aiocop-collector \d+\.\d+\.\d+\S*\n", said.stdout)

    socket = f"unix://{tmp_path}/collector.sock"
    log = tmp_path / "collector.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [command, "serve", "--listen", socket, "--http", "127.0.0.1:0", "--database", f"sqlite:///{tmp_path}/db"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if not name.startswith("AIOCOP_")},
        ) as collector,
    ):
        try:
            url = wait_until(lambda: re.search(r"listening on (http://\S+)", log.read_text()), "readiness").group(1)
            (tmp_path / "service.py").write_text(SERVICE)
            done = environment.run("-W", "error", tmp_path / "service.py", socket, "30")
            assert done.stdout == "2 True\n", done.stderr
            with urllib.request.urlopen(f"{url}/hotspots?service=wheel", timeout=30) as answer:
                (hotspot,) = json.load(answer)["hotspots"]
        finally:
            collector.send_signal(signal.SIGTERM)
        assert collector.wait(60) == 0, log.read_text()
    assert hotspot["count"] == 2
    assert hotspot["call_site"].startswith("service.py:")
    assert hotspot["call_site"].endswith(":main")
    assert [operation["name"] for operation in hotspot["operations"]] == ["time.sleep"]
