"""As it should be: an asynchronous HTTP client, made once at start and off the loop.

aiocop found two freezes in the first version of this. anyio, under httpx, imports its backend at the first request:
opening.py has that done before. And httpcore, under httpx, tries `import sniffio` at *every* request: where it is not
installed, each one searches the whole path for it, on the loop. So it is installed, and imported here.
"""

import sniffio  # noqa: F401
from fastapi import APIRouter

from shop.state import CurrentShop

router = APIRouter()


@router.get("/shipping/quote")
async def quote_shipping(shop: CurrentShop) -> dict[str, str]:
    """What the carrier asks for a parcel."""
    answer = await shop.client.get("/carrier/quote")
    answer.raise_for_status()
    return {"quote": answer.json()["state"]}
