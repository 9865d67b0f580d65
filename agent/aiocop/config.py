"""The agent's configuration: what an option does, where its value comes from, and what is wrong with it.

Arguments win over environment variables, these over defaults. `OPTIONS` states each option once; documentation and
`--info` are made from it. An empty environment variable is an unset one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from aiocop.errors import ConfigurationError
from aiocop.udp_key import UdpKey, read_key, read_key_file
from aiocop_wire import Address, AddressError, default_socket_paths, parse_address
from aiocop_wire.light_typing import NamedTuple
from aiocop_wire.limits import MAX_NAME

_ARGUMENT: Final = "argument"
_DEFAULT: Final = "default"
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")

_T = TypeVar("_T")


class Option(NamedTuple):
    """One thing that can be set."""

    name: str
    """The argument of `start()`, and the field of Configuration."""
    variables: tuple[str, ...]
    """Environment variables, the first that is set wins. `NAME[key]` is one of OpenTelemetry's resource attributes."""
    default: str
    """What holds without any of them, in words."""
    effect: str
    secret: bool = False
    """Neither a message nor `--info` shows its value, and no command line takes it."""


OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        "service",
        ("AIOCOP_SERVICE", "OTEL_SERVICE_NAME", "DD_SERVICE"),
        "the program's name",
        "Name of the service whose loops are watched; hotspots are kept apart by it.",
    ),
    Option(
        "collector",
        ("AIOCOP_COLLECTOR",),
        "unix:///run/aiocop/collector.sock, then unix://$XDG_RUNTIME_DIR/aiocop/collector.sock",
        "Address of the collector that is reported to: unix:///PATH or udp://HOST:PORT.",
    ),
    Option(
        "environment",
        (
            "AIOCOP_ENVIRONMENT",
            "OTEL_RESOURCE_ATTRIBUTES[deployment.environment.name]",
            "OTEL_RESOURCE_ATTRIBUTES[deployment.environment]",
            "DD_ENV",
            "SENTRY_ENVIRONMENT",
        ),
        "empty",
        "Where the service runs, like prod or staging; hotspots are kept apart by it.",
    ),
    Option(
        "release",
        ("AIOCOP_RELEASE", "OTEL_RESOURCE_ATTRIBUTES[service.version]", "DD_VERSION", "SENTRY_RELEASE"),
        "empty",
        "Version of the service, so that a hotspot's first release can be told.",
    ),
    Option(
        "threshold_ms",
        ("AIOCOP_THRESHOLD_MS",),
        "30",
        "A slice that holds its loop longer than this many milliseconds is slow and reported as an event.",
    ),
    Option(
        "stall_after_ms",
        ("AIOCOP_STALL_AFTER_MS",),
        "1000",
        "A slice that holds its loop longer than this many milliseconds is reported while it still does.",
    ),
    Option(
        "enabled",
        ("AIOCOP_ENABLED",),
        "1",
        "0 turns everything off: nothing is patched, measured or shipped.",
    ),
    Option(
        "remote_control",
        ("AIOCOP_REMOTE_CONTROL",),
        "0",
        "1 lets the collector pause this agent, change its threshold and trace depth, and ask for captures.",
    ),
    Option(
        "overhead_budget_percent",
        ("AIOCOP_OVERHEAD_BUDGET_PERCENT",),
        "1",
        "Part of a loop's time that the agent may take before it looks less closely at blocking calls; 0: no limit.",
    ),
    Option(
        "application",
        ("AIOCOP_APPLICATION",),
        "empty",
        "Packages that are application code although they are installed like a library; comma separated.",
    ),
    Option(
        "ship_context",
        ("AIOCOP_SHIP_CONTEXT",),
        "none",
        "Names of context values that slow events may take along to the collector; comma separated, * for all.",
    ),
    Option(
        "ship_arguments",
        ("AIOCOP_SHIP_ARGUMENTS",),
        "none",
        "Operations whose arguments slow events may take along to the collector; comma separated, * for all.",
    ),
    Option(
        "udp_key_file",
        ("AIOCOP_UDP_KEY_FILE",),
        "none",
        "File that holds the key shared with a udp collector: with one, datagrams are authenticated.",
    ),
    Option(
        "udp_key",
        ("AIOCOP_UDP_KEY",),
        "none",
        "That key itself, where there is no file; the file wins.",
        secret=True,
    ),
)


