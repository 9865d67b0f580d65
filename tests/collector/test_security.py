"""The outer doors of a real collector: tokens and roles, Host headers, sizes and times, trouble of the database."""

import asyncio
import contextlib
import http.client
import json
import socket
import sqlite3
import subprocess
import sys
import time

import httpx
import pytest
from tests.support.collector import (
    DEADLINE_S,
    StreamPeer,
    collector_environment,
    make_identity,
    make_report,
    make_site,
    run_collector,
)

from aiocop_collector.api.security import MAX_BODY_BYTES, Limits
from aiocop_collector.errors import SettingsError
from aiocop_collector.settings import Settings
from aiocop_collector.tokens import load_tokens, new_token
from aiocop_wire import Define, SiteDelta


def add_hotspot(collector) -> str:
    with StreamPeer(collector.socket_path) as agent:
        agent.greet(make_identity())
        agent.send(Define((make_site(1),)), make_report(1, SiteDelta(1, 1, 1, 90_000, 90_000)))
        agent.wait_for_ack(1)
    with sqlite3.connect(collector.database) as database:
        ((hotspot_id,),) = database.execute("SELECT id FROM hotspots").fetchall()
    database.close()
    return f"{hotspot_id % (1 << 64):016x}"


def make_token(*arguments: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "aiocop_collector", "token", *arguments],
        capture_output=True, text=True, check=True, timeout=DEADLINE_S, env=collector_environment(),
    )  # fmt: skip
    return made.stdout.strip()


def test_tokens_have_names_and_roles(tmp_path):
    file = tmp_path / "tokens"
    admin = make_token("ops", "--role", "admin", "--file", str(file))
    reader = make_token("dashboard", "--file", str(file))
    from_environment, kept = new_token("ci", "admin")
    assert file.stat().st_mode & 0o777 == 0o600
    for secret in (admin, reader, from_environment):
        assert secret not in file.read_text()
    with run_collector(
        tmp_path, "--token-file", str(file), "--http", "127.0.0.1:0", AIOCOP_TOKENS=kept.line()
    ) as collector:
        hotspot = f"/hotspots/{add_hotspot(collector)}"

        def ask(method, token, path=hotspot, **fields):
            headers = {"Authorization": f"Bearer {token}".encode()} if token else {}
            return collector.http.request(method, path, headers=headers, **fields)

        for token in (admin, reader, from_environment):
            assert ask("GET", token).status_code == 200
        for token in (None, "nonsense", admin + "x", "\u00e9"):
            answer = ask("GET", token)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["title"] == "Unauthorized"
        for path in ("/metrics", "/openapi.json", "/nothing"):
            assert ask("GET", None, path).status_code == 401
        assert ask("GET", None, "/healthz").status_code == 200
        refused = ask("PATCH", reader, json={"status": "resolved"})
        assert (refused.status_code, "dashboard" in refused.json()["detail"]) == (403, True)
        assert ask("PATCH", admin, json={"status": "resolved"}).status_code == 200
        changed = ask("PATCH", from_environment, json={"status": "open"}).json()
        assert [entry["who"] for entry in changed["history"]] == ["ci", "ops"]
        # Another Host header is fine where a token is needed.
        host = {"Host": "collector.example", "Authorization": f"Bearer {reader}"}
        assert collector.http.get(hotspot, headers=host).status_code == 200


def test_two_tokens_of_one_name_are_refused(monkeypatch):
    lines = [new_token("ci", "read")[1].line() for _ in range(2)]
    monkeypatch.setenv("AIOCOP_TOKENS", ",".join(lines))
    with pytest.raises(SettingsError, match="two tokens are named 'ci'"):
        load_tokens(Settings())
    monkeypatch.setenv("AIOCOP_TOKENS", "aiocop_secret")
    with pytest.raises(SettingsError, match="AIOCOP_TOKENS") as caught:
        load_tokens(Settings())
    assert "aiocop_secret" not in str(caught.value)


def test_without_a_token_only_names_of_this_machine_are_answered(tmp_path):
    with run_collector(tmp_path) as collector:
        port = httpx.URL(collector.url).port
        for host in (f"127.0.0.1:{port}", "127.0.0.1", "localhost:1", "LOCALHOST", f"[::1]:{port}"):
            assert collector.http.get("/hotspots", headers={"Host": host}).status_code == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "localhost@evil", "::1"):
            answer = collector.http.get("/hotspots", headers={"Host": host})
            assert answer.status_code == 421, host
            assert answer.headers["content-type"] == "application/problem+json"
        assert collector.http.get("/healthz", headers={"Host": "evil.example"}).status_code == 200
        headers = collector.http.get("/hotspots").headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_what_is_too_large_is_refused(tmp_path):
    with run_collector(tmp_path) as collector:
        hotspot = f"/hotspots/{add_hotspot(collector)}"
        large = json.dumps({"note": "x" * MAX_BODY_BYTES})
        assert collector.http.patch(hotspot, content=large).status_code == 413

        def in_chunks():
            for start in range(0, len(large), 8192):
                yield large[start : start + 8192].encode()

        answer = collector.http.patch(hotspot, content=in_chunks())
        assert (answer.status_code, answer.json()["status"]) == (413, 413)
        url = httpx.URL(collector.url)
        with contextlib.closing(http.client.HTTPConnection(url.host, url.port, timeout=DEADLINE_S)) as connection:
            connection.request("GET", "/hotspots?q=" + "x" * 50_000)
            assert connection.getresponse().status == 414
        assert collector.http.patch(hotspot, json={"note": "fits"}).status_code == 200


async def test_times_are_limited():
    async def slow_app(_scope, receive, send):
        await receive()
        await asyncio.Event().wait()

    async def ask(receive, **limits) -> list:
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "query_string": b"", "raw_path": b"/", "headers": [], "path": "/", "method": "GET"}
        await Limits(slow_app, **limits)(scope, receive, send)
        return sent

    async def empty_body():
        return {"type": "http.request", "body": b"", "more_body": False}

    start, body = await ask(empty_body, answer_timeout_s=0.01)
    assert start["status"] == 503
    assert json.loads(body["body"])["title"] == "Service Unavailable"


def test_a_body_that_never_comes_is_given_up(tmp_path, monkeypatch):
    """With the real server; ten seconds are what the collector waits."""
    with run_collector(tmp_path) as collector:
        hotspot = add_hotspot(collector)
        url = httpx.URL(collector.url)
        with socket.create_connection((url.host, url.port), timeout=DEADLINE_S) as client:
            started_s = time.monotonic()
            client.sendall(
                f"PATCH /hotspots/{hotspot} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: 20\r\n\r\n{".encode()
            )
            answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started_s < DEADLINE_S


def test_trouble_of_the_database_is_a_503(tmp_path):
    with run_collector(tmp_path) as collector:
        add_hotspot(collector)
        with sqlite3.connect(collector.database) as database:
            database.execute("ALTER TABLE sites RENAME TO elsewhere")
        database.close()
        for path in ("/hotspots", "/services", "/operations", "/diff?base=2h/1h&head=1h/1m"):
            answer = collector.http.get(path)
            assert answer.status_code == 503, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"]
            assert "database" in answer.json()["detail"]
        assert collector.http.get("/metrics").status_code == 200
        with sqlite3.connect(collector.database) as database:
            database.execute("ALTER TABLE elsewhere RENAME TO sites")
        database.close()
        assert collector.http.get("/hotspots").status_code == 200
