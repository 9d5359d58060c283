"""Before anything is measured: does each way lead to a model, and does the model take the pictures?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from .errors import Unfit
from .tally import WRONG
from .uploads import Upload
from .way import Book, Way

REFUSED = frozenset(("400", "413", "415", "422"))  # it is the picture
AT_ONCE = 4


async def tried(ways: Sequence[Way], uploads: Sequence[Upload]) -> tuple[list[Upload], dict[str, str]]:
    """-> the uploads that may be used, and the names of those the model refuses, with the reason.

    By the first way each is sent once, so that every label is known; by the others one is. Raises Unfit.
    """
    refused: dict[str, str] = {}
    book, rest = Book(), iter(uploads)
    sample = await _first(ways[0], book, rest, refused)
    for way in ways[1:]:
        reply = await way.send(sample, Book())
        if reply.kind and reply.kind != WRONG:  # which is for the measurement to count
            raise Unfit(reply.text)

    async def some() -> None:
        for upload in rest:
            reply = await ways[0].send(upload, book)
            if reply.kind in REFUSED:
                refused[upload.name] = reply.text

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())
    return [upload for upload in uploads if upload.name not in refused], refused


async def _first(way: Way, book: Book, uploads: Iterator[Upload], refused: dict[str, str]) -> Upload:
    for upload in uploads:
        reply = await way.send(upload, book)
        if not reply.kind:
            return upload
        if reply.kind not in REFUSED:
            raise Unfit(reply.text)
        refused[upload.name] = reply.text
    raise Unfit(f"none of the {len(refused)} pictures is taken; {next(iter(refused.values()))}")
