"""Mistake: a timer's callback that writes to the disk and waits until it is there."""

import asyncio
import itertools
import json
import os
from pathlib import Path

from fastapi import APIRouter

from shop.state import CurrentShop

router = APIRouter()
_cart_numbers = itertools.count(1)
_LIFETIME_S = 0.2


class Carts:
    """Carts that nobody paid for are written to a journal when their time is over."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def open(self) -> int:
        """A new cart, and the timer that ends it."""
        number = next(_cart_numbers)
        self._timers[number] = asyncio.get_running_loop().call_later(_LIFETIME_S, self.expire, number)
        return number

    def expire(self, number: int) -> None:
        """Write the cart down for good."""
        del self._timers[number]
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"cart": number}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Forget the carts that are still open."""
        for timer in self._timers.values():
            timer.cancel()


@router.post("/carts")
async def open_cart(shop: CurrentShop) -> dict[str, int]:
    """A new cart."""
    return {"cart": shop.carts.open()}
