"""Which request froze the loop: `route` and `method` in the context of events, under any ASGI framework.

    app = AiocopMiddleware(app)              # around the whole application, or
    app.add_middleware(AiocopMiddleware)     # Starlette, FastAPI

A request costs one assignment of a contextvar. The scope is looked at only when something has blocked: frameworks
leave the route in it after the middleware has run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

from aiocop.api import register_context_provider

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_SCOPE_TYPES: Final = ("http", "websocket")
_WEBSOCKET: Final = "WEBSOCKET"

_scope: ContextVar[Scope | None] = ContextVar("aiocop_asgi_scope", default=None)


class AiocopMiddleware:
    """Pure ASGI middleware; passes everything through untouched.

    Every server runs a request in a task of its own, whose context ends with it. The contextvar is therefore never
    reset: a freeze in the slice in which the request ends must still find it. (An application called from within
    another task, as by httpx.ASGITransport, leaves its last request in that task's context.)
    """

    def __init__(self, app: Application) -> None:
        self._app = app
        register_context_provider(request_context, before_slices=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in _SCOPE_TYPES:
            _scope.set(scope)
        await self._app(scope, receive, send)


def request_context() -> dict[str, str] | None:
    """`method` of the current request (`WEBSOCKET` for a websocket) and `route`, the template that it matched.

    A context provider. Without `route` where none matched, or the framework does not tell; None outside of requests.
    """
    scope = _scope.get()
    if scope is None:
        return None
    context = {"method": str(scope.get("method", _WEBSOCKET))}
    route = matched_route(scope)
    if route:
        context["route"] = route
    return context


def matched_route(scope: Mapping[str, Any]) -> str | None:
    """The template of the route in a scope, like `/orders/{order_id}`, with the prefixes it is mounted under.

    FastAPI leaves the route in `scope["route"]`, and so do newer Starlettes (1.10 does); a text there is taken as it
    is, so that middleware of other frameworks can put one.
    """
    route = scope.get("route")
    if isinstance(route, str):
        return route
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    # A mount that handles the request itself (static files): its path is already part of the root path.
    if hasattr(route, "routes"):
        path = ""
    return _mounted_under(scope, path) + _included_path(scope, path)


def _included_path(scope: Mapping[str, Any], path: str) -> str:
    """Newer FastAPIs (0.165, routing.py) keep the prefix of include_router() in an object of their own in the scope."""
    details = scope.get("fastapi")
    effective = details.get("effective_route_context") if isinstance(details, dict) else None
    included = getattr(effective, "path", None)
    return included if isinstance(included, str) and included.endswith(path) else path


def _mounted_under(scope: Mapping[str, Any], path: str) -> str:
    """What Starlette's mounts added to the root path, with parameters in place of their values."""
    root = scope.get("root_path", "")
    application_root = scope.get("app_root_path", root)
    if not root.startswith(application_root):
        return ""
    names = {str(value): name for name, value in scope.get("path_params", {}).items() if f"{{{name}" not in path}
    segments = root[len(application_root) :].split("/")
    return "/".join([f"{{{names[segment]}}}" if segment in names else segment for segment in segments])
