"""Usage: scripts/fuzz proxy [requests answers] [--seconds 60]

Coverage-guided fuzzing of the whole proxy with atheris: real sockets, a worker that keeps every byte, and a second, strict
reader of HTTP/1.1 (tests/proxy/letter.py) as the judge. Bytes of a client: the worker must see what the letter reads, and
no second request. Bytes of a worker: the client must get what the letter reads, or hear that there was none. Each input
ends in seconds, and leaves nothing behind for the next. Findings are kept in a folder fuzz-proxy-NAME/.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

with atheris.instrument_imports(include=["fairway.proxy"]):
    from fairway.proxy import Proxy

from tests.proxy import corpus, corpus_bodies  # noqa: E402
from tests.proxy.recorder import Recorder  # noqa: E402
from tests.proxy.trial import SETTINGS, Speaker, before_recorder, before_speaker, try_answer, try_request  # noqa: E402

TOKENS = (
    b"Content-Length: ", b"Transfer-Encoding: ", b"chunked", b"Connection: ", b"close", b"keep-alive", b"Upgrade: ",
    b"websocket", b"Expect: 100-continue", b"Host: h", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r\n\r\n", b"0\r\n\r\n",
    b"3\r\nabc\r\n", b"GET / ", b"POST /x ", b"HEAD ", b"http://h/", b"content_length: ", b" : ", b"\t", b"\x0b", b"\0",
)  # fmt: skip
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\nHTTP/1.1 204 None\r\nConnection: close, x-a\r\n\r\n",
    b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\nHTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\nno",
)


def case(data: bytes) -> tuple[int, list[int], bytes]:
    """The first two bytes choose the settings, and the places where the rest is cut."""
    if len(data) < 2:
        return 0, [], data
    dice = random.Random(data[1])
    rest = data[2:]
    cuts = [dice.randrange(1, len(rest)) for _ in range(data[1] % 8)] if len(rest) > 1 else []
    return data[0], cuts, rest


def requests(loop: asyncio.AbstractEventLoop, stack: AsyncExitStack) -> Callable[[bytes], None]:
    async def open() -> list[tuple[Proxy, Recorder]]:
        return [await stack.enter_async_context(before_recorder(**settings)) for settings in SETTINGS]

    stages = loop.run_until_complete(open())

    def one(data: bytes) -> None:
        choice, cuts, rest = case(data)
        loop.run_until_complete(try_request(*stages[choice % len(stages)], rest, cuts))

    return one


def answers(loop: asyncio.AbstractEventLoop, stack: AsyncExitStack) -> Callable[[bytes], None]:
    async def open() -> list[tuple[Proxy, Speaker]]:
        return [await stack.enter_async_context(before_speaker(**SETTINGS[at])) for at in (0, 2)]

    stages = loop.run_until_complete(open())

    def one(data: bytes) -> None:
        choice, cuts, rest = case(data)
        method = (b"GET", b"HEAD", b"POST")[choice // 4 % 3]
        loop.run_until_complete(try_answer(*stages[choice % 2], rest, cuts, method, ends=choice % 4 < 2))

    return one


TARGETS = {"requests": requests, "answers": answers}


def seeds(name: str) -> list[bytes]:
    if name == "answers":
        return list(ANSWERS)
    return [found.sent for found in {**corpus.HEADS, **corpus_bodies.BODIES}.values() if len(found.sent) < 2000]


def run(name: str, arguments: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    loop, stack = asyncio.new_event_loop(), AsyncExitStack()  # never left: the process just ends
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name](loop, stack))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(usage=(__doc__ or "").partition("\n")[0].removeprefix("Usage: "))
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    failed = 0
    for name in given.targets or TARGETS:
        folder = Path(f"fuzz-proxy-{name}")
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds(name)):
            (folder / "corpus" / f"seed-{number}").write_bytes(bytes((number % 256, number % 8)) + seed)
        escaped = ('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"' for token in TOKENS)
        (folder / "tokens").write_text("\n".join(escaped) + "\n")
        print(f"proxy {name}: {given.seconds} s", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, __file__, "--run", name, f"-max_total_time={given.seconds}", "-timeout=20",
             "-rss_limit_mb=1024", "-max_len=4096", f"-dict={folder}/tokens", f"-artifact_prefix={folder}/",
             str(folder / "corpus")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        runs = re.findall(r"Done (\d+) runs", done.stdout)
        coverage = re.findall(r"cov: (\d+)", done.stdout)
        memory = re.findall(r"rss: (\d+)Mb", done.stdout)
        if done.returncode or not runs:
            failed += 1
            print(done.stdout[-4000:], file=sys.stderr)
            continue
        print(f"proxy {name:8} {runs[-1]:>10} inputs, {coverage[-1]} edges, {memory[-1]} MB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], sys.argv[3:])
        os._exit(0)
    sys.exit(main())
