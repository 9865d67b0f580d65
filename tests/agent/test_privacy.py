"""What of arguments and context leaves the process: nothing, unless it is allowed by name. With a real collector."""

import asyncio
import json
import logging
import os
import pathlib
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.support.collector import CollectorProcess, run_collector
from tests.support.detecting import LOOPS
from tests.support.waiting import wait_until

import aiocop
from aiocop.disclosure import copy_value

SECRET = "hunter2-correct-horse"


class Vault:
    """An object that says its secret to whoever prints it."""

    def __repr__(self) -> str:
        return SECRET

    __str__ = __repr__


class LoudText(str):
    __slots__ = ()


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with run_collector(tmp_path_factory.mktemp("collector"), udp=True) as running:
        yield running


@contextmanager
def shipping(collector: CollectorProcess, service: str, *, udp: bool = False, **options: Any) -> Iterator[None]:
    address = "udp://{}:{}".format(*collector.udp) if udp else f"unix://{collector.socket_path}"
    aiocop.start(service=service, collector=address, threshold_ms=20, **options)
    try:
        yield
        assert aiocop.flush(60)
    finally:
        aiocop.stop(0)
        aiocop.clear_context_providers()


def ask(collector: CollectorProcess, path: str, **parameters: str) -> dict[str, Any]:
    """On a connection of its own, which does not outlive the test as the collector does."""
    with httpx.Client(base_url=collector.url, trust_env=False) as http:
        return http.get(path, params=parameters).raise_for_status().json()


