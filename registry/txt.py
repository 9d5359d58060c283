"""The strings of a TXT record as DNS-SD uses them: `key=value` each (RFC 6763, 6). Pure."""

from __future__ import annotations

from collections.abc import Mapping

MOST_STRING = 255  # bytes (RFC 1035, 3.3)


def pack(said: Mapping[str, bytes]) -> bytes:
    """Each with its length before it. Raises ValueError for one that is too long."""
    strings = [key.encode("ascii") + b"=" + value for key, value in said.items()]
    if any(len(string) > MOST_STRING for string in strings):
        raise ValueError(f"a string of a TXT record has at most {MOST_STRING} bytes")
    return b"".join(bytes((len(string),)) + string for string in strings)


def unpack(txt: bytes) -> dict[str, bytes]:
    """Key in small letters -> value; the first of each key counts, what has no value says nothing, a torn end ends it."""
    said: dict[str, bytes] = {}
    at = 0
    while at < len(txt) and (end := at + 1 + txt[at]) <= len(txt):
        key, equals, value = txt[at + 1 : end].partition(b"=")
        if equals and key.isascii():
            said.setdefault(key.decode("ascii").lower(), value)
        at = end
    return said
