"""Photos -> features: decoded on all cores ahead of the network, in batches; only what the file does not hold yet.

Pictures go through `worker.image`, as uploads do: what is learnt from is what will be served.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from .. import image
from ..card import InputSpec
from ..dataset.folder import Photo
from ..errors import WorkerError
from .backbone import Backbone
from .bottlenecks import Bottlenecks
from .stopping import Interrupted

PLAIN, MIRRORED = 0, 1
BATCH = 8  # pictures a call of the network: measured, 26 ms of CPU each for a MobileNetV2 then, and 50 at 32
AHEAD = 8  # batches that wait decoded

Render = Callable[[Image.Image, bytes, int], NDArray[np.float32]]
T = TypeVar("T")
R = TypeVar("R")


def hashed(photos: Sequence[Photo], stop: Callable[[], bool]) -> tuple[dict[Path, bytes], dict[Path, str]]:
    """sha256 of each file, and what cannot be read, with the reason."""
    keys: dict[Path, bytes] = {}
    unread: dict[Path, str] = {}
    bar = tqdm(total=len(photos), desc="reading", unit="photo", disable=None, leave=False)
    for photo, outcome in _ahead(photos, lambda photo: hashlib.sha256(photo.path.read_bytes()).digest()):
        if stop():
            raise Interrupted("nothing was computed yet")
        bar.update()
        if isinstance(outcome, OSError):
            unread[photo.path] = outcome.strerror or str(outcome)
        elif isinstance(outcome, Exception):
            raise outcome
        else:
            keys[photo.path] = outcome
    bar.close()
    return keys, unread


def rendering(spec: InputSpec) -> Render:
    """As it is served, and its mirror image."""

    def render(picture: Image.Image, key: bytes, view: int) -> NDArray[np.float32]:
        array: NDArray[np.float32] = image.to_array(picture, spec)
        return array[:, ::-1] if view == MIRRORED else array

    return render


def compute(
    photos: Iterable[Photo],
    keys: Mapping[Path, bytes],
    views: Sequence[int],
    kept: Bottlenecks,
    backbone: Backbone,
    render: Render,
    stop: Callable[[], bool],
    doing: str = "features",
) -> tuple[int, dict[Path, str]]:
    """Adds to `kept` all `views` of all `photos` that it lacks -> how many there were, and which are broken and why.

    Raises Interrupted once `stop` says so; what was computed until then is kept.
    """
    wanted: dict[bytes, tuple[Photo, list[int]]] = {}
    for photo in photos:
        key = keys[photo.path]
        if missing := [view for view in views if (key, view) not in kept]:
            wanted.setdefault(key, (photo, missing))
    if not wanted:
        return 0, {}

    spec = backbone.spec

    def decode(key: bytes) -> list[NDArray[np.float32]]:
        photo, missing = wanted[key]
        data = photo.path.read_bytes()
        if hashlib.sha256(data).digest() != key:
            raise OSError("changed while it was read")
        picture = image.decode(data, reduced_for=spec if spec.reduced else None)
        return [render(picture, key, view) for view in missing]

    network = backbone.features()
    broken: dict[Path, str] = {}
    batch: list[tuple[bytes, int, NDArray[np.float32]]] = []
    done = 0

    def flush() -> None:
        nonlocal done
        values = network(np.stack([array for _, _, array in batch]))
        for view in dict.fromkeys(view for _, view, _ in batch):
            places = [i for i, item in enumerate(batch) if item[1] == view]
            kept.add([batch[i][0] for i in places], view, values[places])
        done += len(batch)
        batch.clear()

    with tqdm(total=len(wanted), desc=doing, unit="photo", disable=None, leave=False, smoothing=0.05) as bar:
        for key, outcome in _ahead(list(wanted), decode):
            if stop():
                raise Interrupted(f"{len(kept)} features are kept in {kept.path}")
            bar.update()
            if isinstance(outcome, OSError | WorkerError):
                broken[wanted[key][0].path] = str(outcome)
                continue
            if isinstance(outcome, Exception):
                raise outcome
            batch += [(key, view, array) for view, array in zip(wanted[key][1], outcome, strict=True)]
            if len(batch) >= BATCH:
                flush()
        if batch:
            flush()
    return done, broken


def logits(
    network: Any, photos: Sequence[Photo], spec: InputSpec, stop: Callable[[], bool], doing: str = "test"
) -> NDArray[np.float32]:
    """What a Keras model (pictures after mean and std -> logits) says of photos that can be decoded: (n, classes)."""

    def decode(photo: Photo) -> NDArray[np.float32]:
        return image.to_item(photo.path.read_bytes(), spec)

    arrays: list[NDArray[np.float32]] = []
    found: list[NDArray[np.float32]] = []
    for _, outcome in tqdm(_ahead(photos, decode), total=len(photos), desc=doing, disable=None, leave=False):
        if stop():
            raise Interrupted(f"the {doing} was not finished")
        if isinstance(outcome, Exception):
            raise outcome
        arrays.append(outcome)
        if len(arrays) == BATCH:
            found.append(network.predict_on_batch(np.stack(arrays)))
            arrays = []
    if arrays:
        found.append(network.predict_on_batch(np.stack(arrays)))
    return np.concatenate(found) if found else np.zeros((0, network.output_shape[-1]), np.float32)


def _ahead(items: Sequence[T], work: Callable[[T], R]) -> Iterator[tuple[T, R | Exception]]:
    """`work` of each item, in their order, on all cores, a bounded number of them ahead of who asks."""
    waiting: deque[tuple[T, Future[R | Exception]]] = deque()

    def attempt(item: T) -> R | Exception:
        try:
            return work(item)
        except Exception as error:  # who asked knows which of them are no surprise
            return error

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(attempt, item)))
                if len(waiting) > AHEAD * BATCH:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
