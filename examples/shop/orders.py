"""Mistake: a synchronous HTTP client inside an async handler. The loop waits for the bank."""

import itertools

import requests
from fastapi import APIRouter, BackgroundTasks

from shop.receipts import send_receipt
from shop.state import CurrentShop

router = APIRouter()
_order_numbers = itertools.count(1)


@router.post("/orders")
async def create_order(shop: CurrentShop, background: BackgroundTasks) -> dict[str, int | str]:
    """Charge the customer and send a receipt afterwards."""
    number = next(_order_numbers)
    answer = requests.get(f"{shop.partners_url}/bank/charge", params={"order": number}, timeout=10)
    answer.raise_for_status()
    background.add_task(send_receipt, shop.partners_url, number)
    return {"order": number, "charge": answer.json()["state"]}
