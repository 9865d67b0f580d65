"""The TOML file of `--config`: every flag of `serve` by its name, and what has no flag.

    http = "127.0.0.1:8717"              # flags and environment variables win over the file
    public_url = "https://aiocop.example"  # of this collector, for links in messages

    [metrics]
    call_sites = 50

    [[webhooks]]
    name = "ops"
    url = "https://hooks.example/aiocop"
    format = "json"                      # json, slack or discord
    secret_file = "/etc/aiocop/webhook"  # or secret_env = "NAME"; json only: whsec_…, see standardwebhooks.com
    events = ["new_hotspot", "regressed", "stall_in_progress", "budget_exceeded"]
    services = ["shop"]                  # default: all
    min_stall_ms = 5000                  # shorter freezes are not told of while they last
    max_per_minute = 30

    [[budgets]]
    service = "shop"
    environment = "prod"
    blocked_share = 0.05                 # of its processes' time
    window_minutes = 5

A key nobody knows is an error that says which one was probably meant.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, ValidationError, model_validator

from aiocop_collector.errors import SettingsError
from aiocop_collector.toml_file import explain, read_toml

Event = Literal["new_hotspot", "regressed", "stall_in_progress", "budget_exceeded"]
Format = Literal["json", "slack", "discord"]


def _no_trailing_slash(text: str) -> str:
    return text.rstrip("/")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Webhook(_Table):
    """Who is told of events."""

    name: str = Field(min_length=1, max_length=64)
    url: HttpUrl
    format: Format = "json"
    secret_file: Path | None = None
    secret_env: str | None = None
    events: tuple[Event, ...] = ("new_hotspot", "regressed", "stall_in_progress", "budget_exceeded")
    services: tuple[str, ...] = ()
    min_stall_ms: int = Field(default=5_000, ge=1, le=86_400_000)
    max_per_minute: int = Field(default=30, ge=1, le=10_000)

    @model_validator(mode="after")
    def _signed_as_it_can_be(self) -> "Webhook":
        if self.secret_file is not None and self.secret_env is not None:
            raise ValueError("secret_file and secret_env are two places for one secret: give one")
        if self.format != "json" and (self.secret_file is not None or self.secret_env is not None):
            raise ValueError(f"{self.format} checks no signature: a secret goes with the json format only")
        return self

    def wants(self, event: str, service: str) -> bool:
        return event in self.events and (not self.services or service in self.services)

    def secret(self) -> str | None:
        """Its signing secret. Raises SettingsError when it cannot be read."""
        if self.secret_file is not None:
            try:
                text = self.secret_file.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"the secret of webhook {self.name} cannot be read: {error}") from error
        elif self.secret_env is not None:
            text = os.environ.get(self.secret_env, "")
        else:
            return None
        if not text.strip():
            raise SettingsError(f"the secret of webhook {self.name} is empty")
        return text.strip()


class Budget(_Table):
    """How much of its processes' time a service may be frozen."""

    service: str
    environment: str = ""
    blocked_share: float = Field(gt=0, le=1)
    window_minutes: int = Field(default=5, ge=1, le=1440)


class MetricsTable(_Table):
    """What `GET /metrics` shows."""

    call_sites: int = Field(default=50, ge=0, le=1000)


class ConfigFile(_Table):
    """What a file said, without the settings that have flags."""

    public_url: Annotated[str, Field(pattern="^https?://"), AfterValidator(_no_trailing_slash)] | None = None
    metrics: MetricsTable = Field(default_factory=MetricsTable)
    webhooks: tuple[Webhook, ...] = ()
    budgets: tuple[Budget, ...] = ()

    @model_validator(mode="after")
    def _names_are_told_apart(self) -> "ConfigFile":
        names = [webhook.name for webhook in self.webhooks]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two webhooks are named {twice.pop()!r}")
        return self


def read_config(path: Path | None, settings_names: Iterable[str] = ()) -> tuple[ConfigFile, Mapping[str, Any]]:
    """What the file says, and those of its values that have flags. Raises SettingsError."""
    if path is None:
        return ConfigFile.model_construct(), {}
    content = read_toml(path, "the configuration")
    names = set(settings_names)
    settings = {name: value for name, value in content.items() if name in names}
    rest = {name: value for name, value in content.items() if name not in names}
    try:
        return ConfigFile.model_validate(rest), settings
    except ValidationError as error:
        tables: dict[str, type[BaseModel]] = {"webhooks": Webhook, "budgets": Budget, "metrics": MetricsTable}
        keys = {name: tuple(table.model_fields) for name, table in tables.items()}
        why = explain(error, [*ConfigFile.model_fields, *names], keys)
        raise SettingsError(f"the configuration {path}: {why}") from error
