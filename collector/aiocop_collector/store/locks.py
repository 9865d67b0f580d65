"""Numbers of the advisory locks that collectors on one PostgreSQL agree by. Any will do, as long as all use the same.

Whoever takes both takes MIGRATION first. The locks of elections have numbers of their own kind (ids.duty_key).
"""

from typing import Final

MIGRATION: Final = 0x6169_6F63_6F70
"""Held alone by who migrates."""

COUNTS: Final = 0x6169_6F63_7370
"""Held shared by every transaction that writes counts, from its begin; alone by who must not have any beside it."""
