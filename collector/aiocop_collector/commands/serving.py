"""What `serve` does: bind, run the collector, serve HTTP; readiness on stdout; a quiet, complete end."""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
import uvloop

from aiocop_collector.app import collector_of, create_app
from aiocop_collector.settings import HttpAddress, Settings
from aiocop_collector.sockets import bind_http

_GRACE_S: Final = 2
"""How long requests that are being answered may take after SIGTERM."""

_MAX_CONNECTIONS: Final = 512
"""Beyond it requests are answered with 503 at once."""

_KEEP_ALIVE_S: Final = 15

_GC_THRESHOLDS: Final = (100_000, 10, 50)
"""An answer over a fleet makes tens of thousands of tuples, in no cycles: with Python's own thresholds a fifth of its
CPU time went to looking for some (measured on 10 000 sites). What waits for a commit is mostly gone before there are so
many. Twice as many would cost even less at full load, but then requests leave 30 MiB of cycles behind."""

_NOT_COMMITTED: Final = 1


def serve_until_stopped(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code: 0, or 1 when something held could not be committed.

    Raises CollectorError when it cannot start.
    """
    gc.set_threshold(*_GC_THRESHOLDS)
    return uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    app = create_app(settings)
    collector = collector_of(app)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with contextlib.closing(bind_http(settings.http)) as bound:
        # The lifespan is run here and not by uvicorn, so that what fails in it is one sentence and not a traceback.
        async with app.router.lifespan_context(app):
            addresses = [receiver.address for receiver in collector.receivers]
            addresses.append(_bound_address(settings.http, bound))
            server = _Server(_configuration(app), on_started=lambda: _announce(addresses))
            serving = asyncio.create_task(server.serve(sockets=[bound]), name="aiocop-collector-http")
            stopping = asyncio.create_task(stop.wait(), name="aiocop-collector-stop")
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            # Agents first: they wait for acknowledgements, and HTTP clients may take their time.
            committed = await collector.stop()
            server.should_exit = True
            await serving
    return 0 if committed else _NOT_COMMITTED


class _Server(uvicorn.Server):
    """uvicorn that says when it serves, and leaves signals to us: it would end by raising them again."""

    def __init__(self, config: uvicorn.Config, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _configuration(app: Callable[..., object]) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",  # the loop is running already
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _bound_address(address: HttpAddress, bound: socket.socket) -> str:
    return str(HttpAddress(address.host, bound.getsockname()[1]))


def _announce(addresses: list[str]) -> None:
    """What scripts and tests wait for: one line per address really bound."""
    sys.stdout.write("".join(f"listening on {address}\n" for address in addresses))
    sys.stdout.flush()
