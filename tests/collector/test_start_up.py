"""What a start imports: no more than what it was asked for needs, because importing is what takes the time."""

import gc
import re
import subprocess
import sys

import pytest
from tests.support.collector import DEADLINE_S, collector_environment, run_collector
from typer.testing import CliRunner

from aiocop_collector.commands.cli import app

TOLD = {"PYTHONVERBOSE": "1"}
"""Python says on stderr what it imports."""


def imported(stderr: str) -> set[str]:
    """The modules it has imported, those that are built in left out."""
    return set(re.findall(r"^import '([\w.]+)' #", stderr, re.MULTILINE))


def test_serving_a_database_that_is_up_to_date_loads_nothing_that_is_for_others(tmp_path):
    with run_collector(tmp_path, **TOLD) as collector:
        assert {"alembic", "aiocop_collector.store.migrations.upgrading"} <= imported(collector.log.read_text())
        assert collector.stop() == 0
        collector.log.unlink()
        collector.start()
        found = imported(collector.log.read_text())
    assert {"aiocop_collector.commands.serve", "fastapi", "sqlalchemy", "uvicorn"} <= found
    assert not found & {
        *("rich", "pygments"),
        *("alembic", "mako", "aiocop_collector.store.migrations.upgrading"),
        *("httpx", "stamina", "standardwebhooks", "aiocop_collector.webhooks.courier"),
        *("opentelemetry.sdk", "aiocop_collector.otlp", "asyncpg", "sqlalchemy.dialects.postgresql"),
        *(f"aiocop_collector.commands.{name}" for name in ("client", "db", "health", "hotspots", "token")),
    }


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--version",), 0),
        (("token", "ci"), 0),
        (("health", "--url", "http://127.0.0.1:1"), 3),
        (("hotspots", "--url", "http://127.0.0.1:1"), 3),
    ],
)
def test_commands_that_serve_nothing_load_no_server_and_no_database(arguments, code):
    ended = subprocess.run(
        [sys.executable, "-m", "aiocop_collector", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=collector_environment() | TOLD,
    )
    assert ended.returncode == code, ended.stderr
    found = imported(ended.stderr)
    assert "aiocop_collector.commands.cli" in found
    assert not found & {"alembic", "fastapi", "prometheus_client", "sqlalchemy", "starlette", "uvicorn", "uvloop"}


@pytest.mark.parametrize("collects", [True, False])
def test_a_command_collects_garbage_whatever_was_done_to_load_it(collects):
    frozen = gc.get_freeze_count()
    try:
        if not collects:
            gc.disable()
        assert CliRunner().invoke(app, ["token", "ci"]).exit_code == 0
        assert gc.isenabled()
        assert (gc.get_freeze_count() > frozen) is not collects
    finally:
        gc.unfreeze()
        gc.enable()
