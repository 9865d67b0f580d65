"""As it should be: a wait that lets others run."""

import asyncio

from fastapi import APIRouter

router = APIRouter()

_POLL_S = 0.06


@router.get("/queue")
async def wait_for_slot() -> dict[str, int]:
    """Keep the customer in the queue for a moment."""
    await asyncio.sleep(_POLL_S)
    return {"waited_ms": round(_POLL_S * 1000)}
