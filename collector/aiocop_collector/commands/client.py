"""Asking a collector over HTTP, for the command line and for scripts."""

import ipaddress
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Final

import httpx

from aiocop_collector.errors import CollectorError

DEFAULT_URL: Final = "http://127.0.0.1:8717"
_TIMEOUT_S: Final = 30.0
_MAX_PORT: Final = 65_535

Parameters = Sequence[tuple[str, str]]


class CollectorUnreachableError(CollectorError):
    """Nobody answered at the URL, or what answered is not a working collector."""

    exit_code: ClassVar[int] = 3


class RefusedQuestionError(CollectorError):
    """The collector answered that the question cannot be answered as it was asked; the text is its own."""

    exit_code: ClassVar[int] = 2


class Client:
    """Reads from one collector. Raises CollectorUnreachableError and RefusedQuestionError."""

    def __init__(self, url: str = DEFAULT_URL, *, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        address = _checked(self.url)
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        # A proxy from the environment cannot reach this machine's own loopback.
        self._http = httpx.Client(
            base_url=address, headers=headers, timeout=_TIMEOUT_S, trust_env=not _is_loopback(address)
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get_text(self, path: str, parameters: Parameters = ()) -> str:
        """The JSON text of an answer, as the collector wrote it."""
        try:
            response = self._http.get(path, params=httpx.QueryParams(list(parameters)))
        except httpx.HTTPError as error:
            raise CollectorUnreachableError(
                f"No collector answers at {self.url} ({str(error) or type(error).__name__}); "
                "start one with 'aiocop-collector serve', or name another with --url."
            ) from error
        if response.status_code == httpx.codes.OK:
            return response.text
        detail = _detail(response)
        if response.is_client_error and detail is not None:
            raise RefusedQuestionError(detail)
        raise CollectorUnreachableError(
            f"What answers at {self.url} is not a working collector: {path} gave status {response.status_code}"
            f"{f' ({detail})' if detail else ''}."
        )

    def get(self, path: str, parameters: Parameters = ()) -> dict[str, Any]:
        """An answer, decoded."""
        return self.decode(self.get_text(path, parameters))

    def decode(self, text: str) -> dict[str, Any]:
        """The JSON object in an answer."""
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise CollectorUnreachableError(f"What answers at {self.url} is not a collector: no JSON came.") from error
        if not isinstance(answer, dict):
            raise CollectorUnreachableError(f"What answers at {self.url} is not a collector.")
        return answer


def _checked(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RefusedQuestionError(f"--url: {url!r:.200} is not a URL ({error})") from error
    if address.scheme not in ("http", "https") or not address.host or (address.port or 0) > _MAX_PORT:
        raise RefusedQuestionError(f"--url: {url!r:.200} is not the URL of a collector; an example is {DEFAULT_URL}")
    return address


def _is_loopback(address: httpx.URL) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def _detail(response: httpx.Response) -> str | None:
    """The sentence of a problem document (RFC 9457)."""
    try:
        document = response.json()
    except ValueError:
        return None
    detail = document.get("detail") if isinstance(document, dict) else None
    return detail if isinstance(detail, str) else None
