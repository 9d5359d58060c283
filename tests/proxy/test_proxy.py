"""Forwarding over real sockets: what arrives at a worker, and what comes back."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from aiohttp import web
from yarl import URL

from .stage import (
    BIG,
    DAISY,
    HOST,
    Seen,
    Worker,
    exchange,
    pieces,
    proxy_for,
    raw_worker,
    read_request,
    says,
    session_to,
)


async def test_everybody_in_turn() -> None:
    async with Worker() as a, Worker() as b, Worker() as c:
        async with proxy_for(a.address, b.address, c.address) as proxy, session_to(proxy) as session:
            for _ in range(9):
                async with session.post("/", data=b"image") as answer:
                    assert await answer.read() == DAISY
        assert [len(worker.requests) for worker in (a, b, c)] == [3, 3, 3]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "target", ["/", "/v1/models/x:predict?top=3&a=%2F&&b=%zz", "/a/../b//c?", "//other/x", "/~%41+"]
)
async def test_method_target_body_and_fields_arrive_unchanged(method: str, target: str) -> None:
    fields = {"Content-Type": "image/jpeg", "X-Mine": "a, b", "Authorization": "Bearer x", "Cookie": "k=v", "TE": "x"}
    async with Worker() as worker, proxy_for(worker.address, mode="forward") as proxy, session_to(proxy) as session:
        url = URL(f"http://{HOST}:{proxy.port}{target}", encoded=True)
        async with session.request(method, url, data=b"\0\xff\r\n\r\n", headers=fields) as answer:
            assert answer.status == 200
        (seen,) = worker.requests
        assert (seen.method, seen.body) == (method, b"\0\xff\r\n\r\n")
        assert seen.target == target.removesuffix("?")
        for name in ("Content-Type", "X-Mine", "Authorization", "Cookie"):
            assert seen.headers.getall(name) == [fields[name]]
        assert "TE" not in seen.headers
        assert seen.headers["Host"] == f"{HOST}:{proxy.port}"
        assert seen.headers["X-Forwarded-For"] == HOST
        assert seen.headers["Content-Length"] == "6"


async def test_no_field_is_invented_on_the_way_to_a_worker() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy:
        await exchange(proxy, b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        (seen,) = worker.requests
        assert sorted(seen.headers) == [
            "Forwarded", "Host", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-ID",
        ]  # fmt: skip


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_big_upload_streams_through_whole(chunked: bool) -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy, session_to(proxy) as session:
        headers = {} if chunked else {"Content-Length": str(len(BIG))}
        async with session.post("/", data=pieces(), headers=headers) as answer:
            assert answer.status == 200
        (seen,) = worker.requests
        assert seen.body == BIG
        assert seen.headers.get("Transfer-Encoding") == ("chunked" if chunked else None)
        assert seen.headers.get("Content-Length") == (None if chunked else str(len(BIG)))


async def test_a_small_chunked_upload_arrives_with_its_length() -> None:
    """Held whole, its length is known; workers that want one are served."""
    async with Worker() as worker, proxy_for(worker.address) as proxy:
        sent = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        assert b"daisy" in await exchange(proxy, sent + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
        (seen,) = worker.requests
        assert (seen.body, seen.headers["Content-Length"]) == (b"abcde", "5")
        assert "Transfer-Encoding" not in seen.headers


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_big_answer_streams_through_whole(chunked: bool) -> None:
    async def answer(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = None if chunked else len(BIG)
        await response.prepare(request)
        async for piece in pieces():
            await response.write(piece)
        return response

    async with (
        Worker(answer) as worker,
        proxy_for(worker.address) as proxy,
        session_to(proxy) as session,
        session.post("/", data=b"x") as said,
    ):
        assert await said.read() == BIG
        assert said.headers.get("Content-Length") == (None if chunked else str(len(BIG)))


async def test_compressed_bodies_are_not_touched() -> None:
    packed = gzip.compress(b"petals" * 1000)
    answer = says(200, packed, {"Content-Encoding": "gzip"})
    async with Worker(answer) as worker, proxy_for(worker.address) as proxy:
        async with (
            session_to(proxy, auto_decompress=False) as session,
            session.post("/", data=packed, headers={"Content-Encoding": "gzip"}) as said,
        ):
            assert (await said.read(), said.headers["Content-Encoding"]) == (packed, "gzip")
        assert worker.requests[0].body == packed
        assert worker.requests[0].headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize("status", [200, 201, 301, 400, 404, 415, 418, 500, 502, 504])
async def test_whatever_a_worker_says_is_passed_on(status: int) -> None:
    headers = {"X-Mine": "1", "Retry-After": "7", "Location": "/elsewhere"}
    async with Worker(says(status, b"text", headers)) as worker, proxy_for(worker.address) as proxy:
        async with session_to(proxy) as session, session.post("/", data=b"x", allow_redirects=False) as said:
            assert (said.status, await said.read()) == (status, b"text")
            assert {name: said.headers[name] for name in headers} == headers
        assert len(worker.requests) == 1


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n', None),
    ],
)
async def test_answers_without_a_body(method: str, answer: bytes, length: str | None) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)

    async with raw_worker(script) as address, proxy_for(address) as proxy, session_to(proxy) as session:
        for _ in range(2):  # the connection stays in step
            async with session.request(method, "/x") as said:
                assert said.status == int(answer.split()[1])
                assert said.headers.get("Content-Length") == length
                assert await said.read() == b""