def shown(collector: CollectorProcess, service: str, operation: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The context of the service's slow event at `operation`, and the arguments of it."""

    def look() -> tuple[dict[str, Any], dict[str, Any]] | None:
        for row in ask(collector, "/hotspots", service=service, operation=operation)["hotspots"]:
            detail = ask(collector, f"/hotspots/{row['id']}")
            (site,) = [site["id"] for site in detail["sites"] if site["operation"] == operation]
            for event in detail["slow_events"]:
                for part in event["sites"]:
                    if part["site_id"] == site:
                        return event["context"], part["arguments"]
        return None

    return wait_until(look, f"a slow event of {service} at {operation}")


def run(loop: str, slice_of: Callable[[], object]) -> None:
    async def task() -> None:
        slice_of()

    async def main() -> None:
        await asyncio.create_task(task())

    LOOPS[loop](main())


def opens_slowly() -> None:
    for name in (os.devnull, f"/dev/{SECRET}"):
        try:
            with open(name):
                pass
        except OSError:
            continue
    time.sleep(0.06)


def test_nothing_leaves_unless_it_is_allowed(collector):
    aiocop.register_context_provider(lambda: {"route": SECRET})
    with shipping(collector, "silent"):
        run("asyncio", opens_slowly)
    assert shown(collector, "silent", "open") == ({}, {})
    assert SECRET not in json.dumps(ask(collector, "/hotspots", service="silent"))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("udp", [False, True])
def test_what_is_allowed_by_name_is_in_the_slow_events_of_the_hotspot(collector, loop, udp):
    service = f"allowed-{loop}-{udp}"
    aiocop.register_context_provider(lambda: {"route": "/orders/{id}", "user": SECRET}, before_slices=False)
    aiocop.register_context_provider(lambda: {"tries": 3, "vault": Vault(), "when": LoudText("now")})
    with shipping(
        collector, service, udp=udp, ship_context=["route", "tries", "vault", "when"], ship_arguments=("time.sleep",)
    ):
        run(loop, lambda: time.sleep(0.06))
    context, arguments = shown(collector, service, "time.sleep")
    assert context == {"route": "/orders/{id}", "tries": 3, "vault": "Vault", "when": "LoudText"}
    assert arguments == {"0": 0.06}


@pytest.mark.parametrize("loop", LOOPS)
def test_the_arguments_are_those_of_the_costliest_call_of_each_site(collector, loop):
    def naps_and_starts() -> None:
        for duration_s in (0.001, 0.05, 0.002):
            time.sleep(duration_s)
        child = subprocess.Popen(["true", "-x"], stdin=subprocess.DEVNULL, env={"TOKEN": SECRET})
        child.wait()

    operations = ("time.sleep", "subprocess.Popen")
    service = f"costliest-{loop}"
    with shipping(collector, service, ship_arguments=operations):
        run(loop, naps_and_starts)
    assert shown(collector, service, "time.sleep") == ({}, {"0": 0.05})
    _, arguments = shown(collector, service, "subprocess.Popen")
    assert arguments == {"0": "Popen", "1": "['true', '-x']", "stdin": -3, "env": "dict"}


def test_everything_can_be_allowed_and_the_environment_says_so_too(collector, monkeypatch, tmp_path):
    aiocop.register_context_provider(lambda: {"route": "/", "user": "7"})
    monkeypatch.setenv("AIOCOP_SHIP_CONTEXT", "*")
    monkeypatch.setenv("AIOCOP_SHIP_ARGUMENTS", "*")
    with shipping(collector, "everything"):
        run("asyncio", opens_slowly)
    context, arguments = shown(collector, "everything", "open")
    assert context == {"route": "/", "user": "7"}
    assert arguments in ({"0": os.devnull}, {"0": f"/dev/{SECRET}"})
    with shipping(collector, "nothing", ship_context=(), ship_arguments=()):
        run("asyncio", opens_slowly)
    assert shown(collector, "nothing", "open") == ({}, {})


def test_a_hook_decides_what_is_shipped_and_what_it_fails_on_stays(collector, caplog):
    aiocop.register_context_provider(lambda: {"user": SECRET, "bad": SECRET, "gone": SECRET, "vault": 1, "long": "x"})
    asked: list[tuple[str, str, object]] = []
    threads: set[str] = set()

    def scrub(source: str, name: str, value: object) -> object:
        asked.append((source, name, value))
        threads.add(threading.current_thread().name)
        if name == "bad":
            raise ValueError("no")
        return {"gone": None, "vault": Vault(), "long": 2000 * "x"}.get(name, str(value).replace(SECRET, "***"))

    with shipping(collector, "scrubbed", ship_context=("*",), ship_arguments=("open",), scrub=scrub):
        run("asyncio", opens_slowly)
        run("asyncio", opens_slowly)
        assert aiocop.flush(60)
        assert aiocop.statistics().scrub_failures == 2
    context, arguments = shown(collector, "scrubbed", "open")
    assert context == {"user": "***", "vault": "Vault", "long": 1024 * "x"}
    assert arguments in ({"0": os.devnull}, {"0": "/dev/***"})
    assert ("context", "user", SECRET) in asked
    assert {source for source, name, _ in asked if name == "0"} == {"open"}
    assert threads == {"aiocop-shipper"}
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "scrub failed on bad of context" in warning.getMessage()


def test_an_event_takes_along_only_so_much(collector):
    aiocop.register_context_provider(lambda: {f"key{number}": 5000 * "ä" for number in range(100)})
    seen: list[object] = []

    def scrub(_source: str, _name: str, value: object) -> object:
        seen.append(value)
        return value

    with shipping(collector, "huge", ship_context=("*",), scrub=scrub):
        run("asyncio", opens_slowly)
    context, _ = shown(collector, "huge", "open")
    assert max(len(value) for value in context.values()) == 1024
    assert sum(len(key) + len(value) for key, value in context.items()) <= 4096
    assert max(len(value) for value in seen) == 4096
    assert sum(len(value) for value in seen) <= 8192


def test_what_was_passed_is_not_held_once_the_slice_has_ended(collector):
    class Somewhere(os.PathLike):
        def __fspath__(self) -> str:
            return os.devnull

    references = []

    def opens() -> None:
        path = Somewhere()
        references.append(weakref.ref(path))
        with open(path):
            pass
        time.sleep(0.05)

    with shipping(collector, "held", ship_arguments=("open",)):
        run("asyncio", opens)
        assert references[0]() is None
    assert shown(collector, "held", "open")[1] == {"0": "Somewhere"}


def test_an_operation_that_does_not_exist_is_one_warning(collector, caplog):
    with shipping(collector, "typo", ship_arguments=("opn", "open")):
        pass
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage() == "aiocop: ship_arguments names no operation of the catalogue: opn"


@pytest.mark.parametrize(
    ("value", "copied"),
    [
        ("text", "text"),
        (7, 7),
        (0.5, 0.5),
        (True, True),
        (None, None),
        (b"bytes", "bytes"),
        (1 << 80, hex(1 << 80)),
        (float("nan"), "nan"),
        (Vault(), "Vault"),
        (LoudText(SECRET), "LoudText"),
        (pathlib.PurePosixPath("/etc/hosts"), "/etc/hosts"),
        (["ls", 1, None, Vault(), LoudText("x"), ["x"]], "['ls', 1, None, Vault, LoudText, list]"),
        (("127.0.0.1", 80), "('127.0.0.1', 80)"),
        ({"password": SECRET}, "dict"),
        ([0] * 51, f"[{'0, ' * 50}…]"),
    ],
)
def test_what_does_not_encode_is_the_name_of_its_type(value, copied):
    assert copy_value(value, 1000) == copied


def test_copies_are_cut():
    assert copy_value(100 * "x", 10) == 10 * "x"
    assert copy_value(["x" * 100], 10) == "['xxxxxxxx"
