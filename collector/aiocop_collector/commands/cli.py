"""The command line: flags to settings, errors to one sentence and an exit code.

Exit codes: 0 success, 1 the environment refused (a port in use, a database that cannot be opened), 2 usage, 3 no
collector answers.
"""

import gc
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from aiocop_collector.deferred import load, load_fastapi
from aiocop_wire import __version__

_MARKUP: Final = "markdown"

_NAMES: Final = ("serve", "health", "hotspots", "token", "db")
"""Each is what a module of this package of the same name calls so: a function, or a group of commands."""


class _Commands(Mapping[str, Any]):
    """The commands by name, in the order that the help shows. One is imported when it is asked for: the help asks for
    all, who runs one needs that one only."""

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        if name == "serve":
            load_fastapi()
        made = getattr(load(f"aiocop_collector.commands.{name}"), name)
        alone = typer.Typer(rich_markup_mode=_MARKUP)
        if isinstance(made, typer.Typer):
            alone.add_typer(made, name=name)
        else:
            alone.command(name=name)(made)
        return get_group(alone).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


class _Group(TyperGroup):
    """What click calls a lazy group."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands()


app: Final = typer.Typer(
    cls=_Group,
    name="aiocop-collector",
    no_args_is_help=True,
    rich_markup_mode=_MARKUP,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 typer passes a flag's value by position
    if wanted:
        typer.echo(f"aiocop-collector {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[  # noqa: FBT002 typer makes a flag of it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Collects what freezes asyncio event loops, from every process, and answers which lines to fix.

    Start it with `aiocop-collector serve`, then add `import aiocop; aiocop.start(service="shop")` to a service.
    """
    if not gc.isenabled():
        gc.freeze()  # what was imported stays: it need never be looked through
        gc.enable()
