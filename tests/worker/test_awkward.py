"""Odd, broken and hostile files found in the wild: each gets the outcome a person would expect, soon and cheaply."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fairway.worker.errors import BrokenImage, TooLarge, WorkerError
from fairway.worker.image import decode, encode_for_model

from ..conftest import ROOT, SHARED

FOLDER = SHARED / "awkward"


@dataclass(frozen=True)
class Awkward:
    """One row of the listing: `size` as the header gives it, `outcome` as Pillow alone found it."""

    path: Path
    size: tuple[int, int] | None
    orientation: int
    outcome: str

    @property
    def expected(self) -> type[WorkerError] | None:
        if self.outcome.startswith("ok"):
            return None
        # All of them begin as an image does, so none is "not an image".
        return TooLarge if "DecompressionBombError" in self.outcome else BrokenImage


def listed() -> list[Awkward]:
    if not FOLDER.is_dir():
        return []
    with (FOLDER / "LISTING.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    for row in rows:
        size = re.search(r" (\d+)x(\d+) ", row["pillow_header"])
        turned = re.search(r"exif_or=(\d)", row["pillow_header"])
        found.append(
            Awkward(
                FOLDER / row["kind"] / row["file"],
                (int(size[1]), int(size[2])) if size else None,
                int(turned[1]) if turned else 1,
                row["pillow_load"],
            )
        )
    return found


FILES = listed()
pytestmark = pytest.mark.skipif(not FILES, reason="the folder of awkward pictures does not lie beside this checkout")


def test_the_listing_is_read_in_full() -> None:
    assert len(FILES) > 80
    assert {awkward.expected for awkward in FILES} == {None, BrokenImage, TooLarge}
    assert {awkward.orientation for awkward in FILES} == set(range(1, 9))


@pytest.mark.parametrize("awkward", FILES, ids=lambda awkward: awkward.path.name[:40])
def test_the_outcome_is_the_one_a_person_expects(awkward: Awkward) -> None:
    data, started = awkward.path.read_bytes(), time.monotonic()
    if awkward.expected is not None:
        with pytest.raises(awkward.expected) as caught:
            decode(data)
        assert caught.value.status == (413 if awkward.expected is TooLarge else 400)
        assert len(str(caught.value)) > len("broken image: ")
    else:
        image = decode(data)
        assert image.mode == "RGB"
        assert awkward.size is not None
        lying = awkward.orientation >= 5
        assert image.size == (awkward.size[::-1] if lying else awkward.size)
        again = decode(encode_for_model(data))  # the way of models that decode by themselves
        assert again.size == image.size
    assert time.monotonic() - started < 2


MEASURE = """
import sys, warnings
from pathlib import Path
from fairway.worker.errors import WorkerError
from fairway.worker.image import decode

warnings.simplefilter("ignore")  # remarks about odd files

def peak():  # of this program alone: getrusage would count the one that started it as well
    return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")).split()[1])

before, files = peak(), sys.stdin.read().splitlines()
for name in files:
    try:
        decode(Path(name).read_bytes())
    except WorkerError:
        pass
print(len(files), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_all_of_them_together_stay_small() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input="\n".join(str(awkward.path) for awkward in FILES),
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    files, growth_kib = map(int, done.stdout.split())
    assert files == len(FILES)
    assert growth_kib * 1024 < 200e6
