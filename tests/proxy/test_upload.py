"""Uploads held and carried: every size, spliced and copied, and sent again in full when the first worker breaks."""

from __future__ import annotations

import asyncio
import io
import os

import pytest

from fairway.proxy.holding import SMALL_BYTES

from .stage import DAISY, HOST, Worker, pieces, proxy_for, raw_worker, session_to, until

SIZES = [0, 1, 4000, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 100_000, 1_000_000, 1_048_576]


async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a little, and hangs up."""
    await reader.read(1000)


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("size", SIZES)
async def test_what_is_held_is_sent_again_to_the_last_byte(size: int, splice: bool) -> None:
    body = os.urandom(size)
    async with (
        raw_worker(breaks) as first,
        raw_worker(breaks) as second,
        Worker() as worker,
        proxy_for(first, second, worker.address, splice=splice) as proxy,
        session_to(proxy) as session,
    ):
        for _ in range(6):
            async with session.post("/x", data=io.BytesIO(body)) as said:
                assert (said.status, await said.read()) == (200, DAISY)
        assert [seen.body for seen in worker.requests] == [body] * 6
        assert repr(proxy.forwarder.holding) == "<Holding 0 of 268435456 bytes>"


@pytest.mark.parametrize("splice", [True, False])
async def test_beyond_the_window_it_passes_through_once(splice: bool) -> None:
    body = os.urandom(3_000_000)
    async with Worker() as worker, proxy_for(worker.address, splice=splice) as proxy, session_to(proxy) as session:
        for _ in range(3):
            async with session.post("/x", data=io.BytesIO(body)) as said:
                assert (said.status, await said.read()) == (200, DAISY)
        assert [seen.body for seen in worker.requests] == [body] * 3


@pytest.mark.parametrize("splice", [True, False])
async def test_beyond_the_window_a_lost_worker_is_a_clear_502(splice: bool) -> None:
    async with (
        raw_worker(breaks) as bad,
        Worker() as worker,
        proxy_for(bad, worker.address, splice=splice) as proxy,
        session_to(proxy) as session,
    ):
        statuses = []
        for _ in range(4):
            async with session.post("/x", data=io.BytesIO(bytes(3_000_000))) as said:
                statuses.append(said.status)
                if said.status == 502:
                    assert "the worker was lost" in (await said.json())["error"]
        assert sorted(set(statuses)) == [200, 502]


@pytest.mark.parametrize("splice", [True, False])
async def test_many_small_packets_fill_a_pipe_sooner(splice: bool) -> None:
    """A pipe holds pages: 600,000 bytes in 3,000 packets may not fit, and go through all the same."""
    body = os.urandom(600_000)
    async with Worker() as worker, proxy_for(worker.address, splice=splice) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 200):
            writer.write(body[at : at + 200])
            if at % 20_000 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert worker.requests[0].body == body


async def test_no_room_to_hold_is_no_reason_to_refuse() -> None:
    body = os.urandom(500_000)
    async with Worker() as worker, proxy_for(worker.address, held_bytes=1000) as proxy, session_to(proxy) as session:
        async with session.post("/x", data=io.BytesIO(body)) as said:
            assert said.status == 200
        async with session.post("/x", data=pieces()) as said:
            assert said.status == 200
        assert worker.requests[0].body == body


async def test_what_was_held_is_given_back_when_the_client_leaves() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy:
        _, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 900000\r\n\r\n" + bytes(500_000))
        await until(lambda: proxy.forwarder.holding.held == 900_000)
        writer.transport.abort()
        await until(lambda: proxy.in_flight == 0)
        assert (proxy.forwarder.holding.held, proxy.forwarder.holding.uploads) == (0, 0)
        assert not worker.requests
