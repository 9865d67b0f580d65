"""The command `hotspots` against a collector's API over real HTTP, as run in a terminal and in a pipe."""

import asyncio
import io
import json
import re
import socket
from contextlib import asynccontextmanager

import httpx
import pytest
import typer
from fastapi import FastAPI
from rich.console import Console
from tests.support.fill_store import fill
from tests.support.http_server import serve_http
from tests.support.known_activity import NOW_S, PLACES, Calls, Fleet, Process
from typer.testing import CliRunner

from aiocop_collector.answers.models import HotspotsAnswer
from aiocop_collector.api import build_router, install_problem_handlers
from aiocop_collector.api.security import BearerTokens
from aiocop_collector.commands.hotspots import hotspots, render_hotspots
from aiocop_collector.commands.hotspots_table import human_duration, share_bar
from aiocop_collector.queries import Queries
from aiocop_collector.store.database import open_engine
from aiocop_collector.tokens import Token, digest_of

MINUTE_S = NOW_S // 60 * 60
SHOP = Process("shop", "prod", "1.4.0", 1)
LONG = PLACES[0].__class__(
    "shop/" + "deeply/" * 12 + "nested.py", "a_function_with_quite_a_long_name", 1234, "sqlite3.connect",
    ("sqlite3/dbapi2.py", 1, "connect"), advice="Use a very patient database driver, " * 5,
)  # fmt: skip
FLEET = Fleet(
    (
        Calls(SHOP, PLACES[0], MINUTE_S, (58_000_000, 112_700), 2),
        Calls(SHOP, PLACES[3], MINUTE_S, (9_000_000,) * 1500, 1500),
        Calls(SHOP, LONG, MINUTE_S, (400,), 0),
        Calls(SHOP, PLACES[4], MINUTE_S, (700,), 0),
    ),
    {("shop", "prod", "shop/stock.py", "count_100%_of_it"): "ignored"},
)

cli = typer.Typer()
cli.command()(hotspots)


def make_app(url):
    engine = open_engine(url)

    @asynccontextmanager
    async def lifespan(_app):
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.include_router(build_router(Queries(engine, clock_s=lambda: NOW_S)))
    install_problem_handlers(app)
    return app


@pytest.fixture
def make_store(tmp_path):
    def make(fleet):
        url = f"sqlite+aiosqlite:///{tmp_path}/collector.db"
        asyncio.run(fill(url, fleet))
        return url

    return make


@pytest.fixture
def collector(make_store):
    """The URL of a collector's API with the activity above."""
    with serve_http(make_app(make_store(FLEET))) as url:
        yield url


def run(*arguments, **variables):
    environment = {"NO_COLOR": None, "FORCE_COLOR": None, "AIOCOP_TOKEN": None, "COLUMNS": None, **variables}
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], env=environment)


def terminal(width, **options):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system="truecolor", **options)


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_pipe_gets_whole_plain_lines(collector):
    result = run("--url", collector)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    heading, *rows = result.stdout.splitlines()
    assert re.split(r"  +", heading.strip()) == [
        "#", "Call site", "Service", "Operations", "Blocked", "Share", "Count", "Slow", "p99", "Max", "Last seen",
    ]  # fmt: skip
    cells = [re.split(r"  +", row.strip()) for row in rows[:3]]
    assert cells[0] == [
        "1", "shop/orders.py:99:Order.total", "shop/prod", "cpu", "3.8 h", "██████████ 100%", "1,500", "1,500",
        "8.9 s", "9.0 s", "2026-01-31 12:34:00Z",
    ]  # fmt: skip
    assert cells[1][:5] == ["2", "shop/orders.py:42:create_order", "shop/prod", "socket.getaddrinfo", "58.1 s"]
    assert cells[2][:5] == ["3", LONG.call_site, "shop/prod", "sqlite3.connect", "0.4 ms"]
    assert rows[3] == "3 rows, 2026-01-30T12:00:00Z to 2026-01-31T13:00:00Z"
    assert rows[-3:] == ["What to use instead", "  #2  Use httpx.", f"  #3  {LONG.advice}"]


def test_a_pipe_gets_the_same_whatever_width_the_environment_claims(collector):
    assert run("--url", collector, COLUMNS="40").stdout == run("--url", collector).stdout


@pytest.mark.parametrize("width", [80, 100, 150, 260])
def test_a_terminal_of_any_width_shows_all_of_every_name(collector, width):
    answer = httpx.get(f"{collector}/hotspots").json()
    console = terminal(width)
    render_hotspots(answer, console)
    lines = without_colours(console.file.getvalue()).splitlines()
    assert max(len(line) for line in lines) <= width
    everything = "".join(line.replace(" ", "") for line in lines)
    assert "shop/orders.py:99:Order.total" in everything
    # A name longer than its column is folded, never cut.
    assert "…" not in everything
    assert all(part in everything for part in ("58.1s", "3.8h", "1,500", "Usehttpx."))
    # Where there is no room for a column each, service and operations go under the name.
    assert ("p99" in everything) == (width == 260)
    assert ("shop/prod·socket.getaddrinfo" in everything) == (width < 260)


