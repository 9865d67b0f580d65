"""How a command speaks and ends: logs go to stderr, and so does the one sentence of what is raised on purpose."""

import logging
import sys
from collections.abc import Callable

import typer

from aiocop_collector.errors import CollectorError
from aiocop_collector.log import configure_log

_INTERRUPTED = 130  # what a shell expects of SIGINT


def run(work: Callable[[], int]) -> int:
    """The exit code of `work`."""
    try:
        return work()
    except CollectorError as error:
        typer.echo(f"aiocop-collector: {error}", err=True)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED


def configure_logging() -> None:
    """Everything that is logged goes to stderr: stdout is for readiness lines and answers."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    configure_log()
