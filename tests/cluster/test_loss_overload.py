"""Three times as much as the workers can do: they do as much as ever, and the rest is told so at once."""

from __future__ import annotations

import asyncio

import pytest

from .fleet import Door, Fleet
from .uploads import Load, Said, Send, by_library, images, plainly

MB = 1_000_000
LIMIT, SECONDS = 2, 0.05  # each worker: uploads at work at once, and for how long
CAPACITY = 3 * LIMIT / SECONDS  # a second
WORKER = (f"--limit={LIMIT}", f"--seconds={SECONDS}", "--waiting=2")


async def offered(send: Send, rate: float, seconds: float) -> list[Said]:
    """Uploads that come at their own pace, whatever becomes of the ones before -> all that was said."""
    loop = asyncio.get_running_loop()
    began, pool = loop.time(), images(200, (1_000,))
    sent: list[asyncio.Task[Said]] = []
    for number in range(int(rate * seconds)):
        if (early := began + number / rate - loop.time()) > 0:
            await asyncio.sleep(early)
        sent.append(asyncio.create_task(send(pool[number % len(pool)])))
    return await asyncio.gather(*sent)


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        ((), {429}),  # the workers refuse
        ((f"--worker-limit={LIMIT}", "--max-in-flight=20"), {503}),  # the proxy lets nobody be asked for too much
    ],
)
async def test_three_times_what_can_be_done(fleet: Fleet, hub: int, flags: tuple[str, ...], refused: set[int]) -> None:
    door, _ = fleet.cluster(3, hub, "--slow-start-seconds=0", *flags, worker=WORKER)
    async with plainly(door.url) as send:
        peak = await offered(send, CAPACITY, 3)
        before = door.memory()
        said = await offered(send, 3 * CAPACITY, 3)
    good = sum(one.right for one in said)
    assert good >= 0.9 * sum(one.right for one in peak)
    assert good < 0.6 * len(said), "that was no overload"
    rest = [one for one in said if not one.right]
    assert {one.status for one in rest} == refused
    assert all(one.retry_after for one in rest)
    assert door.memory() - before < 10 * MB
    async with plainly(door.url) as send, Load(send, 50, concurrency=4) as load:
        pass
    assert load.failed == []  # and it is over when it is over


async def test_the_library_comes_again_when_it_is_told_to(fleet: Fleet, hub: int) -> None:
    """Many at once, and more than can be done: later, but none is lost."""
    door, _ = fleet.cluster(3, hub, "--slow-start-seconds=0", worker=WORKER)
    async with by_library(door.url, "forward", attempt_timeout=10) as send, Load(send, concurrency=36) as load:
        pass
    assert load.failed == []


async def test_more_connections_than_are_allowed(fleet: Fleet, hub: int) -> None:
    door, _ = fleet.cluster(3, hub, "--max-connections=50")
    held = [await connect(door) for _ in range(50)]
    for _ in range(20):
        said, _, writer = await connect(door)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in said.lower()
        writer.close()
    assert all(said.startswith(b"HTTP/1.1 200 ") for said, _, _ in held)
    for _, reader, writer in held[:10]:
        writer.close()
        assert await reader.read() == b""
    again = [await connect(door) for _ in range(10)]
    assert all(said.startswith(b"HTTP/1.1 200 ") for said, _, _ in again)
    for _, _, writer in (*held, *again):
        writer.close()


async def connect(door: Door) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """-> what was answered to a question, on a connection that may stay."""
    reader, writer = await asyncio.open_connection(door.host, door.port)
    writer.write(b"GET /-/healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    async with asyncio.timeout(10):
        return await reader.read(65536), reader, writer
