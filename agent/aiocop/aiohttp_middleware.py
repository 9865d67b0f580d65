"""Which request froze the loop: `route` and `method` in the context of events, under aiohttp's server.

    app = web.Application(middlewares=[AiocopMiddleware()])

Nothing of aiohttp is imported: the request is asked by the names it is documented to have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from aiocop.api import register_context_provider

_request: ContextVar[Any] = ContextVar("aiocop_aiohttp_request", default=None)


class AiocopMiddleware:
    """A new-style aiohttp middleware; put it first, so that the others' freezes are told apart too.

    aiohttp runs the handling of a request in a task of its own, whose context ends with it; see `aiocop.asgi` for why
    the contextvar is never reset.
    """

    __middleware_version__ = 1  # what @aiohttp.web.middleware sets

    def __init__(self) -> None:
        register_context_provider(request_context, before_slices=False)

    async def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        _request.set(request)
        return await handler(request)


def request_context() -> dict[str, str] | None:
    """`method` of the current request and `route`, the canonical path of the resource that it matched.

    Without `route` where none matched; None outside of requests. A context provider.
    """
    request = _request.get()
    if request is None:
        return None
    context = {"method": request.method}
    resource = request.match_info.route.resource
    if resource is not None:
        context["route"] = resource.canonical
    return context
