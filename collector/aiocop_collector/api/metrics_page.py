"""`GET /metrics` for Prometheus, and the time each answer takes."""

import time
from collections.abc import Callable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Receive, Scope, Send

from aiocop_collector.scraping import Scraper


def build_metrics_router(scraper: Scraper) -> APIRouter:
    """One endpoint, which answers without the database too."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"example": "aiocop_collector_pending_reports 0.0\n"}}}},
    )
    async def get_metrics() -> Response:
        """The text format; names and meanings are in docs/api.md."""
        return Response(
            await scraper.page(), headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        )

    return router


class Timing:
    """ASGI middleware that tells how long each answer took, by the endpoint's path as OpenAPI writes it."""

    def __init__(self, app: ASGIApp, observe: Callable[[str, float], None]) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            # Paths that no endpoint has are one label: whoever asks must not choose how many there are.
            endpoint = getattr(scope.get("route"), "path_format", "<none>")
            self._observe(endpoint, time.perf_counter() - started_s)
