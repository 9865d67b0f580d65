"""`python -m aiocop.run`, the same as `aiocop-run`."""

from __future__ import annotations

import sys

from aiocop.run.launcher import main

if __name__ == "__main__":
    sys.exit(main())
