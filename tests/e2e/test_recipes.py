"""The snippets of docs/integrations.md, run with the real frameworks, servers and libraries."""

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).parent / "services" / "recipe_server.py"
PAGE = (ROOT / "docs" / "integrations.md").read_text()
DRIVE = """
import asyncio, sys, time

async def frozen():
    time.sleep(0.1)

asyncio.run(frozen())
aiocop.stop(0)
"""


def snippets(heading: str) -> list[str]:
    """The Python code below a heading."""
    _, _, below = PAGE.partition(f"\n## {heading}\n")
    section, _, _ = below.partition("\n## ")
    return re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def run(folder: Path, *arguments: object, **environment: str) -> str:
    """Run Python in `folder`, with warnings as errors and nobody to report to; what it printed."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("AIOCOP_", "SENTRY_", "DJANGO_"))}
    nobody = {"AIOCOP_COLLECTOR": f"unix://{folder}/nobody.sock"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=folder,
        env=clean | nobody | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def freezes_served(folder: Path, file: str, name: str, *paths: str) -> list[tuple[str, dict]]:
    """Call site and context of what froze while a recipe's application answered requests."""
    return [(site, context) for site, context in json.loads(run(folder, SERVER, file, name, *paths))]


@pytest.mark.parametrize("framework", ["FastAPI", "Starlette", "aiohttp"])
def test_web_framework(framework: str, tmp_path: Path):
    (source,) = snippets(framework)
    (tmp_path / "recipe.py").write_text(source)
    line = source[: source.index("time.sleep(")].count("\n") + 1
    assert freezes_served(tmp_path, tmp_path / "recipe.py", "app", "/orders/7") == [
        (f"recipe.py:{line}:read_order", {"method": "GET", "route": "/orders/{order_id}"})
    ]


def test_django(tmp_path: Path):
    asgi, middleware = snippets("Django")
    (tmp_path / "shop_asgi.py").write_text(asgi)
    (tmp_path / "middleware.py").write_text(middleware)
    (tmp_path / "settings.py").write_text(
        """
SECRET_KEY = "test"
ROOT_URLCONF = "urls"
MIDDLEWARE = ["middleware.RouteMiddleware"]
ALLOWED_HOSTS = ["*"]
"""
    )
    (tmp_path / "urls.py").write_text(
        """
import time
from django.http import HttpResponse
from django.urls import path

async def read_order(request, order_id):
    time.sleep(0.1)
    return HttpResponse("late")

urlpatterns = [path("orders/<int:order_id>/", read_order)]
"""
    )
    freezes = freezes_served(tmp_path, tmp_path / "shop_asgi.py", "application", "/orders/7/")
    assert freezes == [("urls.py:7:read_order", {"method": "GET", "route": "orders/<int:order_id>/"})]


def test_opentelemetry(tmp_path: Path):
    (source,) = snippets("OpenTelemetry")
    drive = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
import asyncio, time

tracer = TracerProvider().get_tracer("shop")

async def frozen():
    with tracer.start_as_current_span("checkout") as span:
        time.sleep(0.1)
        print(f"{span.get_span_context().trace_id:032x}")

aiocop.patch_audit_functions()
aiocop.start_blocking_io_detection()
aiocop.detect_slow_tasks(50, lambda event: print(event.context["trace_id"]))
aiocop.activate()
asyncio.run(frozen())
aiocop.stop(0)
"""
    (tmp_path / "recipe.py").write_text(source + drive)
    expected, found = run(tmp_path, "recipe.py").split()
    assert expected == found


def test_prometheus(tmp_path: Path):
    (source,) = snippets("Prometheus")
    show = "from prometheus_client import generate_latest\nprint(generate_latest().decode())\n"
    (tmp_path / "recipe.py").write_text(source + DRIVE + show)
    exported = run(tmp_path, "recipe.py")
    labels = r'call_site="recipe.py:\d+:frozen",cause="wait"'
    assert re.search(rf"^event_loop_freeze_seconds_count{{{labels}}} 1.0$", exported, re.MULTILINE), exported
    (total,) = re.findall(rf"^event_loop_freeze_seconds_sum{{{labels}}} (.*)$", exported, re.MULTILINE)
    assert float(total) >= 0.1


def test_structlog(tmp_path: Path):
    (source,) = snippets("structlog")
    configure = (
        "import structlog\nstructlog.configure(processors=[structlog.processors.JSONRenderer()])\n"
        'structlog.contextvars.bind_contextvars(request_id="r-7")\n'
    )
    (tmp_path / "recipe.py").write_text(configure + source + DRIVE)
    said = json.loads(run(tmp_path, "recipe.py"))
    assert (said["event"], said["request_id"], said["cause"]) == ("event loop frozen", "r-7", "wait")
    assert said["call_site"].endswith(":frozen")
    assert said["elapsed_ms"] >= 100


@contextmanager
def sentry() -> Iterator[tuple[str, list[dict]]]:
    """A server that accepts envelopes as Sentry does: its DSN, and the events that arrived."""
    received: list[dict] = []

    class Ingest(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            lines = [json.loads(line) for line in body.splitlines() if line]
            received.extend(line for line in lines if "message" in line or "logentry" in line)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Ingest) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://key@127.0.0.1:{server.server_port}/1", received
        finally:
            server.shutdown()
            thread.join()


def test_sentry(tmp_path: Path):
    (source,) = snippets("Sentry")
    (tmp_path / "recipe.py").write_text(source + DRIVE + "sentry_sdk.flush(60)\n")
    with sentry() as (dsn, received):
        run(tmp_path, "recipe.py", SENTRY_DSN=dsn, NO_PROXY="127.0.0.1")
    (event,) = received
    assert re.fullmatch(r"Event loop frozen by recipe.py:\d+:frozen", event["message"])
    assert event["level"] == "warning"
    assert event["tags"]["cause"] == "wait"
    assert event["contexts"]["freeze"]["elapsed_ms"] >= 100
    assert event["contexts"]["freeze"]["calls"][0]["event"] == "time.sleep(0.1)"


def test_every_snippet_of_the_page_is_run():
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    with_code = [heading for heading in headings if snippets(heading)]
    tested = ["FastAPI", "Starlette", "aiohttp", "Django", "OpenTelemetry", "Prometheus", "structlog", "Sentry"]
    assert with_code == tested
