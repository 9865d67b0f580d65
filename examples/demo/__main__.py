"""Shows the whole path: python -m demo (in examples/), which `make demo` runs. --help lists the options.

Starts a collector, the shop's slow partners and the shop with two workers, sends requests for ten seconds, prints the
top call sites as read from `GET /hotspots`, and stays up until Ctrl-C. With --once it exits after the table: 0 when
every known mistake is in it and nobody innocent, else 1. --shop-url and --collector-url name services that run already.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import httpx
from rich.console import Console

from aiocop_collector.commands.client import Client
from aiocop_collector.commands.hotspots import render_hotspots
from aiocop_collector.errors import CollectorError
from demo.children import Child, ChildError
from demo.collector import QUESTION, settled_hotspots
from demo.partners import PartnersHandler, PartnersServer
from demo.traffic import Traffic, TrafficError, drive
from demo.verdict import judge
from shop.opening import PARTNERS_URL_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EXAMPLES = Path(__file__).resolve().parent.parent
_START_DEADLINE_S = 60.0
_WATCH_S = 0.5
_ROWS = 20


@dataclass(frozen=True)
class Services:
    """Where the shop and the collector answer. `check` raises ChildError when one of ours died."""

    shop_url: str
    collector_url: str
    token: str | None
    check: Callable[[], None]


def say(text: str) -> None:
    """One line of progress, at once."""
    print(text, flush=True)


def _collector_command(socket: str, folder: Path) -> list[str]:
    serve = [sys.executable, "-m", "aiocop_collector", "serve"]
    return [*serve, "--listen", socket, "--http", "127.0.0.1:0", "--database", f"sqlite:///{folder}/aiocop.db"]


def _shop_command(workers: int) -> list[str]:
    uvicorn = [sys.executable, "-m", "uvicorn", "shop.main:app", "--app-dir", str(_EXAMPLES)]
    return [
        *uvicorn,
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--loop",
        "uvloop",
        "--no-access-log",
        "--workers",
        str(workers),
    ]


@contextmanager
def _own_services(workers: int) -> Iterator[Services]:
    """Collector, partners and shop as children in a fresh folder; all gone at the end, however it comes."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiocop-demo-")))
        socket = f"unix://{folder}/collector.sock"
        say("Starting a collector …")
        collector_log = folder / "collector.log"
        collector = stack.enter_context(Child("collector", _collector_command(socket, folder), collector_log, {}))
        collector_url = collector.wait_for(r"listening on (http://\S+)", _START_DEADLINE_S)
        partners = stack.enter_context(PartnersServer(("127.0.0.1", 0), PartnersHandler))
        thread = threading.Thread(target=partners.serve_forever, name="partners", daemon=True)
        thread.start()
        stack.callback(partners.shutdown)
        say(f"Starting the shop with {workers} workers …")
        environment = {"AIOCOP_COLLECTOR": socket, "AIOCOP_ENVIRONMENT": "demo", PARTNERS_URL_VARIABLE: partners.url}
        shop = stack.enter_context(Child("shop", _shop_command(workers), folder / "shop.log", environment))
        shop_url = shop.wait_for(r"Uvicorn running on (http://\S+)", _START_DEADLINE_S)

        def check() -> None:
            collector.check()
            shop.check()

        _wait_until_ready(shop_url, check)
        yield Services(shop_url, collector_url, None, check)
        say("Stopping …")


def _wait_until_ready(shop_url: str, check: Callable[[], None]) -> None:
    end = time.monotonic() + _START_DEADLINE_S
    while True:
        check()
        try:
            httpx.get(f"{shop_url}/openapi.json", timeout=5).raise_for_status()
        except httpx.HTTPError as error:
            if time.monotonic() > end:
                raise TrafficError(f"the shop at {shop_url} does not answer: {error!r}") from error
            time.sleep(_WATCH_S)
        else:
            return


async def _drive_watched(services: Services, seconds: float) -> Traffic:
    traffic = asyncio.create_task(drive(services.shop_url, seconds))
    try:
        while not traffic.done():
            services.check()
            await asyncio.wait({traffic}, timeout=_WATCH_S)
        return traffic.result()
    finally:
        traffic.cancel()


def _show(services: Services, seconds: float, patience_s: float) -> bool:
    """Drive the shop, print the table and the verdict; True when the table is as it should be."""
    say(f"Sending requests for {seconds:.0f} s …")
    traffic = asyncio.run(_drive_watched(services, seconds))
    say(f"{traffic.requests} requests, the slowest answered after {traffic.slowest_ms:.0f} ms.")
    say("Waiting for the last reports …")
    with Client(services.collector_url, token=services.token) as client:
        answer = settled_hotspots(client, patience_s)
    services.check()
    say(f"\nGET {services.collector_url}/hotspots?{urlencode(QUESTION)}\n")
    render_hotspots({**answer, "hotspots": answer["hotspots"][:_ROWS]}, Console())
    say("")
    verdict = judge(answer["hotspots"])
    for line in verdict.missing:
        say(f"MISSING: {line}")
    for line in verdict.accused:
        say(f"WRONGLY ACCUSED: {line} never blocks the loop")
    if verdict.is_right:
        say("Every known mistake of the shop is in the table, and nobody innocent.")
    return verdict.is_right


def _stay(services: Services) -> None:
    say(f"\n  shop       {services.shop_url}/docs")
    say(f"  hotspots   {services.collector_url}/hotspots")
    say(f"  API        {services.collector_url}/openapi.json")
    say("\nBoth stay up until Ctrl-C.")
    while True:
        services.check()
        time.sleep(_WATCH_S)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="exit after the table; status 1 if it is not as expected")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to send requests (default: 10)")
    parser.add_argument("--patience", type=float, default=30.0, help="how long to wait for the reports (default: 30)")
    parser.add_argument("--workers", type=int, default=2, help="uvicorn workers of the shop (default: 2)")
    parser.add_argument("--shop-url", help="drive this shop, which runs already (with --collector-url)")
    parser.add_argument("--collector-url", help="read the table from this collector (with --shop-url)")
    parser.add_argument("--token-file", type=Path, help="file with the token of that collector")
    arguments = parser.parse_args()
    if (arguments.shop_url is None) != (arguments.collector_url is None):
        parser.error("--shop-url and --collector-url go together")
    return arguments


def _terminate(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def main() -> int:
    """Run the demo. 0 as expected, 1 otherwise, 130 after Ctrl-C with --once, 143 after SIGTERM."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        with ExitStack() as stack:
            if arguments.shop_url:
                token = arguments.token_file.read_text().strip() if arguments.token_file else None
                services = Services(arguments.shop_url, arguments.collector_url, token, lambda: None)
                _wait_until_ready(services.shop_url, services.check)
            else:
                services = stack.enter_context(_own_services(arguments.workers))
            is_right = _show(services, arguments.seconds, arguments.patience)
            if not arguments.once:
                _stay(services)
            return 0 if is_right else 1
    except KeyboardInterrupt:
        return 130 if arguments.once else 0
    except (ChildError, CollectorError, TrafficError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
