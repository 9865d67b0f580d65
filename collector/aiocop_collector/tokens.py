"""Who may ask: named tokens with a role, kept as SHA-256 hashes only.

Random tokens need no slow hash: there is nothing to guess. They come from the file of `--token-file` and from the
environment variable AIOCOP_TOKENS, never from a flag, which `ps` would show. One per line (or comma):

    NAME ROLE sha256:HEX        ROLE is read or admin; `aiocop-collector token NAME` makes the line and the token

A file that holds one plain word instead is one admin token.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from aiocop_collector.errors import SettingsError
from aiocop_collector.settings import ENVIRONMENT_PREFIX, Settings, read_private_file

Role = Literal["read", "admin"]

VARIABLE: Final = f"{ENVIRONMENT_PREFIX}TOKENS"
_LINE: Final = re.compile(r"([A-Za-z0-9._-]{1,64})\s+(read|admin)\s+sha256:([0-9a-f]{64})")
_MAX_TOKENS: Final = 1_000
_RESERVED: Final = frozenset({"local", "collector", "rules"})
"""Who a history names when it was nobody with a token."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token, as its hash."""

    name: str
    role: Role
    digest: bytes

    def line(self) -> str:
        """As it is written in a file."""
        return f"{self.name} {self.role} sha256:{self.digest.hex()}"


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def new_token(name: str, role: Role) -> tuple[str, Token]:
    """A fresh token and what is kept of it. Raises SettingsError for a name that cannot be one."""
    text = f"aiocop_{secrets.token_urlsafe(32)}"
    token = Token(name, role, digest_of(text))
    if _LINE.fullmatch(token.line()) is None:
        raise SettingsError(f"{name!r:.80} cannot name a token: up to 64 letters, digits, dots, dashes and underscores")
    _refuse_reserved(name, "a token")
    return text, token


def load_tokens(settings: Settings) -> tuple[Token, ...]:
    """All that are configured. Raises SettingsError."""
    tokens: list[Token] = []
    if settings.token_file is not None:
        text = read_private_file(settings.token_file, "token file")
        words = text.split()
        if not words or not text.isascii():
            raise SettingsError(
                f"the token file {settings.token_file} must hold a token, in plain ASCII; make one with: "
                f"aiocop-collector token NAME --file {settings.token_file}"
            )
        if len(words) == 1 and _LINE.fullmatch(text) is None:
            tokens.append(Token("token", "admin", digest_of(words[0])))
        else:
            tokens += _parse(text, f"the token file {settings.token_file}")
    tokens += _parse(os.environ.get(VARIABLE, ""), f"environment variable {VARIABLE}")
    names = [token.name for token in tokens]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise SettingsError(f"two tokens are named {twice.pop()!r}; the history of decisions could not tell them apart")
    return tuple(tokens)


def find(tokens: Iterable[Token], given: str) -> Token | None:
    """The token that was given. Compares with every one of them, in constant time."""
    digest = digest_of(given)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


def _parse(text: str, source: str) -> list[Token]:
    tokens = []
    lines = [line.strip() for line in re.split(r"[,\n]", text)]
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            # The line is not shown: it may be a token.
            raise SettingsError(
                f"{source} must hold one word, or lines of NAME ROLE sha256:HEX (line {number} is neither); "
                "make one with: aiocop-collector token NAME --role read"
            )
        name, role, digest = parts.groups()
        _refuse_reserved(name, source)
        tokens.append(Token(name, "admin" if role == "admin" else "read", bytes.fromhex(digest)))
    if len(tokens) > _MAX_TOKENS:
        raise SettingsError(f"{source} holds more than {_MAX_TOKENS} tokens")
    return tokens


def _refuse_reserved(name: str, source: str) -> None:
    if name in _RESERVED:
        raise SettingsError(f"{source} cannot be named {name!r}: histories mean something else by it")
