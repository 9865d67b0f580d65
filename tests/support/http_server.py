"""An ASGI application served over real HTTP by uvicorn, in a thread, on a free port."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

_PATIENCE_S = 60.0


@contextmanager
def serve_http(app) -> Iterator[str]:
    """The URL while the block runs. The application's lifespan runs in the server's own loop."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", loop="asyncio"))
    thread = threading.Thread(target=server.run, name="http server of a test")
    thread.start()
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not server.started:
            assert thread.is_alive(), "the server ended before it was ready"
            assert time.monotonic() < deadline, f"the server is not ready after {_PATIENCE_S} s"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_S)
