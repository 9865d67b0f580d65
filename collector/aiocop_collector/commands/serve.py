"""`aiocop-collector serve`: its flags."""

from pathlib import Path
from typing import Annotated, Any

import typer

from aiocop_collector.commands.running import configure_logging, run
from aiocop_collector.commands.serving import serve_until_stopped
from aiocop_collector.settings import load_settings
from aiocop_wire import DEFAULT_HTTP_PORT


def serve(
    listen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where agents report: `unix:///PATH` or `udp://HOST:PORT`; may be repeated. "
            "Default: `/run/aiocop/collector.sock`, else `$XDG_RUNTIME_DIR/aiocop/collector.sock`. "
            "[env: AIOCOP_LISTEN]",
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help=f"Where the API is served. Default: `127.0.0.1:{DEFAULT_HTTP_PORT}`. [env: AIOCOP_HTTP]",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="`sqlite:///FILE` or `postgresql://USER@HOST/NAME`. "
            "Default: a file in the user's data directory. [env: AIOCOP_DATABASE]",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with mode 0600 that holds the tokens requests need; required for `--http` on anything "
            "but loopback. Default: none. [env: AIOCOP_TOKEN_FILE]",
        ),
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long day totals are kept, like `30d` or `12h`; hours are kept for at most 14 days, minutes for "
            "at most 3. Default: `30d`. [env: AIOCOP_RETENTION]",
        ),
    ] = None,
    socket_mode: Annotated[
        str | None,
        typer.Option(
            metavar="OCTAL",
            help="Permissions of the Unix sockets: who may write to one may report. Default: `0660`. "
            "[env: AIOCOP_SOCKET_MODE]",
        ),
    ] = None,
    socket_group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="Group of the Unix sockets, by name or number; the collector's user must be a member. "
            "Default: its own. [env: AIOCOP_SOCKET_GROUP]",
        ),
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Push the metrics of `/metrics` there as well, in OTLP over HTTP: `http://127.0.0.1:4318`. Needs the "
            "extra `[otlp]`. Default: nowhere. [env: AIOCOP_OTLP_ENDPOINT]",
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file of rules: owners of code by path, ignored code, severities of operations; read again "
            "when it changes. Default: none. [env: AIOCOP_RULES]",
        ),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="How large the store may be, like `10GiB` or `500MB`; above it the oldest minutes go, then the oldest "
            "hours, then days. `0`: no limit. Default: `10GiB`. [env: AIOCOP_MAX_SIZE]",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with any of these settings, and with webhooks, budgets and metrics. Default: none. "
            "[env: AIOCOP_CONFIG]",
        ),
    ] = None,
    udp_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file with mode 0600 that holds the key agents seal their datagrams with; required for "
            "`--listen udp://` on anything but loopback. Default: none. [env: AIOCOP_UDP_KEY_FILE]",
        ),
    ] = None,
) -> None:
    """Run the collector until SIGTERM or Ctrl-C.

    Prints one line per address really bound when it is ready, all else to stderr. Port 0 picks a free port.

    **Examples**

    Beside one service, all defaults: `aiocop-collector serve`

    Agents of other containers over UDP: `aiocop-collector serve --listen udp://127.0.0.1:8718`

    A socket and a database of one's own:
    `aiocop-collector serve --listen unix:///tmp/aiocop.sock --database sqlite:////tmp/aiocop.sqlite3`

    Reachable from elsewhere: `aiocop-collector serve --http 0.0.0.0:8717 --token-file /etc/aiocop/token`
    """
    configure_logging()
    flags = {
        "listen": listen or None,
        "http": http,
        "database": database,
        "token_file": token_file,
        "retention": retention,
        "socket_mode": socket_mode,
        "socket_group": socket_group,
        "otlp_endpoint": otlp_endpoint,
        "rules": rules,
        "max_size": max_size,
        "config": config,
        "udp_key_file": udp_key_file,
    }
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    raise typer.Exit(run(lambda: serve_until_stopped(load_settings(given))))
