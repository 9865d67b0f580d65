"""The ASGI middleware: what it says of a request, and that it changes nothing else. Over a real server."""

import time
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from tests.support.detecting import detecting, operations, slow
from tests.support.http_server import serve_http
from tests.support.waiting import wait_until

from aiocop.asgi import AiocopMiddleware, request_context


async def frozen(request):
    time.sleep(0.06)
    return PlainTextResponse("late")


def computing():
    # By its own CPU time: what a busy machine takes is no freeze of the service's.
    until = time.thread_time() + 0.06
    while time.thread_time() < until:
        pass


def deliberate(events):
    """The freezes made here; on a busy machine other slices may be slow as well."""
    return [event for event in slow(events) if "time.sleep" in operations([event]) or "computing" in event.call_site]


def contexts_of(app, *requests: tuple[str, str]) -> list[dict]:
    """The contexts of the slow events of these requests (method and path), each of which makes one."""
    with serve_http(app) as url, httpx.Client(base_url=url, trust_env=False) as http, detecting() as events:
        for method, path in requests:
            http.request(method, path)
        # The answer is out before the slice that sent it has ended.
        wait_until(lambda: len(deliberate(events)) >= len(requests), "an event for each request")
    return [event.context for event in deliberate(events)]


def test_starlette_routes_and_mounts():
    routes = [
        Route("/orders/{order_id:int}", frozen, methods=["GET", "DELETE"]),
        Mount("/tenants/{tenant}", routes=[Route("/carts/{cart_id}", frozen)]),
    ]
    app = AiocopMiddleware(Starlette(routes=routes))
    assert contexts_of(app, ("GET", "/orders/7"), ("DELETE", "/orders/8"), ("GET", "/tenants/acme/carts/3")) == [
        {"method": "GET", "route": "/orders/{order_id:int}"},
        {"method": "DELETE", "route": "/orders/{order_id:int}"},
        {"method": "GET", "route": "/tenants/{tenant}/carts/{cart_id}"},
    ]


def test_fastapi_prefixes_and_a_freeze_without_a_blocking_call():
    router = APIRouter()

    @router.get("/items/{item_id}")
    async def item(item_id: int):
        computing()

    app, shop = FastAPI(), FastAPI()
    for target in (app, shop):
        target.include_router(router, prefix="/v1")
    app.mount("/shop", shop)
    app.add_middleware(AiocopMiddleware)
    assert contexts_of(app, ("GET", "/v1/items/3"), ("GET", "/shop/v1/items/3")) == [
        {"method": "GET", "route": "/v1/items/{item_id}"},
        {"method": "GET", "route": "/shop/v1/items/{item_id}"},
    ]


def test_what_has_no_template(tmp_path):
    class SlowFiles(StaticFiles):
        async def get_response(self, path, scope):
            time.sleep(0.06)
            return await super().get_response(path, scope)

    async def not_found(request, error):
        return await frozen(request)

    (tmp_path / "page.txt").write_text("page")
    files = Starlette(routes=[Mount("/static", SlowFiles(directory=tmp_path))], exception_handlers={404: not_found})
    assert contexts_of(AiocopMiddleware(files), ("GET", "/static/page.txt"), ("GET", "/nowhere")) == [
        {"method": "GET", "route": "/static"},
        {"method": "GET"},
    ]

    async def bare(scope, receive, send):
        if scope["type"] == "http":
            await frozen(None)
            await PlainTextResponse("late")(scope, receive, send)

    assert contexts_of(AiocopMiddleware(bare), ("POST", "/any/where")) == [{"method": "POST"}]


def test_websocket_and_lifespan_pass_through():
    seen = []

    async def chat(websocket):
        await websocket.accept()
        while (text := await websocket.receive_text()) != "bye":
            time.sleep(0.06)
            await websocket.send_text(text.upper())
        await websocket.close()

    @asynccontextmanager
    async def lifespan(app):
        seen.append(("started", request_context()))
        yield
        seen.append(("stopped", request_context()))

    app = AiocopMiddleware(Starlette(routes=[WebSocketRoute("/chat/{room}", chat)], lifespan=lifespan))
    with detecting() as events, TestClient(app) as client, client.websocket_connect("/chat/7") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "HELLO"
        websocket.send_text("bye")
    assert [event.context for event in deliberate(events)] == [{"method": "WEBSOCKET", "route": "/chat/{room}"}]
    assert seen == [("started", None), ("stopped", None)]


def test_what_the_application_raises_comes_through():
    async def broken(request):
        raise LookupError("no such order")

    with detecting(), TestClient(AiocopMiddleware(Starlette(routes=[Route("/", broken)]))) as client:
        with pytest.raises(LookupError, match="no such order"):
            client.get("/")
        assert client.get("/nowhere").status_code == 404
