"""`fairway classify` as a process, in front of a real proxy."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from ..conftest import ROOT
from ..proxy.stage import HOST, Seen, Worker, dead_address, image_of, proxy_for


async def judge(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    """Knows the flowers by their bytes, and no other thing."""
    text = image_of(seen).decode()
    if text not in ("daisy", "tulips", "roses"):
        return web.json_response({"error": "this is not an image"}, status=415)
    pairs = [[text, 0.75], ["weeds", 0.2], ["grass", 0.05]]
    return web.json_response(pairs[: int(request.query.get("top", "5"))])


@pytest.fixture
async def base() -> AsyncIterator[str]:
    async with Worker(judge) as worker, proxy_for(worker.address) as proxy:
        yield f"http://{HOST}:{proxy.port}"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, text in {"b.jpg": "tulips", "a.JPEG": "daisy", "more/c.png": "roses", "notes.txt": "no image"}.items():
        (folder / name).write_text(text)
    return folder


async def classify(*arguments: str | Path, stdin: str = "") -> tuple[int, list[str], str]:
    """-> exit status, lines on standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fairway", "classify", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
    assert process.returncode is not None
    assert b"Traceback" not in err
    return process.returncode, out.decode().splitlines(), err.decode()


@pytest.mark.parametrize("via", ["address", "forward", "redirect"])
async def test_a_folder(base: str, photos: Path, via: str) -> None:
    status, lines, _ = await classify(photos, "--url", base, "--via", via, "--top", "2")
    assert status == 0
    assert lines == [
        f"{photos}/a.JPEG: daisy 0.750, weeds 0.200",
        f"{photos}/b.jpg: tulips 0.750, weeds 0.200",
        f"{photos}/more/c.png: roses 0.750, weeds 0.200",
    ]


async def test_json_lines(base: str, photos: Path) -> None:
    files = [photos / "b.jpg", photos / "notes.txt"]
    status, lines, err = await classify(*files, "--json", "--top", "1", "--url", base)
    assert status == 1
    assert [json.loads(line) for line in lines] == [
        {"file": str(files[0]), "predictions": [["tulips", 0.75]]},
        {"file": str(files[1]), "error": "this is not an image"},
    ]
    assert "1 of 2 failed" in err


async def test_names_on_standard_input_with_bad_ones_among_them(base: str, photos: Path) -> None:
    names = [photos / "a.JPEG", photos / "missing.jpg", photos / "notes.txt", photos / "b.jpg"]
    stdin = "\n".join(map(str, names)) + "\n\n"
    status, lines, err = await classify("-", "--url", base, stdin=stdin)
    assert status == 1
    assert [line.partition(": ")[0] for line in lines] == [str(names[0]), str(names[3])]
    assert f"{names[1]}: No such file or directory" in err
    assert f"{names[2]}: this is not an image" in err
    assert "2 of 4 failed" in err


async def test_names_on_standard_input_are_taken_as_they_come(base: str, photos: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "fairway", "classify", "-", "--url", base),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    async with asyncio.timeout(30):
        for name, label in (("a.JPEG", b"daisy"), ("b.jpg", b"tulips")):
            process.stdin.write(f"{photos / name}\n".encode())
            assert label in await process.stdout.readline()  # before the next name is there
        process.stdin.close()
        assert await process.wait() == 0


async def test_no_proxy_is_said_clearly(photos: Path) -> None:
    address = dead_address()
    status, lines, err = await classify(photos / "a.JPEG", "--url", f"http://{address}")
    assert (status, lines) == (1, [])
    assert f"no proxy answers at http://{address} (Connection refused)" in err


async def test_a_mistaken_option_is_one_clear_line(photos: Path) -> None:
    status, lines, err = await classify(photos, "--via", "pigeon")
    assert (status, lines) == (78, [])
    assert err.startswith("fairway: --via: 'pigeon' will not do")
    assert "one of address, forward, redirect" in err
    assert err.count("\n") == 1


async def test_files_and_standard_input_together(base: str, photos: Path) -> None:
    status, lines, _ = await classify(photos / "b.jpg", "-", "--url", base, stdin=f"{photos / 'a.JPEG'}\n")
    assert status == 0
    assert [line.partition(":")[0] for line in lines] == [f"{photos}/b.jpg", f"{photos}/a.JPEG"]


async def test_a_folder_without_images(base: str, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    status, lines, err = await classify(empty, "--url", base)
    assert (status, lines) == (1, [])
    assert f"no images in {empty}" in err


async def test_the_scheme_may_be_left_out(base: str, photos: Path) -> None:
    status, _, _ = await classify(photos / "b.jpg", "--url", base.removeprefix("http://"))
    assert status == 0
