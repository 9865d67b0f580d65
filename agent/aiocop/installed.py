"""Installed packages that are the service's own: installed from sources or a repository, and not from an index.

An installer leaves a `direct_url.json` beside such a distribution (PEP 610): for a folder (`pip install .`), a
repository (`pip install git+…`), and a file that it was given. A file from a web server is taken for a library, as is
whatever has no such record. What a distribution consists of, its RECORD says (PEP 376).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

_INSTALLED_IN: Final = ("site-packages", "dist-packages")
_OURS: Final = "aiocop_telemetry-"
_OWN_SIGNS: Final = ('"dir_info"', '"vcs_info"', '"file://')
"""One of these stands in the record of a distribution that is the service's own; this saves an import of json."""


def own_places(path: Iterable[str]) -> frozenset[str]:
    """Folders with modules of the service's own in these entries of sys.path, and modules that lie in the entry itself.

    Reads a folder per entry and two small files per such distribution: once, at set-up, never inside a slice.
    """
    places: set[str] = set()
    for entry in path:
        if os.path.basename(entry.rstrip(os.sep)) in _INSTALLED_IN:
            places.update(_own_places_in(entry))
    return frozenset(places)


def _own_places_in(entry: str) -> set[str]:
    places: set[str] = set()
    try:
        names = os.listdir(entry)
    except OSError:
        return places
    for name in names:
        if name.endswith(".dist-info") and not name.startswith(_OURS):
            record = os.path.join(entry, name)
            url = _read(os.path.join(record, "direct_url.json"))
            if url is not None and any(sign in url for sign in _OWN_SIGNS):
                places.update(_places_of(entry, _read(os.path.join(record, "RECORD")) or ""))
    return places


def _places_of(entry: str, record: str) -> set[str]:
    root = os.path.abspath(entry)
    places: set[str] = set()
    for line in record.splitlines():
        file = line.partition(",")[0].strip('"')
        if file.endswith((".py", ".so", ".pyd")) and not file.startswith(("..", "/")):
            folder, _, name = file.rpartition("/")
            places.add(os.path.join(root, *folder.split("/")) if folder else os.path.join(root, name))
    return places


def _read(file: str) -> str | None:
    try:
        with open(file, encoding="utf-8", errors="replace") as opened:
            return opened.read()
    except OSError:
        return None
