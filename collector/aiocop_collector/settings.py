"""Configuration of `aiocop-collector serve`: a flag wins over its environment variable, this over the file, this over
the default.

| flag           | environment         | default                                                                   |
| -------------- | ------------------- | ------------------------------------------------------------------------- |
| `--listen`     | `AIOCOP_LISTEN`     | `/run/aiocop/collector.sock`, else `$XDG_RUNTIME_DIR/aiocop/collector.sock` |
| `--http`       | `AIOCOP_HTTP`       | `127.0.0.1:8717`                                                          |
| `--database`   | `AIOCOP_DATABASE`   | `sqlite:///` and `collector.sqlite3` in the user's data directory         |
| `--token-file` | `AIOCOP_TOKEN_FILE` | none: loopback only                                                       |
| `--retention`  | `AIOCOP_RETENTION`  | `30d`                                                                     |
| `--socket-mode` | `AIOCOP_SOCKET_MODE` | `0660`: the collector's user and group may connect                      |
| `--socket-group` | `AIOCOP_SOCKET_GROUP` | none: the group that new files of the collector's user have           |
| `--otlp-endpoint` | `AIOCOP_OTLP_ENDPOINT` | none: metrics are pushed to nobody (otlp.py)                      |
| `--rules`      | `AIOCOP_RULES`      | none: a TOML file of owners, ignored code and severities (rules_file.py)    |
| `--max-size`   | `AIOCOP_MAX_SIZE`   | `10GiB`                                                                   |
| `--config`     | `AIOCOP_CONFIG`     | none: a TOML file with any of these, and what has no flag (config_file.py) |
| `--udp-key-file` | `AIOCOP_UDP_KEY_FILE` | none: udp on loopback only                                            |
| none           | `AIOCOP_UDP_KEY`    | none; for where there are no files, the file wins                         |

Several addresses in `AIOCOP_LISTEN` are separated by commas.
"""

import ipaddress
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import platformdirs
from pydantic import BeforeValidator, ByteSize, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pytimeparse.timeparse import timeparse as parse_duration

from aiocop_collector.config_file import read_config
from aiocop_collector.errors import SettingsError
from aiocop_wire import DEFAULT_HTTP_PORT, Address, AddressError, parse_address

ENVIRONMENT_PREFIX: Final = "AIOCOP_"
_SHORTEST_RETENTION: Final = timedelta(hours=1)
_MAX_SECRETS_CHARACTERS: Final = 1 << 20
_LONGEST_RETENTION: Final = timedelta(days=3650)
_SMALLEST_SIZE_BYTES: Final = 16 << 20
_SIZE: Final = TypeAdapter(ByteSize)


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where the API is served. Port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there: all addresses the name stands for are loopback ones."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False  # it cannot be bound either; that error names the host
    return all(ipaddress.ip_address(str(item[4][0]).partition("%")[0]).is_loopback for item in found)


def default_database() -> str:
    """A file in the user's data directory, as a URL."""
    return f"sqlite:///{platformdirs.user_data_path('aiocop') / 'collector.sqlite3'}"


def _read_listen(value: object) -> tuple[Address, ...]:
    if isinstance(value, str):
        value = [part for part in value.replace(",", " ").split() if part]
    if not isinstance(value, (list, tuple)):
        raise TypeError("addresses are expected, like unix:///run/aiocop/collector.sock")
    try:
        addresses = tuple([item if not isinstance(item, str) else parse_address(item) for item in value])
    except AddressError as error:
        raise ValueError(str(error)) from error
    twice = {str(address) for address in addresses if addresses.count(address) > 1 and not str(address).endswith(":0")}
    if twice:
        raise ValueError(f"{twice.pop()} is given twice")
    return addresses


