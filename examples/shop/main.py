"""The application: uvicorn shop.main:app --app-dir examples --workers 2."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import aiocop
from shop import carts, catalogue, exports, invoices, orders, pages, pricing, reports, shipping, stock, waiting
from shop.opening import open_shop

aiocop.start(service="shop")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Everything slow about starting and stopping happens in a thread: the loop serves nobody yet, but is watched."""
    app.state.shop = await asyncio.to_thread(open_shop)
    asyncio.get_running_loop().set_default_executor(app.state.shop.pool)
    yield
    app.state.shop.carts.close()
    await app.state.shop.client.aclose()
    await asyncio.to_thread(app.state.shop.close)


app = FastAPI(title="Shop", lifespan=lifespan)
for module in (carts, catalogue, exports, invoices, orders, pages, pricing, reports, shipping, stock, waiting):
    app.include_router(module.router)
