"""Makes a worker's Shop: its files, its client, its stock-taking thread."""

import os
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import anyio
import httpx

from shop.carts import Carts
from shop.catalogue import make_feed
from shop.state import Shop
from shop.stock import Stock

PARTNERS_URL_VARIABLE = "SHOP_PARTNERS_URL"
"""Environment variable: where the bank, the supplier, the mail provider and the carrier answer."""

_THREADS = 4
_CUSTOMER_COUNT = 3_000
_ORDER_COUNT = 120_000
_REGIONS = ("north", "east", "south", "west")
_TERMS = "You may return what you bought within thirty days. We pay for the parcel.\n" * 2_000


def open_shop() -> Shop:
    """Everything a worker needs. Takes about a second: call it off the loop.

    Raises KeyError when SHOP_PARTNERS_URL is not set.
    """
    partners_url = os.environ[PARTNERS_URL_VARIABLE]
    folder = tempfile.TemporaryDirectory(prefix="shop-")
    root = Path(folder.name)
    terms = root / "terms.txt"
    terms.write_text(_TERMS)
    database = root / "shop.db"
    _make_database(database)
    anyio.run(anyio.sleep, 0)  # anyio imports its backend, which it otherwise does at the first request, on the loop
    return Shop(
        folder=folder,
        database=database,
        terms=terms,
        feed=make_feed(),
        partners_url=partners_url,
        client=httpx.AsyncClient(base_url=partners_url, timeout=10),
        stock=Stock(f"{partners_url}/supplier/stock"),
        carts=Carts(root / "expired.jsonl"),
        pool=_started_pool(),
    )


def _started_pool() -> ThreadPoolExecutor:
    """The threads of asyncio.to_thread, all running. One that is started for a request makes the loop wait for it."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="shop")
    all_run = threading.Barrier(_THREADS)
    list(pool.map(lambda _: all_run.wait(), range(_THREADS)))
    return pool


def _make_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE customers (email TEXT, region TEXT)")
        connection.execute("CREATE TABLE orders (email TEXT, amount_cents INTEGER)")
        connection.executemany(
            "INSERT INTO customers VALUES (?, ?)",
            ((f"customer{number}@example.org", _REGIONS[number % len(_REGIONS)]) for number in range(_CUSTOMER_COUNT)),
        )
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?)",
            ((f"customer{number % _CUSTOMER_COUNT}@example.org", number % 9_900) for number in range(_ORDER_COUNT)),
        )
