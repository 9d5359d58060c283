"""Images to test with: made here, and real ones where the folder of shared data lies beside the checkout."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


def picture(seed: int = 0, size: tuple[int, int] = (320, 240), format: str = "JPEG") -> bytes:
    """An image file, different for every `seed`: coloured petals around a disc."""
    image = Image.new("RGB", size, ((37 * seed) % 256, (90 + 53 * seed) % 256, (160 + 29 * seed) % 256))
    draw = ImageDraw.Draw(image)
    x, y, r = size[0] // 2, size[1] // 2, min(size) // 3
    for angle in range(0, 360, 40):
        colour = ((255 - 31 * seed) % 256, (200 + 71 * seed) % 256, (17 * seed) % 256)
        draw.pieslice((x - r, y - r, x + r, y + r), angle, angle + 25, fill=colour)
    draw.ellipse((x - r // 3, y - r // 3, x + r // 3, y + r // 3), fill=(240, 200, 20))
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Registries that are started without a word about their store keep it there, not in the user's home; workers what
    they found out about models.
    """
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """A command that a test runs in this process says how much is logged in it: to the end of that test."""
    loggers = [logging.getLogger(name) for name in ("fairway", "PIL")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., bytes]:
    return picture


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and models; tests that need it are skipped, visibly, where it is not there."""
    if not SHARED.is_dir():
        pytest.skip("the folder of shared test data does not lie beside this checkout")
    return SHARED
