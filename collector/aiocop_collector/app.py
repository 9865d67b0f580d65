"""The only place that knows every part: settings in, an application out."""

import importlib.util
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, cast

from fastapi import Depends, FastAPI

from aiocop_collector.api import build_router, install_problem_handlers
from aiocop_collector.api.entity_tags import EntityTags
from aiocop_collector.api.health import build_health_router
from aiocop_collector.api.metrics_page import Timing, build_metrics_router
from aiocop_collector.api.security import BearerTokens, Limits, LocalHosts, SafeHeaders
from aiocop_collector.collector import Collector
from aiocop_collector.deferred import load
from aiocop_collector.errors import SettingsError
from aiocop_collector.queries import Queries
from aiocop_collector.scraping import Scraper
from aiocop_collector.settings import Settings
from aiocop_collector.tokens import load_tokens
from aiocop_wire import __version__

_DESCRIPTION = "Which call sites freeze our event loops, how much loop time each cost, and since which release."


def create_app(settings: Settings) -> FastAPI:
    """The HTTP application of one collector; its lifespan runs the collector, found by `collector_of`.

    Raises SettingsError here, and CollectorError when the lifespan starts.
    """
    tokens = load_tokens(settings)
    if not tokens and not settings.http.is_loopback():
        raise SettingsError(
            f"{settings.http} can be reached from other machines, so requests need a token: make one with "
            "aiocop-collector token NAME --file FILE and pass --token-file FILE, or listen on 127.0.0.1"
        )
    collector = Collector(settings)
    scraper = Scraper(collector)
    export = _make_export(scraper, settings.otlp_endpoint) if settings.otlp_endpoint else None

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await collector.start()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(collector.stop)
            if export is not None:
                export.start()
                stack.push_async_callback(export.stop)
            yield

    app = FastAPI(
        title="aiocop collector",
        description=_DESCRIPTION,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.collector = collector
    app.include_router(build_health_router(collector))
    # Counts are exact: whoever asks after an agent's flush() over udp sees what that agent had sent.
    queries = Queries(collector.engine, precedence=collector.precedence)
    app.include_router(build_router(queries), dependencies=[Depends(collector.settle)])
    app.include_router(build_metrics_router(scraper))
    install_problem_handlers(app)
    app.add_middleware(EntityTags)
    app.add_middleware(Timing, observe=collector.metrics.time_query)
    if tokens:
        app.add_middleware(BearerTokens, tokens=tokens)
    else:
        app.add_middleware(LocalHosts, bound=[settings.http.host])
    app.add_middleware(Limits)
    app.add_middleware(SafeHeaders)
    return app


class _Export(Protocol):
    """Somebody the metrics are pushed to."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...


def _make_export(scraper: Scraper, endpoint: str) -> _Export:
    """Raises SettingsError where the extra is missing. Without an endpoint, nothing of it is imported."""
    if importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is None:
        raise SettingsError("--otlp-endpoint needs an extra: pip install 'aiocop-telemetry[otlp]'")
    return cast("_Export", load("aiocop_collector.otlp").OtlpExport(scraper, endpoint))


def collector_of(app: FastAPI) -> Collector:
    """The collector that an app from `create_app` serves."""
    collector: Collector = app.state.collector
    return collector
