"""Reading TOML files that people write: what is wrong is said with its place, and which key was meant."""

import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from aiocop_collector.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES: Final = 1 << 20


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The content. Raises SettingsError; `what` names the file in messages, like `the configuration`."""
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_MAX_BYTES).decode())
    except OSError as error:
        raise SettingsError(f"{what} {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{what} {path} is not TOML: {error}") from error


def explain(error: ValidationError, top: Iterable[str], tables: Mapping[str, Iterable[str]]) -> str:
    """The first thing that is wrong. `top` are the keys of the file itself, `tables` those of each kind of table."""
    first = error.errors()[0]
    where, *inside = first["loc"] or ("",)
    # What pydantic adds of its own ("constrained-int") names the type that was tried, and no key.
    inside = [part for part in inside if isinstance(part, int) or part.isidentifier()]
    place = str(where) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
    if first["type"] == "extra_forbidden":
        known = tables.get(str(where), top) if inside else top
        close = get_close_matches(str(first["loc"][-1]).lower(), list(known), n=1)
        return f"{place} is not a known key" + (f"; did you mean {close[0]}?" if close else "")
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}" if place else message
