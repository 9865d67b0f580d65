"""Mistake: subprocess.run in an async handler. The loop waits until the other program is done."""

import subprocess
import sys
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

router = APIRouter()

_PRINTER = Path(__file__).with_name("printer.py")


@router.get("/invoices/{number}")
async def print_invoice(number: int) -> Response:
    """The invoice as the printing program lays it out."""
    done = subprocess.run([sys.executable, "-I", _PRINTER, str(number)], check=True, capture_output=True)
    return Response(done.stdout, media_type="message/rfc822")
