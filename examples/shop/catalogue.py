"""Mistake: a large JSON document is parsed on the loop, for one word that somebody looks for."""

import json

from fastapi import APIRouter

from shop.state import CurrentShop

router = APIRouter()

_PRODUCT_COUNT = 30_000


def make_feed() -> str:
    """The supplier's feed as it came: several megabytes of JSON."""
    return json.dumps(
        [
            {
                "id": number,
                "name": f"article {number}",
                "tags": ["garden", "tools", f"series-{number % 97}"],
                "price": {"amount_cents": 100 + number % 5_000, "currency": "EUR"},
            }
            for number in range(_PRODUCT_COUNT)
        ]
    )


@router.get("/catalogue")
async def search(shop: CurrentShop, tag: str = "series-7") -> list[int]:
    """The ids of the products with this tag."""
    return sorted(product["id"] for product in json.loads(shop.feed) if tag in product["tags"])
