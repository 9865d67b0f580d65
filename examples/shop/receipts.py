"""Mistake: a background task is no thread. An async one runs on the loop, and stops it all the same."""

import json
import urllib.request


async def send_receipt(partners_url: str, order: int) -> None:
    """Hand the receipt to the mail provider, after the response went out."""
    body = json.dumps({"order": order}).encode()
    with urllib.request.urlopen(f"{partners_url}/mail/receipts", data=body, timeout=10) as answer:
        answer.read()
