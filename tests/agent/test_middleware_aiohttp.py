"""The aiohttp middleware over aiohttp's own server and client."""

import asyncio
import subprocess
import sys
import time

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from tests.support.detecting import detecting, operations, slow

from aiocop.aiohttp_middleware import AiocopMiddleware


async def frozen(request):
    time.sleep(0.06)
    return web.Response(text="late")


@web.middleware
async def slow_for_strangers(request, handler):
    try:
        return await handler(request)
    except web.HTTPNotFound:
        time.sleep(0.06)
        raise


def test_route_and_method_of_what_froze():
    statuses = []

    async def main():
        app = web.Application(middlewares=[AiocopMiddleware(), slow_for_strangers])
        app.router.add_route("*", "/orders/{order_id}", frozen)
        admin = web.Application()
        admin.router.add_get("/carts/{cart_id}", frozen)
        app.add_subapp("/admin", admin)
        async with TestClient(TestServer(app)) as client:
            for method, path in (("PUT", "/orders/7"), ("GET", "/admin/carts/3"), ("GET", "/nowhere")):
                async with client.request(method, path) as answer:
                    statuses.append(answer.status)

    with detecting() as events:
        asyncio.run(main())
    assert statuses == [200, 200, 404]
    deliberate = [event for event in slow(events) if "time.sleep" in operations([event])]
    assert [event.context for event in deliberate] == [
        {"method": "PUT", "route": "/orders/{order_id}"},
        {"method": "GET", "route": "/admin/carts/{cart_id}"},
        {"method": "GET"},
    ]


def test_no_framework_is_imported():
    source = """
import sys
import aiocop.aiohttp_middleware, aiocop.asgi
found = {name.partition(".")[0] for name in sys.modules} & {"aiohttp", "starlette", "fastapi", "opentelemetry"}
assert not found, found
"""
    subprocess.run([sys.executable, "-c", source], check=True)