def _read_http(value: object) -> HttpAddress:
    if isinstance(value, HttpAddress):
        return value
    example = f"an address is HOST:PORT, like 127.0.0.1:{DEFAULT_HTTP_PORT} or [::1]:{DEFAULT_HTTP_PORT}"
    parts = urlsplit(f"//{value}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(example) from error
    if not host or port is None or parts.path or parts.query or parts.username is not None:
        raise ValueError(example)
    return HttpAddress(host, port)


def _read_retention(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    seconds = parse_duration(str(value))
    if seconds is None:
        raise ValueError("a duration is expected, like 30d, 12h or 2w")
    duration = timedelta(seconds=seconds)
    if not _SHORTEST_RETENTION <= duration <= _LONGEST_RETENTION:
        raise ValueError("it must be between one hour (1h) and ten years (3650d)")
    return duration


def _read_endpoint(value: object) -> str:
    parts = urlsplit(str(value))
    if value and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("an OTLP endpoint is a URL, like http://127.0.0.1:4318")
    return str(value)


def _read_mode(value: object) -> int:
    if isinstance(value, int):
        return value
    text = str(value)
    if not 3 <= len(text) <= 4 or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        raise ValueError("permissions are three octal digits, like 0660 or 0666")
    if not int(text, 8) & 0o200:
        raise ValueError("the owner must be allowed to write, like in 0660")
    return int(text, 8)


def read_size(value: object) -> int:
    """Bytes of a size as people write it; 0 for none. Raises ValueError."""
    if str(value).strip().lower() in ("0", "none"):
        return 0
    try:
        size_bytes = int(_SIZE.validate_python(value))
    except ValidationError as error:
        raise ValueError("a size is expected, like 10GiB or 500MB, or 0 for no limit") from error
    if size_bytes < _SMALLEST_SIZE_BYTES:
        raise ValueError("it must be 16MiB at least, or 0 for no limit")
    return size_bytes


class Settings(BaseSettings):
    """What one collector was told. Immutable; made by `load_settings` or, in tests, directly."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    listen: Annotated[tuple[Address, ...], NoDecode, BeforeValidator(_read_listen)] = ()
    """Where agents report. Empty: the first of the default sockets whose directory can be used."""
    http: Annotated[HttpAddress, NoDecode, BeforeValidator(_read_http)] = HttpAddress("127.0.0.1", DEFAULT_HTTP_PORT)
    """Where the API is served. Anything but loopback needs `token_file`."""
    database: str = ""
    """`sqlite:///FILE` or `postgresql://…`. Empty: a file in the user's data directory."""
    token_file: Path | None = None
    """A file, readable by its owner only, with the tokens of which every request but the health checks needs one (see
    tokens.py)."""
    retention: Annotated[timedelta, BeforeValidator(_read_retention)] = timedelta(days=30)
    """How long day totals are kept; hours and minutes are kept shorter (see retention.py)."""
    socket_mode: Annotated[int, BeforeValidator(_read_mode)] = 0o660
    """Permissions of the Unix sockets: who may write to one may report."""
    socket_group: str | None = None
    """Group of the Unix sockets, by name or number."""
    otlp_endpoint: Annotated[str, BeforeValidator(_read_endpoint)] = ""
    """Where metrics are pushed, `http://HOST:4318`. Empty: nowhere."""
    rules: Path | None = None
    """A TOML file that says who owns which code, what is ignored, and how severe operations are (see rules_file.py)."""
    max_size: Annotated[int, BeforeValidator(read_size)] = 10 << 30
    """How large the store may be in bytes, 0 for no limit: above it the oldest minutes go, then hours, then days (see
    pruning.py)."""
    config: Path | None = None
    """A TOML file: values for the settings above, and webhooks, budgets and metrics (see config_file.py)."""
    udp_key_file: Path | None = None
    """A file, readable by its owner only, whose text is the key that agents seal their datagrams with."""
    udp_key: SecretStr | None = None
    """That key itself. Never a flag: everybody on the host sees a command line."""


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Settings from the flags that were given, the environment and the defaults.

    `flags` holds only what was given on the command line. Raises SettingsError with one sentence that says whether the
    bad value came from a flag, from the environment or from the file.
    """
    path = flags.get("config") or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG") or None
    _, written = read_config(Path(path) if path else None, set(Settings.model_fields) - {"config"})
    from_file = {
        name: value
        for name, value in written.items()
        if name not in flags and not os.environ.get(f"{ENVIRONMENT_PREFIX}{name.upper()}")
    }
    try:
        return Settings(**{**from_file, **flags})
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        if field in from_file:
            raise SettingsError(f"the configuration {path}: {field}: {message}") from error
        raise SettingsError(f"{origin_of(field, flags)}: {message}") from error


def origin_of(field: str, flags: Mapping[str, Any]) -> str:
    """How the person who set `field` wrote it: `--retention 3x` or `environment variable AIOCOP_RETENTION`."""
    value = flags.get(field)
    flag = f"--{field.replace('_', '-')}"
    name = f"{ENVIRONMENT_PREFIX}{field.upper()}"
    if value is None:
        return f"environment variable {name}"
    return f"{flag} {value}" if isinstance(value, str) else flag


def read_private_file(path: Path, what: str) -> str:
    """The text of a file that holds secrets. Raises SettingsError, also when others can read it (mode not 0600).

    `what` names the file in messages, like `token file`.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(_MAX_SECRETS_CHARACTERS).strip()
    except OSError as error:
        raise SettingsError(f"the {what} {path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise SettingsError(f"the {what} {path} can be read by others (mode {mode:04o}): chmod 600 {path}")
    return text
