"""The key that an agent and a collector share, as a person sets it: datagrams are sealed with it (seal.py)."""

from __future__ import annotations

from typing import Final

MIN_KEY_CHARACTERS: Final = 16
_MAX_KEY_CHARACTERS: Final = 4096


def check_key(text: str) -> bytes:
    """The key in a text, as a person set it. Raises ValueError, which does not show the text."""
    word = text.strip()
    if word.split() != [word] or not MIN_KEY_CHARACTERS <= len(word) <= _MAX_KEY_CHARACTERS:
        raise ValueError(
            f"must be one word of at least {MIN_KEY_CHARACTERS} characters: make one with openssl rand -hex 32"
        )
    return word.encode("utf-8", "surrogateescape")
