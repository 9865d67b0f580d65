"""`aiocop-run`: starts a command so that every process of it that runs an event loop is watched, without a code change.

    options ─> command (which program, which Python) ─> interpreter (is aiocop there?) ─> environment ─> exec
                                                                  └─> info (--info), probe (does the collector answer?)

The rest happens in the processes themselves: see bootstrap/sitecustomize.py.
"""

from aiocop.run.launcher import main

__all__ = ["main"]