class Configuration(NamedTuple):
    """What one `start()` works with."""

    service: str
    environment: str
    release: str
    collector: tuple[Address, ...]
    """Tried in this order at every connection attempt."""
    threshold_ms: float
    stall_after_ms: float
    enabled: bool
    remote_control: bool
    overhead_budget_percent: float
    application: tuple[str, ...]
    ship_context: tuple[str, ...]
    ship_arguments: tuple[str, ...]
    udp_key_file: str
    udp_key: UdpKey
    """What the file holds, else what was given directly."""
    shipping: bool
    """False when disabled, and when an environment variable is bad: see `problems`."""
    origins: Mapping[str, str]
    """Where each value came from, by option: `argument`, a variable's name, or `default`."""
    problems: tuple[str, ...]
    """A sentence for each bad environment variable. The agent logs them once."""

    @classmethod
    def resolve(
        cls,
        service: str | None = None,
        *,
        collector: str | None = None,
        environment: str | None = None,
        release: str | None = None,
        threshold_ms: float | None = None,
        stall_after_ms: float | None = None,
        enabled: bool | None = None,
        remote_control: bool | None = None,
        overhead_budget_percent: float | None = None,
        application: Sequence[str] = (),
        ship_context: Sequence[str] | None = None,
        ship_arguments: Sequence[str] | None = None,
        udp_key_file: str | None = None,
        udp_key: str | None = None,
        environ: Mapping[str, str] = os.environ,
        program: str | None = None,
    ) -> Configuration:
        """The configuration that these arguments and `environ` make.

        `program` is the name to fall back to, found from the command line when None. Raises ConfigurationError (a
        ValueError) for a bad argument; a bad environment variable becomes a problem and turns shipping off.
        """
        resolver = _Resolver(environ)
        default_service = _program_name() if program is None else program
        default_collector = tuple(_default_addresses(environ))
        values = {
            "service": resolver.find("service", service, _filled_name, _filled_name, default_service),
            "environment": resolver.find("environment", environment, _name, _name, ""),
            "release": resolver.find("release", release, _name, _name, ""),
        }
        names = application if isinstance(application, str) else tuple(application) or None
        key_file = resolver.find("udp_key_file", udp_key_file, _path, _path, "")
        key = resolver.find("udp_key", udp_key, read_key, read_key, UdpKey())
        if key_file:
            key = resolver.follow("udp_key_file", key_file, read_key_file, key)
        chosen_enabled = resolver.find("enabled", enabled, _flag, _flag_text, default=True)
        return cls(
            **values,
            collector=resolver.find("collector", collector, _address, _address, default_collector),
            threshold_ms=resolver.find("threshold_ms", threshold_ms, _threshold, _threshold_text, 30.0),
            stall_after_ms=resolver.find("stall_after_ms", stall_after_ms, _threshold, _threshold_text, 1000.0),
            enabled=chosen_enabled,
            remote_control=resolver.find("remote_control", remote_control, _flag, _flag_text, default=False),
            overhead_budget_percent=resolver.find(
                "overhead_budget_percent", overhead_budget_percent, _percent, _percent_text, 1.0
            ),
            application=resolver.find("application", names, _packages, _packages_text, ()),
            ship_context=resolver.find("ship_context", ship_context, _names, _names_text, ()),
            ship_arguments=resolver.find("ship_arguments", ship_arguments, _names, _names_text, ()),
            udp_key_file=key_file,
            udp_key=key,
            shipping=chosen_enabled and not resolver.problems,
            origins=resolver.origins,
            problems=tuple(resolver.problems),
        )


