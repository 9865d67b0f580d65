"""The outer doors of the HTTP side, as ASGI middleware: whom it answers, what it takes in, what it tells browsers.

BearerTokens    with tokens: every request but the health checks needs one, and one that changes something an admin's
LocalHosts      without tokens, on loopback only: the Host header must name this machine. A page of the internet can
                point its own name at 127.0.0.1 (DNS rebinding), but not make a browser send another Host header
Limits          size of the request and of its body, time to send the body, time to answer
SafeHeaders     what keeps a browser from guessing, framing and leaking
"""

import asyncio
import json
import re
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiocop_collector.tokens import Token, find

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Asked by probes, which have no token; they tell nothing about services."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

MAX_BODY_BYTES: Final = 64 << 10
MAX_TARGET_BYTES: Final = 48 << 10
"""Path and query. The HTTP parser refuses 64 KiB itself, but not with a problem document."""
BODY_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0

_PORT: Final = re.compile(r":[0-9]*$")
_SAFE_HEADERS: Final = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


class BearerTokens:
    """Compares in constant time, whatever is sent. The token's name is kept for the history of decisions."""

    def __init__(self, app: ASGIApp, tokens: Collection[Token]) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        token = find(self._tokens, given.strip())
        if token is None or scheme.lower() != "bearer":
            detail = "send a token of this collector in the header Authorization: Bearer TOKEN"
            challenge = [(b"www-authenticate", b'Bearer realm="aiocop-collector"')]
            await _refuse(send, HTTPStatus.UNAUTHORIZED, detail, challenge)
        elif scope["method"] not in SAFE_METHODS and token.role != "admin":
            detail = f"token {token.name} may read only; {scope['method']} needs one with the role admin"
            await _refuse(send, HTTPStatus.FORBIDDEN, detail)
        else:
            scope.setdefault("state", {})["token_name"] = token.name
            await self._app(scope, receive, send)


class LocalHosts:
    """Answers only who asked for this machine by one of its own names, on whatever port."""

    def __init__(self, app: ASGIApp, bound: Iterable[str] = ()) -> None:
        self._app = app
        self._names = LOCAL_HOSTS | {f"[{host}]" if ":" in host else host.lower() for host in bound}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(names) != 1 or _PORT.sub("", names[0]).lower() not in self._names:
                detail = (
                    f"this collector needs no token, so it answers to the names of this machine only "
                    f"({', '.join(sorted(self._names))}), and the Host header is another; configure a token to be "
                    "reached by other names"
                )
                await _refuse(send, HTTPStatus.MISDIRECTED_REQUEST, detail)
                return
        await self._app(scope, receive, send)


class Limits:
    """What one request may cost. Raises nothing: what goes too far is answered with a problem document."""

    def __init__(
        self, app: ASGIApp, *, body_timeout_s: float = BODY_TIMEOUT_S, answer_timeout_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        self._app = app
        self._body_timeout_s = body_timeout_s
        self._answer_timeout_s = answer_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
            detail = f"path and query are longer than {MAX_TARGET_BYTES} bytes"
            await _refuse(send, HTTPStatus.REQUEST_URI_TOO_LONG, detail)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > MAX_BODY_BYTES:
            await _refuse(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE, [(b"connection", b"close")])
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False
        received_bytes = 0
        complete = False
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self._body_timeout_s

        async def limited_receive() -> Message:
            nonlocal received_bytes, complete
            if complete:
                return await receive()  # waits for the client to go away
            try:
                message = await asyncio.wait_for(receive(), max(0.0, give_up_s - loop.time()))
            except asyncio.TimeoutError as error:
                detail = f"the body did not arrive within {self._body_timeout_s:g} s"
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, detail, {"Connection": "close"}) from error
            received_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received_bytes > MAX_BODY_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE, {"Connection": "close"})
            return message

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await asyncio.wait_for(self._app(scope, limited_receive, noting_send), self._answer_timeout_s)
        except asyncio.TimeoutError:
            if started:
                raise
            detail = f"there was no answer within {self._answer_timeout_s:g} s; ask for a shorter window or fewer rows"
            await _refuse(send, HTTPStatus.SERVICE_UNAVAILABLE, detail)


class SafeHeaders:
    """Adds what a response has not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def adding_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE_HEADERS:
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, adding_send)


_TOO_LARGE: Final = f"the body is larger than {MAX_BODY_BYTES} bytes"


async def _refuse(send: Send, status: HTTPStatus, detail: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """A problem document (RFC 9457) without the application."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "errors": [],
    }
    body = json.dumps(document).encode()
    start = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status.value, "headers": start})
    await send({"type": "http.response.body", "body": body})
