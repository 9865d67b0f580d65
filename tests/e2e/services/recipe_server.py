"""Serves a recipe's application in this process, sends requests to it, and prints the freezes it saw as JSON.

python recipe_server.py asgi.py application /orders/7 …
"""

import asyncio
import importlib
import json
import sys
from pathlib import Path

import httpx
import uvicorn

import aiocop


async def under_uvicorn(app, paths: list[str]) -> None:
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", loop="asyncio"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    await ask(server.servers[0].sockets[0].getsockname()[1], paths)
    server.should_exit = True
    await serving


async def under_aiohttp(app, paths: list[str]) -> None:
    # Not at the top: the other recipes run without aiohttp.
    web = importlib.import_module("aiohttp.web")
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await ask(runner.addresses[0][1], paths)
    await runner.cleanup()


async def ask(port: int, paths: list[str]) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        for path in paths:
            (await client.get(path)).raise_for_status()


def main(file: str, name: str, *paths: str) -> None:
    events: list[aiocop.SlowTaskEvent] = []
    aiocop.register_slow_task_callback(events.append)
    sys.path.insert(0, str(Path(file).parent))
    app = getattr(importlib.import_module(Path(file).stem), name)
    serve = under_aiohttp if type(app).__module__.startswith("aiohttp") else under_uvicorn
    asyncio.run(serve(app, list(paths)))
    aiocop.stop(0)
    # On a busy machine other slices may be slow as well: only the freezes that the recipes make on purpose.
    frozen = [event for event in events if any("time.sleep(0.1)" in call["event"] for call in event.blocking_events)]
    seen = [[event.call_site, event.context] for event in frozen]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
