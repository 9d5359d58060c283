"""multipart/form-data (RFC 7578): the article's `-F data=@image.jpg`. Whole bodies in, parts out, and the other way.

Parts are views into the body: nothing is copied. Bounded: at most 32 parts, each with at most 8 KiB of headers, its blank
line among them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import BadRequest

MAX_PARTS = 32
MAX_HEADERS = 8 * 1024
# What nearly all clients send; anything else is read with more patience.
_PLAIN = "multipart/form-data; boundary="
_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'()+_,./:=?-"
_HEAD = re.compile(
    rb'Content-Disposition: form-data; name="([^"\\\r\n]*)"(?:; filename="([^"\\\r\n]*)")?\r\n'
    rb"(?:Content-Type: ([^\r\n]*[^\s]) *\r\n)?"
)
_PARAMETER = re.compile(r';\s*([a-z0-9*_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))', re.IGNORECASE)


class Part(NamedTuple):
    """One field. `filename` is None for a plain field, and may be empty for a file."""

    name: str
    filename: str | None
    content_type: str
    data: memoryview


def boundary_of(content_type: str) -> bytes:
    """The boundary named in a Content-Type header. Raises BadRequest if there is none, or it is not one (RFC 2046)."""
    boundary = content_type.removeprefix(_PLAIN)
    if boundary.strip(_CHARACTERS) or not content_type.startswith(_PLAIN):
        boundary = _parameters(content_type).get("boundary", "")
    if not 0 < len(boundary) <= 70 or not boundary.isascii():
        raise BadRequest("the Content-Type says multipart/form-data, but names no boundary")
    return boundary.encode()


def parse(body: bytes, content_type: str) -> list[Part]:
    """All parts of `body`, in order. Raises BadRequest saying what is missing."""
    view, delimiter = memoryview(body), b"--" + boundary_of(content_type)
    if body.startswith(delimiter):
        at = len(delimiter)
    else:
        found = body.find(b"\r\n" + delimiter)
        if found < 0:
            raise BadRequest("the multipart body does not contain the boundary its Content-Type names")
        at = found + 2 + len(delimiter)
    parts: list[Part] = []
    while True:
        line_end = body.find(b"\r\n", at)
        if body.startswith(b"--", at):
            return parts
        if line_end < 0 or body[at:line_end].strip():
            raise BadRequest("malformed multipart body: a boundary is not followed by a line end")
        if len(parts) == MAX_PARTS:
            raise BadRequest(f"the multipart body has more than {MAX_PARTS} parts")
        start = line_end + 2
        if body.startswith(b"\r\n", start):
            head_end = start
        else:
            head_end = body.find(b"\r\n\r\n", start, start + MAX_HEADERS)
            if head_end < 0:
                raise BadRequest("malformed multipart body: a part's headers do not end")
            head_end += 2
        end = body.find(b"\r\n" + delimiter, head_end)
        if end < 0:
            raise BadRequest("the multipart body ends before its closing boundary: the upload was cut off")
        parts.append(_part(body[start:head_end], view[head_end + 2 : max(end, head_end + 2)]))
        at = end + 2 + len(delimiter)


def image_field(body: bytes, content_type: str, field: str = "data") -> memoryview:
    """The one image of an upload: the part called `field`, or else the only file. Raises BadRequest otherwise."""
    only = _only(body, b"--" + boundary_of(content_type), field)
    if only is not None:
        return only
    parts = parse(body, content_type)
    named = [part for part in parts if part.name == field]
    chosen = named or [part for part in parts if part.filename is not None]
    if len(chosen) == 1:
        return chosen[0].data
    if not chosen:
        names = ", ".join(part.name for part in parts) or "no field at all"
        raise BadRequest(f"no image in the upload: expected a field '{field}', or one file; found {names}")
    raise BadRequest(f"{len(chosen)} images in the upload: expected exactly one; send one request for each")


def encode(fields: Mapping[str, tuple[str, bytes]], boundary: str = "") -> tuple[bytes, str]:
    """name -> (filename, data) as a body, with its Content-Type."""
    boundary = boundary or "fairway-" + secrets.token_hex(12)
    pieces: list[bytes] = []
    for name, (filename, data) in fields.items():
        disposition = f'form-data; name="{_quoted(name)}"; filename="{_quoted(filename)}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
        pieces += [head.encode("utf-8", "surrogateescape"), data, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def _only(body: bytes, delimiter: bytes, field: str) -> memoryview | None:
    """The data of the only part, written as nearly all clients do it; None for any other body, right or wrong."""
    start = len(delimiter) + 2
    if not (body.startswith(delimiter) and body.startswith(b"\r\n", start - 2)):
        return None
    # Within the bound, which a blank line ends: else it would be looked for in all of the body.
    head = _HEAD.match(body, start, start + MAX_HEADERS - 2)
    if head is None or (head[2] is None and head[1] != field.encode()):
        return None
    head_end = head.end()
    if not body.startswith(b"\r\n", head_end):
        return None
    end = body.find(b"\r\n" + delimiter, head_end)
    if end < 0 or not body.startswith(b"--", end + start):
        return None
    return memoryview(body)[head_end + 2 : max(end, head_end + 2)]


def _part(head: bytes, data: memoryview) -> Part:
    plain = _HEAD.fullmatch(head)
    if plain:
        name, filename, kind = plain.groups()
        named = None if filename is None else filename.decode("utf-8", "replace")
        return Part(
            name.decode("utf-8", "replace"), named, kind.decode("utf-8", "replace") if kind else "text/plain", data
        )
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        headers.setdefault(key.strip().lower(), value.strip())
    disposition = headers.get("content-disposition", "")
    given = _parameters(disposition)
    if not disposition.lower().startswith("form-data") or "name" not in given:
        raise BadRequest('malformed multipart body: a part without Content-Disposition: form-data; name="..."')
    return Part(given["name"], given.get("filename"), headers.get("content-type", "text/plain"), data)


def _parameters(value: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(value):
        name, quoted, bare = match.group(1).lower(), match.group(2), match.group(3)
        # Browsers escape quotes as %22 (WHATWG), curl as \"; a lone backslash is a Windows path's.
        text = quoted.replace('\\"', '"').replace("\\\\", "\\") if quoted is not None else bare
        found.setdefault(name.removesuffix("*"), text)
    return found


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", "%0D").replace("\n", "%0A")
