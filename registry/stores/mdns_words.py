"""What is said over mDNS of one instance: a `Word` <-> the strings of a TXT record (RFC 6763, 6). Pure.

    txtvers=1  group=GROUP  writer=ID OF THE STORE  stamp=MILLISECONDS  d0=…  d1=…

`d0`, `d1`, … together are the instance's document, compact JSON in UTF-8, cut where a string is full. Who hears two words
of one id believes the one with the later stamp: a writer's next word has a later one, and so has whoever takes an id over.
All of it fits into one packet, because nothing puts several together again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, replace

from ..errors import InvalidInstance, StoreRefused
from ..instance import Instance
from ..txt import MOST_STRING, pack, unpack

VERSION = "1"
MOST_BYTES = 1200  # of strings; with names and addresses a packet of Ethernet's size
ROOM = MOST_STRING - len("d0=")
LATEST = 2**62

PLAIN = re.compile(
    r"[A-Z0-9][A-Z0-9-]{0,62}"
)  # DNS knows no difference between a and A; ids of ours have no small ones
GROUP = re.compile(r"[a-z0-9-]{0,32}")
WRITER = re.compile(r"[0-9A-Za-z-]{1,32}")
NUMBER = re.compile(r"[0-9]{1,19}")


@dataclass(frozen=True)
class Word:
    """`writer` says, as of `stamp` (milliseconds since 1970, or later than another's), that `instance` is there."""

    instance: Instance
    writer: str
    stamp: int
    group: str = ""

    @property
    def order(self) -> tuple[int, str]:
        return self.stamp, self.writer


def label(id: str) -> str:
    """The service's name: the id itself where DNS can tell it from every other id, else something of it and a digest."""
    if PLAIN.fullmatch(id):
        return id
    return f"{re.sub('[^A-Za-z0-9]', '-', id[:40])}-{hashlib.sha256(id.encode('utf-8', 'replace')).hexdigest()[:16]}"


def encode(word: Word) -> bytes:
    """-> strings, each with its length before it. Raises StoreRefused."""
    try:
        text = json.dumps(word.instance.as_meta(), separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        document = text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreRefused(f"{word.instance.id!r:.80} cannot be written as JSON: {error}") from error
    said = {"txtvers": VERSION, "group": word.group, "writer": word.writer, "stamp": str(word.stamp)}
    strings = {key: value.encode() for key, value in said.items() if value}
    most = MOST_BYTES - len(pack(strings)) - len("_d0=") * -(-len(document) // ROOM)
    if len(document) > most:
        raise StoreRefused(
            f"{word.instance.id!r:.80} has a document of {len(document)} bytes: over mDNS it must fit into one packet, "
            f"about {MOST_BYTES - 100} bytes; say less of it, or use a registry"
        )
    cuts = range(0, len(document), ROOM)
    return pack(strings | {f"d{number}": document[cut : cut + ROOM] for number, cut in enumerate(cuts)})


def decode(name: str, txt: bytes) -> Word | None:
    """What stands under the label `name`; None if it is none of ours, or not well-formed."""
    said = unpack(txt)
    if len(txt) > MOST_BYTES or said.get("txtvers") != VERSION.encode():
        return None
    try:
        group, writer, stamp = (said.get(key, b"").decode("ascii") for key in ("group", "writer", "stamp"))
        document = b"".join(said.get(f"d{number}", b"") for number in range(10))
        meta = json.loads(document.decode(), parse_constant=_finite, parse_float=_finite)
        if not isinstance(meta, dict):
            return None
        instance = Instance.from_meta(meta.get("id"), meta, "")  # type: ignore[arg-type]  # it judges what it is given
    except (ValueError, RecursionError, InvalidInstance):
        return None
    if not (GROUP.fullmatch(group) and WRITER.fullmatch(writer) and NUMBER.fullmatch(stamp) and int(stamp) <= LATEST):
        return None
    if label(instance.id).lower() != name.lower():
        return None
    return Word(
        replace(instance, checks=()), writer, int(stamp), group
    )  # checks go with rows that outlive their writer


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number of JSON's")
    return number
