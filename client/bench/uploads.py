"""The pictures of a folder as bodies that are ready to be sent, and what they were answered before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import hdrs
from multidict import CIMultiDict

from ...registry.errors import ConfigurationError
from ...worker.wire import multipart
from ..__main__ import files


@dataclass(eq=False)
class Upload:
    """`label`: what the first answer said; all others must say the same."""

    name: str
    body: bytes
    headers: CIMultiDict[str]
    label: str = field(default="", init=False)


def load(folder: Path, most: int, seed: int, service: str = "") -> tuple[list[Upload], dict[str, str]]:
    """-> the uploads, in random order, and names of files that cannot be read, with the reason.

    At most `most` of them, chosen at random; 0: all. They stay in memory. Raises ConfigurationError if there is none.
    """
    paths = list(files([str(folder)]))
    if not paths:
        raise ConfigurationError(f"--images: there are no pictures in {folder}")
    random.Random(seed).shuffle(paths)
    uploads: list[Upload] = []
    unreadable: dict[str, str] = {}
    for path in paths[: most or None]:
        name = str(path.relative_to(folder))
        try:
            data = path.read_bytes()
        except OSError as error:
            unreadable[name] = error.strerror or str(error)
            continue
        body, content_type = multipart.encode({"data": (path.name, data)})
        headers = CIMultiDict({hdrs.CONTENT_TYPE: content_type})
        if service:
            headers["X-Fairway-Service"] = service
        uploads.append(Upload(name, body, headers))
    if not uploads:
        raise ConfigurationError(f"--images: none of the pictures in {folder} can be read")
    return uploads, unreadable


def turns(uploads: list[Upload]) -> Iterator[Upload]:
    """One after the other, and from the start again."""
    while True:
        yield from uploads
