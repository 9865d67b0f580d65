"""Answers that have not changed are not sent again: `ETag` and `If-None-Match` (RFC 9110, section 13).

An answer may be kept by who asked, and only by them, but has to be asked for again each time (`private, no-cache`):
what a tag spares is the transfer, which is most of the cost of a page that asks every second. Answers that say
`no-store` (errors, decisions, health, metrics) are left alone.
"""

import hashlib
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CACHEABLE: Final = "private, no-cache"

_TAG_CHARACTERS: Final = 32  # 128 bits of SHA-256: answers are no secrets from who got them


class EntityTags:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def tagging_send(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_cacheable(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body", False):
                return
            headers = MutableHeaders(scope=start)
            headers["ETag"] = tag = f'"{hashlib.sha256(body).hexdigest()[:_TAG_CHARACTERS]}"'
            headers["Cache-Control"] = CACHEABLE
            headers.add_vary_header("Authorization")
            if _matches(Headers(scope=scope).get("if-none-match", ""), tag):
                start["status"] = HTTPStatus.NOT_MODIFIED.value
                del headers["Content-Length"], headers["Content-Type"]
                body.clear()
            await send(start)
            await send({"type": "http.response.body", "body": bytes(body)})

        await self._app(scope, receive, tagging_send)


def _is_cacheable(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    return (
        start["status"] == HTTPStatus.OK
        and headers.get("content-type", "").startswith("application/json")
        and headers.get("cache-control", "") != "no-store"
    )


def _matches(condition: str, tag: str) -> bool:
    """Weak comparison, as If-None-Match wants it."""
    tags = [part.strip().removeprefix("W/") for part in condition.split(",")]
    return tag in tags or tags == ["*"]