class _Resolver:
    """Finds the value of one option after the other and keeps where each came from and what was wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._variables = {option.name: option.variables for option in OPTIONS}
        self._secret = frozenset(option.name for option in OPTIONS if option.secret)
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []

    def find(
        self,
        name: str,
        argument: object,
        check_argument: Callable[[object], _T],
        parse_text: Callable[[str], _T],
        default: _T,
    ) -> _T:
        if argument is not None:
            try:
                value = check_argument(argument)
            except ValueError as error:
                raise ConfigurationError(f"start({name}={self._shown(name, argument)}): {error}") from None
            self.origins[name] = _ARGUMENT
            return value
        self.origins[name] = _DEFAULT
        for variable in self._variables[name]:
            text = _look_up(self._environ, variable)
            if not text:
                continue
            try:
                value = parse_text(text)
            except ValueError as error:
                self.problems.append(f"{variable}={self._shown(name, text)}: {error}")
                break
            self.origins[name] = variable
            return value
        return default

    def follow(self, name: str, path: str, read_file: Callable[[str], _T], default: _T) -> _T:
        """What the file holds that option `name` points to."""
        try:
            return read_file(path)
        except ValueError as error:
            origin = self.origins[name]
            if origin == _ARGUMENT:
                raise ConfigurationError(f"start({name}={path!r:.200}): {error}") from None
            self.problems.append(f"{origin}={path!r:.200}: {error}")
            return default

    def _shown(self, name: str, value: object) -> str:
        return "…" if name in self._secret else f"{value!r:.200}"


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {type(value).__name__}")
    if len(value) > MAX_NAME:
        raise ValueError(f"must have at most {MAX_NAME} characters")
    if not value.isascii() and value.encode("utf-8", "replace").decode() != value:
        raise ValueError("must be valid UTF-8")
    return value.strip()


def _filled_name(value: object) -> str:
    name = _name(value)
    if not name:
        raise ValueError("must not be empty")
    return name


def _path(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a file")
    return value


def _address(value: object) -> tuple[Address, ...]:
    if not isinstance(value, str):
        raise ValueError("must be a text like 'unix:///run/aiocop/collector.sock'")
    try:
        return (parse_address(value.strip()),)
    except AddressError as error:
        raise ValueError(str(error)) from None


def _threshold(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError("must be a number of milliseconds above 0")
    return float(value)


def _threshold_text(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number of milliseconds above 0, without a unit") from None
    return _threshold(value)


def _percent(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise ValueError("must be a number of percent from 0 to 100")
    return float(value)


def _percent_text(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("must be a number of percent from 0 to 100, without a unit") from None
    return _percent(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _flag_text(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"must be one of {', '.join(_TRUE + _FALSE)}")


def _packages(value: object) -> tuple[str, ...]:
    if not isinstance(value, tuple):
        raise ValueError('must be a sequence of package names, like ("shop",)')
    for name in value:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r:.80} is not the name of a package")
    return value


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (tuple, list, set, frozenset)):
        raise ValueError('must be a sequence of names, like ("route",)')
    return tuple([_filled_name(name) for name in value])


def _names_text(text: str) -> tuple[str, ...]:
    return tuple([_filled_name(name) for name in text.split(",") if name.strip()])


def _packages_text(text: str) -> tuple[str, ...]:
    return _packages(tuple(name.strip() for name in text.split(",") if name.strip()))


def _look_up(environ: Mapping[str, str], variable: str) -> str:
    name, bracket, key = variable.partition("[")
    text = environ.get(name, "")
    return _resource_attribute(text, key[:-1]) if bracket else text.strip()


def _resource_attribute(text: str, key: str) -> str:
    """One value of OTEL_RESOURCE_ATTRIBUTES: `key=value,…`, values percent-encoded (OpenTelemetry, Resource SDK)."""
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        if name.strip() == key:
            return _percent_decoded(value.strip())
    return ""


def _percent_decoded(text: str) -> str:
    """As urllib.parse.unquote, which would cost every service its import."""
    head, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    decoded = [head]
    for part in rest:
        try:
            decoded += (bytes.fromhex(part[:2].decode("ascii")), part[2:])
        except ValueError:
            decoded.append(b"%" + part)
    return b"".join(decoded).decode("utf-8", "replace")


def _default_addresses(environ: Mapping[str, str]) -> list[Address]:
    addresses: list[Address] = []
    for path in default_socket_paths(environ):
        try:
            addresses.append(parse_address(f"unix://{path}"))
        except AddressError:
            continue  # an $XDG_RUNTIME_DIR too long for a socket: no collector can listen there either
    return addresses


def _program_name() -> str:
    """What was started: the module after `-m`, the script's name, or `python`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name).removesuffix(".__main__")[:MAX_NAME]
    folder, file = os.path.split(sys.argv[0] if sys.argv else "")
    # `python -m shop` in a process that multiprocessing has spawned: only the path of shop/__main__.py is left.
    stem, extension = os.path.splitext(os.path.basename(folder) if file == "__main__.py" else file)
    name = stem if extension in (".py", ".pyc", ".pyz") else stem + extension
    return name[:MAX_NAME] if name and not name.startswith("-") else "python"
