"""One upload by each way, and each kind of failure, against a real proxy and small real workers."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from fairway.client.bench.tally import BROKEN, CONNECT, NO_PREDICTION, TIMEOUT, WRONG
from fairway.client.bench.way import Book, Way
from fairway.client.config import Via
from fairway.registry.errors import ConfigurationError

from ...proxy.stage import Seen, Worker, cluster, daisy, dead_address, image_of, proxy_for, raw_worker, says, url
from .stage import upload, way_to

VIAS: tuple[Via, ...] = ("address", "forward", "redirect")


@pytest.mark.parametrize("via", VIAS)
async def test_each_way_leads_to_the_workers(via: Via) -> None:
    async with cluster() as (proxy, workers), way_to(url(proxy), via) as way:
        before, picture, book = await way.served(), upload(), Book()
        for _ in range(4):
            reply = await way.send(picture, book)
            assert (reply.kind, reply.size) == ("", len(picture.body))
            assert reply.worker in {"", *(str(worker.address) for worker in workers)}
            assert bool(reply.worker) is (via != "forward")
        assert picture.label == "daisy"
        assert [len(worker.requests) for worker in workers] == [2, 2]
        assert {image_of(seen) for worker in workers for seen in worker.requests} == {b"\xff\xd8 a picture"}
        after = await way.served()
        assert before is not None
        assert after is not None
        gained = {place: count - before.get(place, 0) for place, count in after.items()}
        assert gained == ({str(worker.address): 2 for worker in workers} if via == "forward" else {})


@pytest.mark.parametrize("via", VIAS)
async def test_a_model_by_its_name_and_a_service(via: Via) -> None:
    async with cluster() as (proxy, workers):
        async with way_to(url(proxy), via, model="big cats") as way:
            assert (await way.send(upload(), Book())).kind in ("", "404")  # only forward looks at who has it
        async with way_to(url(proxy), via, service="nobody") as way:
            picture = upload()
            picture.headers["X-Fairway-Service"] = "nobody"
            assert (await way.send(picture, Book())).kind in ("404", "503")
        targets = {seen.target for worker in workers for seen in worker.requests}
        assert targets <= {"/v1/models/big%20cats:image"}


async def test_a_worker_without_a_proxy() -> None:
    async with Worker() as worker, way_to(worker.address) as way:
        assert (await way.send(upload(), Book())).kind == ""
        assert way.at == str(worker.address)
        worker.answer = says(404, b"no such page")
        assert await way.served() is None


async def test_where_its_time_went_is_handed_on() -> None:
    async def timed(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        response = await daisy(request, seen)
        response.headers.add("Server-Timing", "queue;dur=1, infer;dur=2")
        return response

    async with cluster(timed) as (proxy, _), way_to(url(proxy)) as way:
        reply = await way.send(upload(), Book())
        assert reply.timing.startswith("queue;dur=1, infer;dur=2, proxy;dur=")


async def test_a_large_upload() -> None:
    async with Worker() as worker, way_to(worker.address) as way:
        assert (await way.send(upload(data=bytes(3_000_000)), Book())).kind == ""
        assert len(image_of(worker.requests[0])) == 3_000_000


@pytest.mark.parametrize("status", [400, 415, 429, 500, 503])
async def test_a_status_is_its_own_kind(status: int) -> None:
    async with Worker(says(status, b'{"error": "so\\n it is"}')) as worker, way_to(worker.address) as way:
        reply = await way.send(upload(), Book())
        assert reply.kind == str(status)
        assert reply.text.endswith(f"answered {status}: so it is")


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[]", b'[["daisy"]]'])
async def test_no_prediction(body: bytes) -> None:
    async with Worker(says(200, body)) as worker, way_to(worker.address) as way:
        reply = await way.send(upload(), Book())
        assert reply.kind == NO_PREDICTION
        assert "answered 200, but not with a prediction" in reply.text


async def test_another_label_than_before() -> None:
    picture = upload()
    async with Worker() as worker, way_to(worker.address) as way:
        assert (await way.send(picture, Book())).kind == ""
        worker.answer = says(200, b'[["tulips", 0.9]]')
        reply = await way.send(picture, Book())
        assert reply.kind == WRONG
        assert reply.text.endswith("says tulips of daisy.jpg, which was daisy before")
        assert (await way.send(upload("tulips.jpg"), Book())).kind == ""


@pytest.mark.parametrize("via", VIAS)
async def test_nobody_there(via: Via) -> None:
    address = dead_address()
    async with way_to(address, via) as way:
        reply = await way.send(upload(), Book())
        assert (reply.kind, reply.text) == (CONNECT, f"cannot reach http://{address}: Connection refused")
        assert await way.served() == {}


async def test_a_connection_that_breaks() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with raw_worker(breaks) as address, way_to(address) as way:
        assert (await way.send(upload(), Book())).kind == BROKEN


async def test_no_answer_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with raw_worker(silent) as address, way_to(address, timeout=0.2) as way:
        reply = await way.send(upload(), Book())
        assert reply.kind == TIMEOUT
        assert "within 0.2 s" in reply.text


@pytest.mark.parametrize("via", ["address", "redirect"])
async def test_a_proxy_that_does_neither(via: Via) -> None:
    async with Worker() as worker, proxy_for(worker.address, mode="forward") as proxy, way_to(url(proxy), via) as way:
        worker.answer = says(200, b"hello")
        assert (await way.send(upload(), Book())).kind in (NO_PREDICTION, "404")


@pytest.mark.parametrize("location", ["/elsewhere", "http://host:port/"])
async def test_a_redirect_to_no_server(location: str) -> None:
    async def nowhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 Elsewhere\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % location.encode())
        await writer.drain()

    async with raw_worker(nowhere) as address, way_to(address, "redirect") as way:
        reply = await way.send(upload(), Book())
        assert reply.kind == NO_PREDICTION
        assert f"redirects to {location!r}, which is no server's address" in reply.text


async def test_a_dead_worker_is_passed_by_but_its_failure_is_told() -> None:
    """The library would try again, and nobody would know."""
    async with Worker() as worker, proxy_for(dead_address(), worker.address) as proxy:
        async with way_to(url(proxy), "address") as way:
            picture, book = upload(), Book()
            kinds = [(await way.send(picture, book)).kind for _ in range(6)]
        assert sorted(kinds) == ["", "", "", "", "", CONNECT]


async def test_many_who_need_an_address_ask_once() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy, way_to(url(proxy), "address") as way:
        book = Book()
        await asyncio.gather(*(way.send(upload(), book) for _ in range(20)))
        assert len(worker.requests) == 20
        assert book.cache.known == 1


@pytest.mark.parametrize("text", ["http://", "http://host:notaport/", "ftp://host:1/"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--url"):
        Way(text, "forward", 1.0)
