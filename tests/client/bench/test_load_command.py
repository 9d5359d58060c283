"""`fairway bench load` as a process: real proxies and workers, and small servers that misbehave."""

from __future__ import annotations

import asyncio
import csv
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ...cluster.fleet import Door, Fleet, Worker
from ...cluster.processes import FAIRWAY, Running
from ...conftest import ROOT, picture
from ...proxy import stage
from ...proxy.stage import Seen, cluster, daisy, dead_address, image_of, says, until, url

SHORT = ("--seconds=0.3", "--warm-up=0.1")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Door, list[Worker]]]:
    with Fleet() as fleet:
        yield fleet.cluster(2, fleet.registry()[1])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "b.jpg", "more/c.jpg")):
        (folder / name).write_bytes(picture(i))
    (folder / "notes.txt").write_text("no picture")
    return folder


async def started(*words: object, **more: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*FAIRWAY, "bench", "load", *map(str, words)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        **more,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """-> exit status, standard output, standard error."""
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


async def load(*words: object) -> tuple[int, str, str]:
    return await ended(await started(*words))


async def test_all_ways_side_by_side_in_both_loops(
    served: tuple[Door, list[Worker]], photos: Path, tmp_path: Path
) -> None:
    door, workers = served
    files = [tmp_path / f"load.{kind}" for kind in ("json", "csv", "svg")]
    status, out, err = await load(
        *("--url", door.url, "--images", photos, "--via=address,forward,redirect", "--concurrency=1,4", "--rate=auto"),
        *(f"--{flag}={file}" for flag, file in zip(("json", "csv", "plot"), files, strict=True)),
        *SHORT,
    )
    assert (status, err) == (0, ""), out
    found = json.loads(files[0].read_text())
    levels = found["levels"]
    ways = ["address", "forward", "redirect"]
    assert [level["way"] for level in levels] == ways * 6  # at each demand they take turns
    assert [level["clients"] for level in levels] == [1] * 3 + [4] * 3 + [None] * 12
    rates = [level["rate_asked"] for level in levels][6::3]
    assert rates == sorted(rates)
    assert 0 < rates[0] < rates[-1] < min(max(lv["rate"] for lv in levels[i:6:3]) for i in range(3))
    # By each way the same arrivals.
    assert all(len({level["sent"] for level in levels[at : at + 3]}) == 1 for at in range(6, 18, 3))
    addresses = {f"127.0.0.1:{worker.port}" for worker in workers}
    for level in levels:
        assert level["sent"] == level["answered"]
        assert level["errors"] == {}
        assert level["workers"].keys() <= addresses
        latency = level["latency_ms"]
        order = [latency[name] for name in ("p50", "p90", "p95", "p99", "p99.9", "max")]
        assert order == sorted(order)
        assert order[0] >= 5  # a light worker takes that long
        assert level["stable"] is None
    assert all(level["workers"].keys() == addresses for level in levels[:6])
    assert (found["pictures"], found["set_aside"], found["ended"]) == (3, {}, "")

    rows = list(csv.DictReader(files[1].read_text().splitlines()))
    assert [(row["way"], row["p99_ms"]) for row in rows] == [
        (level["way"], str(level["latency_ms"]["p99"])) for level in levels
    ]
    assert "</svg>" in files[2].read_text()

    lines = out.splitlines()
    assert re.match(r" +load +sent +answered +rate/s +MB/s +p50 ms .* p99\.9 ms +max ms +errors +own CPU$", lines[0])
    assert re.match(r"address +1 client +\d+ +\d+ +[\d.]+", lines[1])
    assert "where the time went is not known" in out  # these workers have no Server-Timing
    assert re.search(r"^forward: 127.0.0.1:\d+ \d+\.\d%, 127", out, re.M)


async def test_a_real_worker_says_where_its_time_went(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "no_op.py").write_text(
        "import numpy as np\n"
        "class NoOp:\n"
        "    inputs = (('image', 'float32', (None, 8, 8, 3)),)\n"
        "    outputs = (('scores', 'float32', (None, 2)),)\n"
        "    labels, card = ('yes', 'no'), {'input': {'width': 8, 'height': 8}}\n"
        "    def apply(self, x): return np.tile(np.array([[0.9, 0.1]], np.float32), (len(x), 1))\n"
    )
    command = [*FAIRWAY, "worker", "--registry=none", "--model=python:no_op:NoOp", "--batching=off"]
    with Running(command, env={"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{tmp_path}"}) as worker:
        at = worker.line(r"serving .* on http://(127\.0\.0\.1:\d+)/")[1]
        status, out, err = await load(
            *("--url", at, "--via=forward", "--images", photos, "--concurrency=2", "--json", tmp_path / "x.json"),
            *("--repeat-until-stable", "--seconds=0.2", "--warm-up=0.1"),
        )
    assert (status, err) == (0, ""), out
    (level,) = json.loads((tmp_path / "x.json").read_text())["levels"]
    parts = {part: both["mean"] for part, both in level["parts_ms"].items()}
    assert parts.keys() == {"client", "network", "queue", "decode", "infer", "encode"}
    assert min(parts["network"], parts["decode"], parts["infer"]) > 0
    assert sum(parts.values()) == pytest.approx(level["latency_ms"]["mean"], rel=0.05)
    assert level["workers"] == {at: level["answered"]}
    assert 3 <= len(level["windows"]) <= 10
    assert level["seconds"] == pytest.approx(0.6)  # of the last three
    assert level["stable"] is (f"yes, of {len(level['windows'])}" in out)
    assert ("not stable" in out) is not level["stable"]


async def test_the_proxy_dies_in_the_middle(photos: Path, tmp_path: Path) -> None:
    with Fleet() as fleet:
        door, (worker,) = fleet.cluster(1, fleet.registry()[1])
        process = await started(
            *("--url", door.url, "--images", photos, "--via=forward", "--concurrency=2,4", "--seconds=30"),
            *("--warm-up=0", "--json", tmp_path / "x.json"),
        )
        await until(lambda: worker.begun() > 50, 30)
        door.running.send(signal.SIGKILL)
        status, out, err = await ended(process)
    assert (status, err) == (1, "")
    found = json.loads((tmp_path / "x.json").read_text())
    (level,) = found["levels"]  # the second one was not begun
    assert level["answered"] > 40
    assert level["errors"]["connect"] >= 10
    assert level["seconds"] < 30
    assert found["ended"].startswith(f"nobody answers any more at {door.url}: cannot reach")
    assert f"warning: ended before its time: {found['ended']}" in out
    assert re.search(r"^forward +2 clients +\d+ +connect +cannot reach .*: Connection refused$", out, re.M)


async def test_interrupted_what_was_measured_is_kept(served: tuple[Door, list[Worker]], photos: Path) -> None:
    door, workers = served
    before = sum(worker.begun() for worker in workers)
    process = await started("--url", door.url, "--images", photos, "--rate=100", "--seconds=60", "--warm-up=0")
    await until(lambda: sum(worker.begun() for worker in workers) > before + 40, 30)
    process.send_signal(signal.SIGINT)
    status, out, err = await ended(process)
    assert (status, err) == (130, "")
    line = re.search(r"^address +100/s +(\d+) +(\d+) +", out, re.M)
    assert line
    assert int(line[2]) >= 10
    assert "ended before its time: interrupted" in out
    assert "\nerrors\n" not in out  # what was under way is nobody's fault


async def test_what_can_be_written_is_whatever_cannot(photos: Path, tmp_path: Path) -> None:
    """A full disk for the one, a reader who hung up for the other."""
    reader, writer = os.pipe()
    os.close(reader)
    async with stage.Worker() as worker:
        process = await asyncio.create_subprocess_exec(
            *(*FAIRWAY, "bench", "load", f"--url={worker.address}", "--via=forward", f"--images={photos}"),
            *("--concurrency=1", *SHORT, "--json=/dev/full", f"--csv={tmp_path / 'load.csv'}"),
            stdout=writer,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        os.close(writer)
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert err == b"fairway: /dev/full cannot be written: No space left on device\n"
    assert process.returncode == 1
    assert len((tmp_path / "load.csv").read_text().splitlines()) == 2


async def test_pictures_that_are_refused_are_named_and_set_aside(photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 broken")

    async def judge(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if b"broken" in image_of(seen):
            return web.json_response({"error": "it is broken"}, status=400)
        return await daisy(request, seen)

    async with cluster(judge) as (proxy, (worker,)):
        status, out, _ = await load("--url", url(proxy), "--images", photos, "--concurrency=1", *SHORT)
    assert status == 0
    assert re.search(r"not sent: 1 pictures: broken\.jpg; the first because .* answered 400: it is broken", out)
    assert sum(b"broken" in image_of(seen) for seen in worker.requests) == 1


async def test_wrong_answers_are_errors_and_the_run_is_no_success(photos: Path) -> None:
    numbers = count()

    async def fickle(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return web.json_response([["tulips" if next(numbers) % 4 == 3 else "daisy", 0.9]])

    async with cluster(fickle) as (proxy, _):
        status, out, _ = await load("--url", url(proxy), "--images", photos, "--concurrency=1", *SHORT)
    assert status == 1
    assert re.search(
        r"^address +1 client +\d+ +wrong answer +.* says tulips of .*\.jpg, which was daisy before$", out, re.M
    )


@pytest.mark.parametrize("hangs", [False, True])
async def test_nothing_is_answered(photos: Path, hangs: bool) -> None:
    numbers = count()

    async def soon_ill(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        if next(numbers) < 3:  # the trial
            return await daisy(request, seen)
        if hangs:
            await asyncio.Event().wait()
        return web.json_response({"error": "it fell over"}, status=500)

    async with cluster(soon_ill) as (proxy, _):
        words = ("--url", url(proxy), "--images", photos, "--concurrency=2,4", "--timeout-seconds=0.5")
        status, out, _ = await load(*words, *SHORT)
    assert status == 1
    assert re.search(r"^address +2 clients +\d+ +0 +0\.0 ", out, re.M)
    assert "4 clients" not in out  # there was no sense in it
    assert "nothing was answered" in out
    assert ("no answer from" if hangs else "it fell over") in out


async def test_several_urls_are_told_apart(photos: Path) -> None:
    async def worker(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return await daisy(request, seen) if seen.method == "POST" else web.Response(status=404)

    async with stage.Worker(worker) as one, stage.Worker(worker) as other:
        places = [one.address, other.address]
        words = ("--via=forward", "--images", photos, "--rate=50", "--sample=1")
        status, out, _ = await load("--url", ",".join(map(str, places)), *words, *SHORT)
    assert status == 0
    for place in places:
        assert re.search(rf"^forward {place} +50/s +\d+ ", out, re.M)
        assert f"forward {place}: {place} 100.0%" in out
    pictures = {image_of(seen) for at in (one, other) for seen in at.requests if seen.method == "POST"}
    assert len(pictures) == 1


@pytest.mark.parametrize("via", ["address", "forward", "redirect"])
async def test_nobody_there(photos: Path, via: str) -> None:
    address = dead_address()
    status, out, err = await load("--url", address, "--images", photos, "--via", via)
    assert (status, out, err) == (1, "", f"fairway: cannot reach http://{address}: Connection refused\n")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (says(404, b"<html>\nnot here</html>"), "answered 404: <html> not here</html>"),
        (says(200, b"<html>welcome</html>"), "answered 200, but not with a prediction"),
        (says(415, b'{"error": "no picture"}'), "none of the 3 pictures is taken"),
        (says(500, b'{"error": "it fell over"}'), "answered 500: it fell over"),
    ],
)
async def test_what_is_no_door_of_ours(photos: Path, answer: stage.Answer, complaint: str) -> None:
    async with stage.Worker(answer) as worker:
        status, out, err = await load("--url", worker.address, "--images", photos, "--via=forward")
    assert (status, out) == (1, "")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--images=/nowhere"], "there is no folder /nowhere"),
        (["--images="], "there are no pictures in"),
        ([], "--images: a folder"),
        (["--images=.", "--via=pigeon"], "--via: pigeon will not do: address, forward, redirect"),
        (["--images=.", "--concurrency=2,x"], "--concurrency: 'x' will not do"),
        (["--images=.", "--concurrency=0"], "--concurrency: '0' will not do"),
        (["--images=.", "--concurrency=none"], "--rate must name rates"),
        (["--images=.", "--rate=fast"], "--rate: 'fast' will not do"),
        (["--images=.", "--rate=auto,5"], "--rate: 'auto' will not do"),
        (["--images=.", "--seconds=0"], "--seconds"),
        (["--images=.", "--json=/nowhere/x.json"], "/nowhere/x.json cannot be written"),
        (["--images=.", "--plot=x.jpg"], "--plot: x.jpg will not do: a name that ends with .svg or .png"),
        (["--images=.", "--url=http://host:port/"], "--url: 'http://host:port/' will not do"),
    ],
)
async def test_settings_that_will_not_do(tmp_path: Path, words: list[str], complaint: str) -> None:
    words = [word if word != "--images=" else f"--images={tmp_path}" for word in words]
    status, out, err = await load(*words)
    assert (status, out) == (78, "")
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("words", "expected"), [([], 2), (["lode"], 2), (["--help"], 0), (["load", "--help"], 0)])
async def test_what_there_is(words: list[str], expected: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(*FAIRWAY, "bench", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == expected
    assert b"usage: fairway bench load" in out


@pytest.mark.parametrize("missing", ["hdrh", "matplotlib"])
async def test_a_missing_library_is_named_before_anything_is_measured(photos: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from fairway.client.bench.__main__ import load; "
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code + "sys.exit(load(sys.argv[1:]))", f"--images={photos}", "--plot=x.svg"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 78
    assert f"({missing}" in err.decode()
    assert "pip install 'fairway[measuring]'" in err.decode()


async def test_a_line_that_lives_on_a_terminal(served: tuple[Door, list[Worker]], photos: Path) -> None:
    door, _ = served
    terminal, theirs = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    words = ("--url", door.url, "--images", str(photos), "--concurrency=2", "--seconds=1", "--warm-up=0.1")
    process = await asyncio.create_subprocess_exec(
        *(*FAIRWAY, "bench", "load", *words), stdin=theirs, stdout=asyncio.subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # Linux says so when the other end is closed
                return
            if not piece:
                return
            shown.extend(piece)

    await asyncio.wait_for(asyncio.to_thread(read), 60)
    os.close(terminal)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    text = shown.decode()
    assert re.search(r"address, 2 clients \|.*\| \d of 1 s, \d+/s, p99 \d+\.\d ms, 0 errors", text), text
