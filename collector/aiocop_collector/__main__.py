"""The console script `aiocop-collector`, also `python -m aiocop_collector`."""

import gc
import importlib.util
import sys
from typing import Final

from aiocop_collector.deferred import load

_NEEDED: Final = (
    "aiosqlite", "alembic", "fastapi", "httptools", "httpx", "platformdirs", "pydantic", "pydantic_settings",
    "pytimeparse", "rich", "sqlalchemy", "typer", "uvicorn", "uvloop",
)  # fmt: skip
"""What the extra [collector] installs: the agent's installation brings none of it."""


def main() -> None:
    """Run the command line, or say in one sentence which extra is missing and exit with 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            "aiocop-collector needs its extra: pip install 'aiocop-telemetry[collector]' "
            f"(missing here: {', '.join(missing)})\n"
        )
        raise SystemExit(2)
    # A tenth of a start went to looking for garbage, of which importing makes hardly any. cli.py enables it again.
    gc.disable()
    # Not an import statement at the top of the file: cli.py imports all of the above, and the sentence must come first.
    load("aiocop_collector.commands.cli").app()


if __name__ == "__main__":
    main()
