"""Asking a running collector whether it is ready, from outside: `aiocop-collector health`."""

import time
from typing import Final

import httpx

from aiocop_collector.commands.client import CollectorUnreachableError

_TIMEOUT_S: Final = 4.0
_PAUSE_S: Final = 0.2


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
