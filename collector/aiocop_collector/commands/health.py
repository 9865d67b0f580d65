"""Asking a running collector whether it is ready, from outside: `aiocop-collector health`."""

import time
from typing import Annotated, Final

import httpx
import typer

from aiocop_collector.commands.client import CollectorUnreachableError
from aiocop_collector.commands.running import run
from aiocop_wire import DEFAULT_HTTP_PORT

_TIMEOUT_S: Final = 4.0
_PAUSE_S: Final = 0.2


def health(
    url: Annotated[
        str, typer.Option(metavar="URL", help="The collector's HTTP address.")
    ] = f"http://127.0.0.1:{DEFAULT_HTTP_PORT}",
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="Keep asking for so long until it is ready.")] = 0.0,
) -> None:
    """Ask a running collector whether it is ready: exit code 0, or 3 with the reason on stderr.

    For a container's health check: `aiocop-collector health`. In a script: `aiocop-collector health --wait 30`.
    """

    def wait_and_tell() -> int:
        wait_until_ready(url, wait_s=wait)
        typer.echo("ready")
        return 0

    raise typer.Exit(run(wait_and_tell))


def wait_until_ready(url: str, *, wait_s: float = 0.0) -> None:
    """Return once `/readyz` says so. Raises CollectorUnreachableError after `wait_s` without that."""
    deadline_s = time.monotonic() + wait_s
    while (reason := _ask(url)) is not None:
        if time.monotonic() >= deadline_s:
            raise CollectorUnreachableError(f"{url} is not ready: {reason}")
        time.sleep(_PAUSE_S)


def _ask(url: str) -> str | None:
    try:
        answer = httpx.get(f"{url.rstrip('/')}/readyz", timeout=_TIMEOUT_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    if answer.status_code == httpx.codes.OK:
        return None
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return f"it answered {answer.status_code}; is this an aiocop collector?"
    readiness = answer.json()
    errors = [readiness[part]["error"] for part in ("database", "writer") if readiness[part]["error"]]
    return "; ".join(errors) or "it is starting or stopping"
