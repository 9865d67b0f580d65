"""Where a freeze can hide: in loops that a framework or server makes. Activated where its start-up hook is."""

import asyncio
import contextlib
import importlib
import os
import signal
import socket
import tempfile
import time
from pathlib import Path

from tests.corpus.harness import Harness
from tests.corpus.scenario import freezes, stopwatch

SLEEP = {"operation": "time.sleep", "cause": "wait"}
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_running: list[Harness] = []
"""The one of this process, for what frameworks import by name."""


async def handle():
    """What every handler here does."""
    with stopwatch:
        time.sleep(0.06)  # <- culprit
    return "done"


async def handle_in_a_test():
    """The same, as a test would."""
    _running[0].activate()
    await asyncio.sleep(0.005)
    await handle()
    await asyncio.sleep(0.005)


async def app(scope, receive, send):
    """An ASGI application that activates when it starts and hands in what was seen when it ends."""
    if scope["type"] == "lifespan":
        await receive()
        _running[0].activate()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        _running[0].deliver()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        text = await handle()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": text.encode()})


def listening_socket(harness):
    """A socket for the server, and a client in a process of its own that asks once and then ends the server."""
    _running[:] = [harness]
    listening = socket.create_server(("127.0.0.1", 0))
    listening.set_inheritable(True)
    server = os.getpid()
    if os.fork() == 0:
        with contextlib.suppress(OSError), socket.create_connection(listening.getsockname()) as client:
            client.settimeout(20)
            client.sendall(_REQUEST)
            while client.recv(4096):
                pass
        time.sleep(0.1)
        os.kill(server, signal.SIGTERM)
        os._exit(0)
    return listening


@freezes("loops made by pytest-asyncio", requires=("pytest_asyncio",), marked_in=handle, **SLEEP)
def pytest_asyncio(harness: Harness):
    _running[:] = [harness]
    lines = [
        f"from {__name__} import handle_in_a_test",
        "async def test_it(): await handle_in_a_test()",
    ]
    if harness.loop == "uvloop":
        lines += [
            "import pytest, uvloop",
            "@pytest.fixture",
            "def event_loop_policy(): return uvloop.EventLoopPolicy()",
        ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test_it.py"
        path.write_text("\n".join(lines))
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options = ["-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin"]
        assert importlib.import_module("pytest").main([str(path), "--rootdir", folder, "-c", os.devnull, *options]) == 0


@freezes("loops made by anyio", requires=("anyio",), marked_in=handle, **SLEEP)
def anyio(harness: Harness):
    _running[:] = [harness]
    options = {"use_uvloop": harness.loop == "uvloop"}
    importlib.import_module("anyio").run(handle_in_a_test, backend="asyncio", backend_options=options)


@freezes("loops made by uvicorn", requires=("uvicorn",), marked_in=handle, **SLEEP)
def uvicorn(harness: Harness):
    with listening_socket(harness) as listening:
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again once it has ended
        importlib.import_module("uvicorn").run(app, fd=listening.fileno(), loop=harness.loop, log_level="error")


@freezes("gunicorn's uvicorn worker", requires=("gunicorn", "uvicorn_worker"), marked_in=handle, **SLEEP)
def gunicorn(harness: Harness):
    base = importlib.import_module("gunicorn.app.base")
    worker = importlib.import_module("uvicorn_worker").UvicornWorker
    descriptor = listening_socket(harness).detach()  # gunicorn closes it

    class Worker(worker):
        CONFIG_KWARGS = {**worker.CONFIG_KWARGS, "loop": harness.loop}  # noqa: RUF012 - as uvicorn documents it

    class Application(base.BaseApplication):
        def load_config(self):
            self.cfg.set("bind", f"fd://{descriptor}")
            self.cfg.set("worker_class", Worker)
            self.cfg.set("loglevel", "error")

        def load(self):
            return app

    with contextlib.suppress(SystemExit):
        Application().run()


@freezes("loops made by Hypercorn", requires=("hypercorn",), marked_in=handle, **SLEEP)
def hypercorn(harness: Harness):
    config = importlib.import_module("hypercorn.config").Config()
    config.bind = [f"fd://{listening_socket(harness).detach()}"]
    config.worker_class = harness.loop
    config.workers = 0
    config.application_path = f"{__name__}:app"
    importlib.import_module("hypercorn.run").run(config)


@freezes("loops made by aiohttp", requires=("aiohttp",), marked_in=handle, **SLEEP)
def aiohttp(harness: Harness):
    web = importlib.import_module("aiohttp.web")

    async def answer(_request):
        return web.Response(text=await handle())

    async def activate(_application):
        harness.activate()

    application = web.Application()
    application.router.add_get("/", answer)
    application.on_startup.append(activate)
    with listening_socket(harness) as listening:
        loop = importlib.import_module("uvloop" if harness.loop == "uvloop" else "asyncio").new_event_loop()
        asyncio.set_event_loop(loop)
        web.run_app(application, sock=listening, loop=loop, print=None)
