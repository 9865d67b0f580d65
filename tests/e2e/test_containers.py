"""deploy/ for real: both images built, the compose file started, hotspots read from outside.

Not part of a plain run: `make test-containers` finds or starts a container engine and selects these tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.pythons import ROOT
from tests.support.waiting import wait_until

from demo.verdict import EXPECTED

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

PROJECT = f"aiocop-test-{os.getpid()}"
DOCKER = os.environ.get("DOCKER", "docker")
# Where the engine's own bridge is off, as on a build machine, only the host's network reaches a package registry.
BUILD_OVERRIDE = "\n".join(
    ["services:", *(f"  {name}: {{build: {{network: host}}}}" for name in ("token", "collector", "shop", "partners"))]
)


def docker(*arguments: str) -> str:
    """What docker says on stdout; its stderr is the failure's text."""
    done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Compose:
    """The compose file under a project name of our own, on free ports."""

    def __init__(self, override: Path) -> None:
        program = ["docker-compose"] if shutil.which("docker-compose") else [DOCKER, "compose"]
        files = [ROOT / "deploy" / "compose.yaml", override]
        self._command = [*program, "-p", PROJECT, *(part for file in files for part in ("-f", str(file)))]

    def __call__(self, *arguments: str) -> str:
        environment = {**os.environ, "AIOCOP_HTTP_PORT": "0", "SHOP_PORT": "0"}
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def container(self, service: str) -> str:
        return self("ps", "-q", service).strip()

    def inspect(self, service: str) -> dict:
        return json.loads(docker("inspect", self.container(service)))[0]

    def wait_until_healthy(self) -> None:
        """Until the engine's own check of the collector says so."""

        def is_healthy() -> bool:
            return self.inspect("collector")["State"]["Health"]["Status"] == "healthy"

        wait_until(is_healthy, "the collector's health check", deadline_s=120)

    def url(self, service: str, port: int) -> str:
        return f"http://{self('port', service, str(port)).strip()}"


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The sidecar, built and started; gone afterwards, but for the images."""
    override = tmp_path_factory.mktemp("compose") / "override.yaml"
    override.write_text(BUILD_OVERRIDE)
    sidecar = Compose(override)
    try:
        sidecar("build")
        sidecar("up", "-d")
        sidecar.wait_until_healthy()
        yield sidecar
    finally:
        sidecar("down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="module")
def token(compose: Compose) -> str:
    """As a person gets it: from the log of the service that made it."""
    logs = wait_until(lambda: re.search(r"The token of the API: (\S+)", compose("logs", "token")), "the token")
    return logs.group(1)


def test_hotspots_are_read_from_outside(compose: Compose, token: str, tmp_path: Path):
    (tmp_path / "token").write_text(token)
    services = ("--shop-url", compose.url("shop", 8000), "--collector-url", compose.url("collector", 8717))
    options = ("--once", "--seconds", "5", "--patience", "60", "--token-file", str(tmp_path / "token"))
    asked = subprocess.run(
        [sys.executable, "-m", "demo", *options, *services],
        cwd=ROOT / "examples",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr + compose("logs", "--tail", "40")
    for call_site in EXPECTED:
        path, _, function = call_site.partition(":")
        assert re.search(rf"{re.escape(path)}:\d+:{re.escape(function)}\b", asked.stdout), call_site


def test_without_the_token_nothing_is_told(compose: Compose):
    with (
        pytest.raises(urllib.error.HTTPError) as caught,
        urllib.request.urlopen(compose.url("collector", 8717) + "/hotspots", timeout=30),
    ):
        pass
    with caught.value as refused:
        assert refused.code == 401


def test_service_and_collector_share_the_socket_and_nothing_else(compose: Compose):
    collector, shop = compose.inspect("collector"), compose.inspect("shop")
    volumes = [{mount["Name"] for mount in one["Mounts"] if mount["Type"] == "volume"} for one in (collector, shop)]
    assert volumes[0] & volumes[1] == {f"{PROJECT}_socket"}
    networks = [set(one["NetworkSettings"]["Networks"]) for one in (collector, shop)]
    assert not networks[0] & networks[1]


@pytest.mark.parametrize("service", ["collector", "shop", "partners"])
def test_containers_have_no_rights_they_do_not_need(compose: Compose, service: str):
    state = compose.inspect(service)
    assert state["Config"]["User"] == "8717:8717"
    assert state["HostConfig"]["ReadonlyRootfs"] is True
    assert state["HostConfig"]["CapDrop"] == ["ALL"]
    assert docker("exec", compose.container(service), "id", "-u") == "8717\n"


def test_the_collector_ends_at_once_and_well_when_told_to(compose: Compose):
    container = compose.container("collector")
    docker("stop", "--time", "60", container)
    try:
        state = json.loads(docker("inspect", container))[0]["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    finally:
        docker("start", container)
        compose.wait_until_healthy()
