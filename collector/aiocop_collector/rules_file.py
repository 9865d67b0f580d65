"""The TOML file of `--rules`: who owns which code, what is ignored, how severe something is held to be.

    [[rules]]
    path = "shop/payments/*"     # of the call site; `*` stands for any text, slashes too, `?` for one character
    owner = "payments"

    [[rules]]
    path = "shop/legacy/*"
    function = "warm_*"
    service = "shop"             # environment likewise
    ignore = true

    [[rules]]
    operation = "os.stat"
    severity = "low"             # low, medium, high, or a score from 0 to 100

A pattern that is not given matches everything. Of the rules that match, the last one that says something about a matter
decides it, as in a CODEOWNERS file. What a person decides with `PATCH /hotspots/{id}` wins over all of them.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aiocop_collector.errors import SettingsError
from aiocop_collector.log import Log
from aiocop_collector.toml_file import explain, read_toml

FOLLOW_INTERVAL_S: Final = 5.0
"""How often a changed file is looked for."""

_MAX_RULES: Final = 1_000
_SCORES: Final = {"low": 1, "medium": 10, "high": 50}

Glob = Annotated[str, Field(min_length=1, max_length=1000)]


class Rule(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    path: Glob = "*"
    function: Glob = "*"
    service: Glob = "*"
    environment: str = Field(default="*", max_length=1000)
    operation: Glob = "*"
    owner: str | None = Field(default=None, max_length=200)
    ignore: bool | None = None
    severity: Literal["low", "medium", "high"] | Annotated[int, Field(ge=0, le=100, strict=True)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Rule":
        if self.owner is None and self.ignore is None and self.severity is None:
            raise ValueError("a rule says who the owner is, whether to ignore, or a severity: give at least one")
        if self.operation != "*" and (self.owner is not None or self.ignore is not None):
            raise ValueError("an operation goes with a severity only: owners and ignored code are told by path")
        return self

    @property
    def score(self) -> int | None:
        return _SCORES[self.severity] if isinstance(self.severity, str) else self.severity

    @cached_property
    def _patterns(self) -> tuple[tuple[int, re.Pattern[str]], ...]:
        """Those that do not match everything, each with the position of its text."""
        globs = (self.path, self.function, self.service, self.environment, self.operation)
        return tuple((position, re.compile(translate(glob))) for position, glob in enumerate(globs) if glob != "*")

    def matches(self, texts: tuple[str, ...]) -> bool:
        """`texts` in the order of the patterns; the operation may be left out, whatever it is then matches."""
        return all(position >= len(texts) or pattern.match(texts[position]) for position, pattern in self._patterns)


@dataclass(frozen=True, slots=True)
class CallSite:
    """What rules about a hotspot look at."""

    path: str
    function: str
    service: str
    environment: str


class Rules(BaseModel):
    """What a file says."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    rules: tuple[Rule, ...] = Field(default=(), max_length=_MAX_RULES)

    def owner_of(self, site: CallSite) -> str:
        """Empty where no rule names one."""
        named = (rule.owner for rule in self._about(site) if rule.owner is not None)
        return next(named, "")

    def ignores(self, site: CallSite) -> bool:
        return next((rule.ignore for rule in self._about(site) if rule.ignore is not None), False)

    def severity_of(self, site: CallSite, operation: str) -> int | None:
        """The score, or None where the catalogue's own stands."""
        return next((rule.score for rule in self._about(site, operation) if rule.score is not None), None)

    def _about(self, site: CallSite, *operation: str) -> Iterator[Rule]:
        """Those that match, the last one of the file first. One at a time: whoever asks needs the first that speaks."""
        texts = (site.path, site.function, site.service, site.environment, *operation)
        return (rule for rule in reversed(self.rules) if rule.matches(texts))


def read_rules(path: Path) -> Rules:
    """Raises SettingsError, which says what is wrong and in which rule, counted from 0."""
    try:
        return Rules.model_validate(read_toml(path, "the rules file"))
    except ValidationError as error:
        why = explain(error, Rules.model_fields, {"rules": Rule.model_fields})
        raise SettingsError(f"the rules file {path}: {why}") from error


class RulesFile:
    """The file, and what it said when it was last good."""

    def __init__(self, path: Path) -> None:
        """Reads it. Raises SettingsError."""
        self._path = path
        self._seen = self._version()
        self.rules = read_rules(path)
        self._log = Log("rules")

    async def follow(self, use: Callable[[Rules], None]) -> None:
        """Tell `use` of each change, for ever. A file that is wrong is one logged error: the rules before it stay."""
        while True:
            await asyncio.sleep(FOLLOW_INTERVAL_S)
            changed = await asyncio.to_thread(self._reread)
            if changed is not None:
                self._log.info("rules changed", file=str(self._path), rules=len(changed.rules))
                use(changed)

    def _reread(self) -> Rules | None:
        seen = self._version()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            rules = read_rules(self._path)
        except SettingsError as error:
            self._log.error("the rules before stay in force", error=str(error))
            return None
        if rules == self.rules:
            return None
        self.rules = rules
        return rules

    def _version(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_size, status.st_mtime_ns)
