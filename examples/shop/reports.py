"""Mistake: a synchronous database driver in an async handler, on a join that no index helps."""

import sqlite3
from contextlib import closing

from fastapi import APIRouter

from shop.state import CurrentShop

router = APIRouter()

_SALES_BY_REGION = """
    SELECT customers.region, count(*), sum(orders.amount_cents)
    FROM orders JOIN customers ON customers.email = orders.email
    GROUP BY customers.region ORDER BY customers.region
"""


@router.get("/reports/sales")
async def sales_by_region(shop: CurrentShop) -> dict[str, int]:
    """Cents sold per region."""
    with closing(sqlite3.connect(shop.database)) as connection:
        rows = connection.execute(_SALES_BY_REGION).fetchall()
    return {region: cents for region, _, cents in rows}
