"""Who may do what: the token file, and the rights of one token. Pure.

One line each, in our own words (Consul's ACL language says more than a registry of workers needs):

    TOKEN RIGHT[,RIGHT...] [# comment]

`read`: the list and every look-up. `register:PREFIX`: registrations of services whose name begins so; an empty prefix is
every service. `admin`: all of it, other people's rows and marks too. The word `anonymous` in a token's place gives rights
to those who show none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from .errors import ConfigurationError

ANONYMOUS = "anonymous"
SHORTEST = 16  # characters; what is shorter can be guessed
TOKEN = re.compile(r"[\x21-\x7e]+")  # what an HTTP header carries unharmed
RIGHT = re.compile(r"read|admin|register:([A-Za-z0-9_.-]{0,128})")
COMMENT = re.compile(r"(^|\s)#.*")
EXPECTED = "expected TOKEN RIGHT[,RIGHT...], rights being read, register:PREFIX and admin"


@dataclass(frozen=True)
class Rights:
    """`principal` names who asks, in logs and as the owner of rows, without giving the token away."""

    principal: str
    may_read: bool = False
    admin: bool = False
    prefixes: tuple[str, ...] = ()

    def may_register(self, service: str) -> bool:
        return self.admin or any(service.startswith(prefix) for prefix in self.prefixes)


EVERYTHING = Rights(ANONYMOUS, may_read=True, admin=True, prefixes=("",))
NOTHING = Rights(ANONYMOUS)
UNKNOWN = Rights("unknown")  # of a token that is none


class Tokens:
    """`rights(token)`; without a file (`Tokens()`) everybody has all rights, as "anonymous"."""

    def __init__(self, known: Mapping[bytes, Rights] | None = None, anonymous: Rights = NOTHING) -> None:
        """`known`: SHA-256 of a token -> what it may."""
        self._open = known is None
        self._known = tuple((known or {}).items())
        self._anonymous = EVERYTHING if known is None else anonymous

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """A token file. Raises ConfigurationError that names the line, and never shows a word of it: it may be a token."""
        known: dict[bytes, Rights] = {}
        lines: dict[bytes, int] = {}
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
            if not (said := COMMENT.sub("", line).strip()):
                continue
            token, _, rights = said.partition(" ") if "\t" not in said else said.replace("\t", " ").partition(" ")
            if token != ANONYMOUS and not TOKEN.fullmatch(token):
                raise ConfigurationError(f"line {number}: a token is of printable ASCII characters; {EXPECTED}")
            if token != ANONYMOUS and len(token) < SHORTEST:
                raise ConfigurationError(f"line {number}: a token has at least {SHORTEST} characters; {EXPECTED}")
            digest = _digest(token)
            if digest in known:
                raise ConfigurationError(f"line {number}: the same token as on line {lines[digest]}: join their rights")
            known[digest] = _rights(principal_of(token), rights, number)
            lines[digest] = number
        return cls(known, known.pop(_digest(ANONYMOUS), NOTHING))

    def rights(self, token: str) -> Rights:
        """Of who shows `token`; "": of who shows none. How long it takes says nothing about any token."""
        if self._open or not token:
            return self._anonymous
        shown, found = _digest(token), UNKNOWN
        for digest, rights in self._known:
            if compare_digest(digest, shown):
                found = rights  # and on through the rest: an early end would tell the place in the file
        return found

    def __repr__(self) -> str:
        return "<Tokens [none asked for]>" if self._open else f"<Tokens [{len(self._known)} | {self._anonymous}]>"


def principal_of(token: str) -> str:
    """`token:` and the first 12 hexadecimal digits of its SHA-256; `anonymous` itself for "" and "anonymous"."""
    return f"token:{_digest(token).hex()[:12]}" if token not in ("", ANONYMOUS) else ANONYMOUS


def _digest(token: str) -> bytes:
    # A token of JSON may hold half a surrogate pair, which is no UTF-8; it is unknown, not an error.
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def _rights(principal: str, text: str, line: int) -> Rights:
    words = [word.strip() for word in text.split(",")]
    prefixes: list[str] = []
    for place, word in enumerate(words, 1):
        if not (found := RIGHT.fullmatch(word)):
            raise ConfigurationError(f"line {line}: right {place} is none; {EXPECTED}")
        if found[1] is not None:
            prefixes.append(found[1])
    admin = "admin" in words
    return Rights(principal, admin or "read" in words, admin, ("",) if admin else tuple(prefixes))
