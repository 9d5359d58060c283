"""The command: which pictures are meant, and who looks at them."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

from tqdm import tqdm

from ...registry.options import add_options, option, read_options
from ..errors import ConfigurationError
from ..offline import ModelSettings, as_served, dashed, ended, log_from, missing
from .page import Page, print_all

if TYPE_CHECKING:
    from ..tensor import Prediction

STDIN = "-"


@dataclass(frozen=True)
class LabelSettings(ModelSettings):
    model: str = option("flowers", "what to look with: as the worker's --model")
    top: int = option(5, "how many labels an image gets")
    json: bool = option(False, "one JSON object a line")
    threads: int = as_served("threads")
    max_bytes: int = as_served("max_bytes")
    max_pixels: int = as_served("max_pixels")

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ConfigurationError("--top: at least 1")


def label(arguments: Sequence[str]) -> int:
    """Exit status: 1 if any image failed, 78 if the model or an option will not do."""
    parser = argparse.ArgumentParser(
        prog="fairway label",
        description="Prints what a model sees in images, without a server. Exit status 1 if any of them failed.",
        epilog="The flags of TensorFlow's label_image work as well, with underscores too. "
        "Names on standard input are answered as they come: ls photos/*.jpg | fairway label -. "
        "As with a worker, engines are tried at the first use of a model, which takes a while; the model's own, "
        "e.g. --runtime tensorflow, answers at once.",
    )
    parser.add_argument("images", nargs="*", help="image files, folders of them, or - for names on standard input")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="one more image")
    parser.add_argument("--graph", dest="model", metavar="FILE", help="the same as --model")
    parser.add_argument("--num-top-predictions", dest="top", metavar="TOP", help="the same as --top")
    add_options(parser, LabelSettings)
    given = parser.parse_intermixed_args(dashed(arguments))
    names = [*given.images, *given.image]
    if not names:
        parser.error("no image: name files or folders, or - for names on standard input")
    log_from("INFO")  # choosing an engine takes a while, and says so
    with ended() as status:
        status.append(_label(names, read_options(LabelSettings, given)))
    return status[-1]


def files(names: Iterable[str]) -> Iterator[Path]:
    """Files as named; of folders, the image files in them and below, sorted; of `-`, those that standard input names."""
    from PIL import Image

    from ..image import FORMATS

    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    for name in names:
        path = Path(name)
        if name == STDIN:
            yield from files(line.rstrip("\r\n") for line in iter(sys.stdin.readline, "") if line.strip())
        elif path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        else:
            yield path


def _label(names: Sequence[str], settings: LabelSettings) -> int:
    """Names are taken as they come, pictures looked at by several threads, and answers printed in order, each at once."""
    try:
        from .labeller import open_labeller
    except ImportError as error:
        raise missing("fairway label", error) from error
    labeller = open_labeller(settings)
    known = None if STDIN in names else list(files(names))
    if known == []:
        print(f"fairway: no images in {', '.join(names)}", file=sys.stderr)
        return 1
    several = known is None or len(known) > 1
    quiet = not several or sys.stdout.isatty() or not sys.stderr.isatty()
    queue: Queue[tuple[Path, Future[Prediction]] | None] = Queue(2 * labeller.streams)
    gone = threading.Event()
    with (
        tqdm(total=None if known is None else len(known), unit="image", disable=quiet, leave=False) as bar,
        ThreadPoolExecutor(labeller.streams) as looking,
        ThreadPoolExecutor(1) as printing,
    ):
        printed = printing.submit(print_all, queue, gone, Page(settings.json, several, bar))
        try:
            for path in files(names) if known is None else known:
                if gone.is_set():
                    break
                queue.put((path, looking.submit(labeller, path)))
        except KeyboardInterrupt:
            looking.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            queue.put(None)
        done, failed = printed.result()
    if failed and several:
        print(f"{failed} of {done} failed", file=sys.stderr)
    return 1 if failed else 0
