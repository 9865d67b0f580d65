"""`aiocop-collector token`: make a token; the secret goes to stdout, what is kept of it to stderr or a file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aiocop_collector.errors import SettingsError
from aiocop_collector.tokens import new_token


def token(
    name: Annotated[str, typer.Argument(help="Who it is for; shown in the history of decisions.")],
    role: Annotated[
        Literal["read", "admin"], typer.Option(help="`read` may ask, `admin` may also decide (PATCH).")
    ] = "read",
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Add the line to this token file, made with mode 0600 if missing."),
    ] = None,
) -> None:
    """Make a random token for the API. Only its hash is kept: it is shown once, here.

    `aiocop-collector token ci --role admin --file /etc/aiocop/tokens`, then `serve --token-file /etc/aiocop/tokens`.
    """
    try:
        text, made = new_token(name, role)
        if file is not None:
            file.touch(mode=0o600)
            with file.open("a", encoding="ascii") as lines:
                lines.write(f"{made.line()}\n")
    except (SettingsError, OSError) as error:
        typer.echo(f"aiocop-collector: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(text)
    if file is None:
        typer.echo(f"For the token file or AIOCOP_TOKENS: {made.line()}", err=True)
