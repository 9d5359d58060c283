"""Why nobody was reached, in words: of the system, of a resolver, and of TLS, each of which counts its errors itself."""

from __future__ import annotations

import asyncio
import errno
import ssl

import pytest
from aiohttp import ClientError, ClientSession, ServerDisconnectedError

from fairway.client import Client, Unreachable, WorkerFailed
from fairway.client.courier import reason

from ..proxy.stage import Worker, dead_address, raw_worker

NOWHERE = "nobody.invalid"  # RFC 6761: no such host, ever


async def failure(url: str) -> Exception:
    async with ClientSession() as session:
        with pytest.raises(ClientError) as raised:
            await session.get(url)
    return raised.value


async def test_what_the_system_the_resolver_and_tls_say() -> None:
    assert reason(await failure(f"http://{dead_address()}/")) == "Connection refused"
    unknown = reason(await failure(f"http://{NOWHERE}/"))
    assert unknown
    assert "Unknown error" not in unknown
    async with Worker() as worker:  # it speaks no TLS
        assert "SSL" in reason(await failure(f"https://{worker.address}/"))


def test_what_has_no_number_says_its_text() -> None:
    assert reason(ServerDisconnectedError()) == "Server disconnected"
    assert reason(OSError(errno.ECONNRESET, "anything")) == "Connection reset by peer"
    assert reason(ssl.SSLError(1, "[SSL: RECORD] record layer: failure")) == "[SSL: RECORD] record layer: failure"
    assert reason(TimeoutError()) == ""


async def test_a_reason_with_a_colon_is_told_as_a_whole() -> None:
    async with Worker() as worker, Client(f"https://{worker.address}", timeout=0.5) as client:
        with pytest.raises(Unreachable, match=r"no proxy answers at https://\S+ \(\[SSL: \w+\]"):
            await client.classify(b"image")


@pytest.mark.parametrize("location", ["/elsewhere", "http://host:port/"])
async def test_a_redirect_to_no_server(location: str) -> None:
    async def nowhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location.encode())
        await writer.drain()

    async with raw_worker(nowhere) as address, Client(str(address), via="redirect") as client:
        with pytest.raises(WorkerFailed, match=f"redirects to '{location}', which is no server's address"):
            await client.classify(b"image")
