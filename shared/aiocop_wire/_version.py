"""The version of the one distribution that holds agent, wire and collector."""

from __future__ import annotations

__version__ = "0.1.0"
