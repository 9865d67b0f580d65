"""Modules that are imported when they are needed, and not by an import statement at the top of a file.

A collector is to serve within a second, and nearly all of a start is importing. What only some starts need must not
cost all of them, so these are loaded here, by name, and nowhere else:

    commands.cli                    by __main__.py, which first says in one sentence what is not installed
    commands.*                      by commands/cli.py, which knows only when it has read the arguments which one runs
    otlp                            by app.py, with --otlp-endpoint (OpenTelemetry's SDK)
    asyncpg                         by store/driver.py, with PostgreSQL, for its errors: SQLAlchemy loaded it before
    store.migrations.upgrading      by store/migrations, for a database that is not up to date (Alembic, Mako)
    webhooks.courier                by collector.py, with webhooks (httpx, stamina, standardwebhooks)

A test starts a collector and sees that these, and what they bring along, are not there.
"""

import importlib
from types import ModuleType


def load(name: str) -> ModuleType:
    """One of the modules above."""
    return importlib.import_module(name)


def load_fastapi() -> None:
    """Call before anything imports it. Its models of OpenAPI's specification, a twelfth of a start, are made when the
    first is used, which is when somebody asks for `/openapi.json`: while it is imported, models are told to wait, in
    the way of pydantic's own `defer_build`. Ours, made before or after, are not touched.
    """
    base = importlib.import_module("pydantic").BaseModel
    base.model_config["defer_build"] = True
    try:
        importlib.import_module("fastapi.openapi.models")
    finally:
        del base.model_config["defer_build"]
