"""What the collector says while it runs: one line for what happened, with the facts about it, on stderr.

    2026-03-01T09:30:00.123456Z [warning  ] commit failed, will be tried again error='database is locked: …' since=3

For people, and for grep: the words are always the same, and what differs is a fact with a name. A few lines above the
standard library's logging, whose handlers and levels hold here too; structlog, which writes such lines, brings Rich
along, and the two took a twentieth of a start.
"""

import logging
import os
import sys
from datetime import datetime, timezone
from typing import Final

_NAME: Final = "aiocop_collector"
_QUOTED: Final = frozenset(" \t\r\n=\"'")
_EVENT_WIDTH: Final = 30
_COLOURS: Final = {"info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_BOLD: Final = "\x1b[1m"
_RESET: Final = "\x1b[0m"


class Log:
    """Of one part of the collector."""

    def __init__(self, part: str = "") -> None:
        self._logger = logging.getLogger(f"{_NAME}.{part}" if part else _NAME)

    def info(self, event: str, **facts: object) -> None:
        """Something that whoever runs the collector may want to know."""
        self._say(logging.INFO, event, facts)

    def warning(self, event: str, **facts: object) -> None:
        """Something that should not be, and that the collector gets along with."""
        self._say(logging.WARNING, event, facts)

    def error(self, event: str, *, exc_info: BaseException | None = None, **facts: object) -> None:
        """Something that somebody must look at; with a traceback, where it is a defect."""
        self._say(logging.ERROR, event, facts, exc_info)

    def _say(self, level: int, event: str, facts: dict[str, object], exc_info: BaseException | None = None) -> None:
        self._logger.log(level, event, exc_info=exc_info, extra={"facts": facts})


class _Lines(logging.Formatter):
    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="microseconds")
        level = record.levelname.lower()
        event = f"{record.getMessage():<{_EVENT_WIDTH}}"
        shown_level = f"{level:<9}"
        if self._colours:
            shown_level = f"{_COLOURS.get(level, '')}{shown_level}{_RESET}"
            event = f"{_BOLD}{event}{_RESET}"
        facts: dict[str, object] = getattr(record, "facts", {})
        words = [f"{name}={_shown(facts[name])}" for name in sorted(facts)]
        line = " ".join([at.replace("+00:00", "Z"), f"[{shown_level}]", event, *words]).rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _shown(value: object) -> str:
    if isinstance(value, str) and not _QUOTED.intersection(value):
        return value
    return repr(value)


def _wants_colours() -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stderr.isatty()


def configure_log() -> None:
    """Write it all to stderr, in colours on a terminal (NO_COLOR: never; FORCE_COLOR: always). Repeated calls are
    harmless.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(colours=_wants_colours()))
    logger = logging.getLogger(_NAME)
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
