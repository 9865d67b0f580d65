"""`aiocop-collector hotspots`: the table of what freezes loops, as a collector answers it over HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from aiocop_collector.answers.words import STATUSES
from aiocop_collector.commands.client import DEFAULT_URL, Client, Parameters, RefusedQuestionError
from aiocop_collector.commands.hotspots_table import render_hotspots
from aiocop_collector.errors import CollectorError

__all__ = ["hotspots", "render_hotspots"]

_Names = list[str] | None
_WINDOW = ("since", "until")


def hotspots(
    *,
    url: Annotated[str, typer.Option(metavar="URL", help="Where the collector answers.")] = DEFAULT_URL,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="An age (15m, 24h, 7d) or an RFC 3339 time. Default: 24h.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Like --since. Default: now.")] = None,
    service: Annotated[_Names, typer.Option(metavar="NAME", help="Only this service; may be repeated.")] = None,
    environment: Annotated[_Names, typer.Option(metavar="NAME", help="Only this environment; may be repeated.")] = None,
    release: Annotated[_Names, typer.Option(metavar="NAME", help="Only this release; may be repeated.")] = None,
    operation: Annotated[
        _Names, typer.Option(metavar="NAME", help="Only this operation, such as open; may be repeated.")
    ] = None,
    reason: Annotated[
        _Names, typer.Option(metavar="REASON", help="io_blocking or cpu_blocking; may be repeated.")
    ] = None,
    status: Annotated[
        _Names,
        typer.Option(metavar="STATUS", help=f"{', '.join(STATUSES)}; may be repeated. Default: all but ignored."),
    ] = None,
    q: Annotated[
        _Names,
        typer.Option("--q", "-q", metavar="TEXT", help="Part of a path, function or operation; may be repeated."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT", help="call_site (default), entry_point, operation, fingerprint, line, service or release."
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="blocked_time (default), count, slow_count, max, p99 or last_seen."),
    ] = None,
    order: Annotated[str | None, typer.Option(metavar="ORDER", help="desc (default) or asc.")] = None,
    limit: Annotated[int, typer.Option(metavar="ROWS", help="Rows shown, at most 1000.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's answer instead of a table.")] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the collector's token. Default: the variable AIOCOP_TOKEN."),
    ] = None,
) -> None:
    """Show which call sites freeze event loops, and what they cost.

    Exit codes: 0 with an answer, 2 for a question that cannot be answered, 3 when no collector answers.
    """
    filters = {
        "service": service,
        "environment": environment,
        "release": release,
        "operation": operation,
        "reason": reason,
        "status": status,
        "q": q,
    }
    single = {"since": since, "until": until, "group_by": group_by, "sort": sort, "order": order, "limit": str(limit)}
    parameters = [(name, value) for name, value in single.items() if value is not None]
    parameters += [(name, value) for name, values in filters.items() for value in values or ()]
    try:
        with Client(url, token=_token(token_file)) as client:
            text = client.get_text("/hotspots", parameters)
            if as_json:
                typer.echo(text)
                return
            answer = client.decode(text)
            console = Console()
            if answer["hotspots"]:
                render_hotspots(answer, console)
            else:
                console.print(Text(explain_empty(client, parameters)), soft_wrap=not console.is_terminal)
    except CollectorError as error:
        typer.echo(f"aiocop-collector: {error}", err=True)
        raise typer.Exit(error.exit_code) from error


def explain_empty(client: Client, parameters: Parameters) -> str:
    """Why an answer has no rows: nobody reports, nothing froze, or the filter hides what did."""
    known = client.get("/agents", [("limit", "1")])["total"]
    if not known:
        return (
            "No agent has ever reported to this collector. "
            'Add "import aiocop; aiocop.start()" to a service, and see that both use the same address.'
        )
    window = [(name, value) for name, value in parameters if name in _WINDOW]
    statuses = [("status", status) for status in STATUSES]
    everything = client.get("/hotspots", [*window, *statuses, ("limit", "1")])
    hidden = everything["total"]
    if not hidden:
        since, until = everything["window"]["since"], everything["window"]["until"]
        agents = "1 agent is known" if known == 1 else f"{known} agents are known"
        return f"Nothing froze a loop from {since} to {until}; {agents} to this collector."
    sites = "1 call site" if hidden == 1 else f"{hidden} call sites"
    return (
        f"The filter hides everything: {sites} froze loops in this window, and none of them matches. "
        "Ignored ones are shown by --status ignored."
    )


def _token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get("AIOCOP_TOKEN") or None
    try:
        return token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise RefusedQuestionError(f"--token-file: {token_file} cannot be read: {reason}") from error
