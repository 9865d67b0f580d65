"""As it should be: an asynchronous HTTP client, made once at start and off the loop."""

from fastapi import APIRouter

from shop.state import CurrentShop

router = APIRouter()


@router.get("/shipping/quote")
async def quote_shipping(shop: CurrentShop) -> dict[str, str]:
    """What the carrier asks for a parcel."""
    answer = await shop.client.get("/carrier/quote")
    answer.raise_for_status()
    return {"quote": answer.json()["state"]}