def test_colours_are_for_terminals_that_want_them(collector):
    answer = HotspotsAnswer.model_validate(httpx.get(f"{collector}/hotspots").json())
    colourful, plain = terminal(160), terminal(160, no_color=True)
    render_hotspots(answer, colourful)
    render_hotspots(answer, plain)
    assert "\x1b[1;31mshop/orders.py:42:create_order" in colourful.file.getvalue()
    assert "31m" not in plain.file.getvalue()
    assert "\x1b[1;31m" in run("--url", collector, FORCE_COLOR="1", COLUMNS="160", TERM="xterm-256color").stdout
    assert "31m" not in run("--url", collector, FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color").stdout


def test_json_is_the_answer_as_it_came(collector):
    result = run("--url", collector, "--json", "--limit", 2, "--sort", "count", "--order", "asc")
    assert result.exit_code == 0
    expected = httpx.get(f"{collector}/hotspots", params={"limit": 2, "sort": "count", "order": "asc"})
    assert result.stdout == expected.text + "\n"
    assert [row["count"] for row in json.loads(result.stdout)["hotspots"]] == [1, 2]


def test_filters_and_groupings_reach_the_collector(collector):
    def shown(*arguments):
        rows = json.loads(run("--url", collector, "--json", *arguments).stdout)["hotspots"]
        return [row.get("key") or row["call_site"] for row in rows]

    assert shown("--operation", "cpu", "--operation", "sqlite3.connect", "--service", "shop") == [
        "shop/orders.py:99:Order.total",
        LONG.call_site,
    ]
    assert shown("--group-by", "operation", "-q", "orders") == ["cpu", "socket.getaddrinfo"]
    assert shown("--status", "ignored", "--environment", "prod", "--release", "1.4.0") == [PLACES[4].call_site]
    assert shown("--reason", "cpu_blocking", "--since", "1h", "--until", "2026-01-31T12:35:00Z") == [
        "shop/orders.py:99:Order.total"
    ]
    grouped = run("--url", collector, "--group-by", "operation").stdout
    assert grouped.startswith("#  Operation ")
    assert "1  cpu " in grouped


def test_an_empty_answer_says_that_nobody_ever_reported(make_store):
    with serve_http(make_app(make_store(Fleet(())))) as url:
        result = run("--url", url)
    assert result.exit_code == 0
    assert result.stdout.startswith("No agent has ever reported to this collector. ")
    assert result.stdout.count("\n") == 1


def test_an_empty_answer_says_that_nothing_froze(collector):
    result = run("--url", collector, "--since", "2h", "--until", "1h", "--service", "shop")
    assert result.stdout == (
        "Nothing froze a loop from 2026-01-31T10:34:00Z to 2026-01-31T11:35:00Z; 1 agent is known to this collector.\n"
    )


def test_an_empty_answer_says_that_the_filter_hides_what_froze(collector):
    result = run("--url", collector, "--service", "billing")
    assert result.exit_code == 0
    assert result.stdout.startswith("The filter hides everything: 4 call sites froze loops in this window")
    assert json.loads(run("--url", collector, "--service", "billing", "--json").stdout)["hotspots"] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--sort", "blocked"], "did you mean blocked_time?"),
        (["--since", "yesterday"], "since: 'yesterday' is not a time"),
        (["--limit", "0"], "limit"),
        (["--limit", "many"], "limit"),
        (["--nonsense"], "--nonsense"),
        (["--token-file", "/nowhere/token"], "--token-file: /nowhere/token cannot be read: No such file or directory"),
    ],
)
def test_a_question_that_cannot_be_answered_exits_2(collector, arguments, text):
    result = run("--url", collector, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert text in without_colours(result.stderr)


@pytest.mark.parametrize("url", ["not a url", "ftp://127.0.0.1", "http://127.0.0.1:99999", "127.0.0.1:8717", ""])
def test_a_url_that_is_none_exits_2(url):
    result = run("--url", url)
    assert result.exit_code == 2, result.output
    assert "--url" in result.stderr
    assert result.stderr.count("\n") == 1


def test_nobody_there_exits_3_with_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets the port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        result = run("--url", url, http_proxy="http://127.0.0.1:1")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"No collector answers at {url}" in result.stderr


def test_something_else_there_exits_3():
    async def other(scope, receive, send):
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<html>hello</html>"})

    with serve_http(other) as url:
        result = run("--url", url)
    assert result.exit_code == 3
    assert "is not a collector" in result.stderr


def test_the_token_comes_from_a_file_or_the_environment(make_store, tmp_path):
    app = make_app(make_store(FLEET))
    app.add_middleware(BearerTokens, tokens=[Token("ci", "read", digest_of("secret"))])
    (tmp_path / "token").write_text("secret\n")
    with serve_http(app) as url:
        assert run("--url", url, AIOCOP_TOKEN="secret").exit_code == 0
        assert run("--url", url, "--token-file", tmp_path / "token").exit_code == 0
        refused = run("--url", url, AIOCOP_TOKEN="wrong")
    assert refused.exit_code == 2
    assert "token" in refused.stderr


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"), (0.0, "0.0 ms"), (0.04, "0.0 ms"), (31.24, "31.2 ms"), (999.94, "999.9 ms"), (1000.0, "1.0 s"),
        (58_112.7, "58.1 s"), (119_999.0, "120.0 s"), (120_000.0, "2.0 min"), (7_200_000.0, "2.0 h"),
        (360_000_000.0, "100.0 h"),
    ],
)  # fmt: skip
def test_durations_for_people(ms, text):
    assert human_duration(ms) == text


@pytest.mark.parametrize(
    ("share", "bar"), [(0, " " * 10), (1, "█" * 10), (0.5, "█████     "), (0.01, "▏         "), (0.613, "██████▏   ")]
)
def test_shares_as_bars(share, bar):
    assert share_bar(share) == bar
