"""`fairway classify`: files, folders, or names on standard input -> predictions."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from tqdm import tqdm

from ..registry.options import add_options, read_options
from ..registry.process import run
from ..worker.dataset.folder import SUFFIXES
from .client import Client, Source
from .config import ClientSettings


def classify(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway classify",
        description="Uploads images to the cluster and prints what they show. Exit status 1 if any of them failed.",
        epilog="Names on standard input: ls photos/*.jpg | fairway classify -",
    )
    parser.add_argument("images", nargs="+", help="image files, folders of them, or - for file names on standard input")
    add_options(parser, ClientSettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> int:
        settings = read_options(ClientSettings, given)
        work = asyncio.create_task(_classify(given.images, settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            return 130
        return work.result()

    try:
        return run(main, verbose=False)
    except BrokenPipeError:  # `fairway classify photos/ | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _classify(names: Sequence[str], settings: ClientSettings) -> int:
    # Names on standard input are taken as they come, a line at a time; their number is not known in advance.
    images: list[Source] | AsyncIterator[Source] = _named(names) if "-" in names else list(files(names))
    total = len(images) if isinstance(images, list) else None
    if total == 0:
        print(f"fairway: no images in {', '.join(names)}", file=sys.stderr)
        return 1
    failed = done = 0
    bar: tqdm[NoReturn] = tqdm(
        total=total, unit="image", disable=None if total is None or total > 1 else True, leave=False
    )
    async with Client(
        settings.url, via=settings.via, service=settings.service, timeout=settings.timeout_seconds
    ) as client:
        answers = client.classify_many(images, concurrency=settings.concurrency, top=settings.top)
        async for image, answer in answers:
            name = str(image)
            bar.update()
            done += 1
            if isinstance(answer, Exception):
                failed += 1
                text = f"{name}: {answer.strerror}" if isinstance(answer, OSError) and answer.strerror else str(answer)
                _print(json.dumps({"file": name, "error": str(answer)}) if settings.json else "", bar)
                if not settings.json:
                    _print(text if text.startswith(name) else f"{name}: {text}", bar, sys.stderr)
            elif settings.json:
                _print(json.dumps({"file": name, "predictions": list(answer)}), bar)
            else:
                _print(f"{name}: {answer}", bar)
    bar.close()
    if failed:
        print(f"{failed} of {done} failed", file=sys.stderr)
    return 1 if failed else 0


def files(names: Iterable[str]) -> Iterator[Path]:
    """Files as named; of folders, the image files in them and below, sorted."""
    for name in names:
        path = Path(name)
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        else:
            yield path


async def _named(names: Sequence[str]) -> AsyncIterator[Source]:
    for name in names:
        if name != "-":
            for path in files([name]):
                yield path
            continue
        async for line in _lines():
            yield line


async def _lines() -> AsyncIterator[Source]:
    """File names as they arrive. Read in a thread that may stay behind: a terminal's line can be long in coming."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        for line in iter(sys.stdin.readline, ""):
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=read, daemon=True).start()
    while line := await lines.get():
        if name := line.rstrip("\r\n"):
            yield Path(name)


def _print(text: str, bar: tqdm[NoReturn], stream: TextIO | None = None) -> None:
    if text:
        bar.write(text, file=stream or sys.stdout)


if __name__ == "__main__":
    sys.exit(classify(sys.argv[1:]))
