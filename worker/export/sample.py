"""The pictures that two forms are compared by, and a quantised one is calibrated with."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm import tqdm

from ..dataset.folder import SUFFIXES
from ..errors import ConfigurationError, WorkerError
from ..image import decode
from ..runtimes import probes

log = logging.getLogger("fairway.export")


def read_pictures(images: str, count: int) -> list[bytes]:
    """Of the image files in the folder `images` and below, or of that one file, `count` at most, spread over all of them.

    Broken ones are named and passed over. Empty `images`: pictures made from a seed. Raises ConfigurationError.
    """
    if not images:
        return probes.files("PNG")
    folder = Path(images)
    if not folder.exists():
        raise ConfigurationError(f"--images {images}: no such folder")
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    step = max(1.0, len(paths) / count)
    chosen = [paths[int(number * step)] for number in range(min(count, len(paths)))]
    found = []
    for path in tqdm(chosen, "reading pictures", unit="picture", disable=None, leave=False):
        try:
            data = path.read_bytes()
            decode(data)
        except (OSError, WorkerError) as error:
            log.warning("%s is passed over: %s", path, error)
        else:
            found.append(data)
    if not found:
        raise ConfigurationError(f"--images {images}: no picture there that can be read")
    return found
