"""Mistake: the loop waits for a threading.Lock. A worker thread holds it while it asks the supplier."""

import json
import threading
import urllib.request
from contextlib import suppress

from fastapi import APIRouter

from shop.state import CurrentShop

router = APIRouter()

_PAUSE_S = 0.02


class Stock:
    """How many of each article are left. A thread brings it up to date, all the time, and holds the lock meanwhile."""

    def __init__(self, url: str) -> None:
        self.lock = threading.Lock()
        self.left: dict[str, int] = {"rake": 1_000_000}
        self._url = url
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_current, name="stock", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; waits for the question under way."""
        self._closed.set()
        self._thread.join()

    def _keep_current(self) -> None:
        while not self._closed.wait(_PAUSE_S):
            # A supplier that is away for a moment leaves the stock as it was.
            with self.lock, suppress(OSError), urllib.request.urlopen(self._url, timeout=10) as answer:
                self.left.update(json.load(answer))


@router.post("/stock/{article}/reservations")
async def reserve(shop: CurrentShop, article: str) -> dict[str, int]:
    """Take one article off the stock."""
    with shop.stock.lock:
        shop.stock.left[article] -= 1
        return {"left": shop.stock.left[article]}
