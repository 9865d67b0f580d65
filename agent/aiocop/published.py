"""Whether the published `aiocop` distribution, whose import name is ours too, is installed beside us.

Both install a package `aiocop`, into the same folder; whichever came last has overwritten files of the other. It is
looked for by the name of its metadata folder: importlib.metadata would cost a service more time than all the agent.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from typing import Final

_METADATA_PREFIX: Final = "aiocop-"
_METADATA_SUFFIXES: Final = (".dist-info", ".egg-info")
_INSTALL_FOLDERS: Final = ("site-packages", "dist-packages")


def published_aiocop(folders: Iterable[str]) -> str | None:
    """The metadata folder of the published distribution in the first of `folders` that has one."""
    for folder in folders:
        if os.path.basename(folder.rstrip(os.sep)) not in _INSTALL_FOLDERS:
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            if name.startswith(_METADATA_PREFIX) and name.endswith(_METADATA_SUFFIXES):
                return os.path.join(folder, name)
    return None


def warn_if_published_aiocop_is_installed() -> None:
    """One RuntimeWarning that says what to do; Python shows it once per process."""
    found = published_aiocop(sys.path)
    if found is not None:
        warnings.warn(
            f"the distributions aiocop ({found}) and aiocop-telemetry are both installed and overwrite each other's"
            " files; run: pip uninstall -y aiocop aiocop-telemetry && pip install aiocop-telemetry",
            RuntimeWarning,
            stacklevel=3,
        )
