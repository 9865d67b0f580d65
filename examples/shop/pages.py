"""Mistake: a file opened and read for every request. Quick while the disk is, and the disk is everybody's."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from shop.state import CurrentShop

router = APIRouter()


@router.get("/terms", response_class=PlainTextResponse)
async def terms(shop: CurrentShop) -> str:
    """The terms of sale."""
    return shop.terms.read_text(encoding="utf-8")
