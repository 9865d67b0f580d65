"""Mistake: a loop in pure Python that is quadratic in the number of articles."""

from fastapi import APIRouter

router = APIRouter()

_PRICES_CENTS = [101 + (number * 7_919) % 4_999 for number in range(2_200)]


@router.get("/bundles")
async def best_bundle(budget_cents: int = 6_543) -> dict[str, int]:
    """The two articles that come nearest to the budget."""
    best_cents = 0
    for index, first_cents in enumerate(_PRICES_CENTS):
        for second_cents in _PRICES_CENTS[index + 1 :]:
            if best_cents < first_cents + second_cents <= budget_cents:
                best_cents = first_cents + second_cents
    return {"best_cents": best_cents}
