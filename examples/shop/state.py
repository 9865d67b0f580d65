"""What the handlers of one worker share. opening.py makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    import tempfile
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    import httpx

    from shop.carts import Carts
    from shop.stock import Stock


@dataclass(frozen=True)
class Shop:
    """One worker's resources. `partners_url` is where the bank, the supplier and the carrier answer, slowly."""

    folder: tempfile.TemporaryDirectory[str]
    database: Path
    terms: Path
    feed: str
    partners_url: str
    client: httpx.AsyncClient
    stock: Stock
    carts: Carts
    pool: ThreadPoolExecutor

    def close(self) -> None:
        """Stop the stock-taking thread and remove the folder. The client and the pool are closed with their loop."""
        self.stock.close()
        self.folder.cleanup()


async def get_shop(request: Request) -> Shop:
    """The worker's Shop, for FastAPI's Depends."""
    shop: Shop = request.app.state.shop
    return shop


CurrentShop = Annotated[Shop, Depends(get_shop)]
