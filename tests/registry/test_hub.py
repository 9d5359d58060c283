"""The hub with real sockets on loopback: rows and HTTP on one port."""

from __future__ import annotations

import asyncio
import json
import logging

import aiohttp
import pytest

from fairway.registry import Hub
from fairway.registry.config import RegistrySettings
from fairway.registry.errors import ConfigurationError
from fairway.registry.wire import MAX_ROW, Free, Heartbeat, Helo, Register, Synced, encode

from .peers import PATIENCE, connected, greeted, row, running_hub


async def test_a_newcomer_hears_helo_then_all_rows_then_synced(hub: Hub) -> None:
    async with greeted(hub.port) as worker, greeted(hub.port) as other:
        worker.say(row("A1"), row("A2", 9002, version="1.2.3"))
        assert [await other.next(), await other.next()] == [
            Register("A1", {"role": "classify", "host": "127.0.0.1", "port": 9001, "id": "A1"}),
            Register("A2", {"role": "classify", "host": "127.0.0.1", "port": 9002, "id": "A2", "version": "1.2.3"}),
        ]
        async with connected(hub.port) as late:
            late.say(Synced())
            assert [register.id for register in await late.dump()] == ["A1", "A2"]
        assert repr(hub) == "<Hub <Catalog [2 instances of 1 services | 3 peers]>>"


async def test_everybody_but_the_origin_is_told(hub: Hub) -> None:
    async with greeted(hub.port) as one, greeted(hub.port) as two, greeted(hub.port) as three:
        one.say(row("A1"), row("A1", state="draining"), Free("A1"))
        for other in (two, three):
            heard = [await other.next() for _ in range(3)]
            assert [type(message) for message in heard] == [Register, Register, Free]
        two.say(row("B"))
        answer = await one.next()
        assert isinstance(answer, Register)
        assert answer.id == "B", "an echo of its own rows would have come before"


async def test_what_is_refused_is_not_told_but_logged(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    async with greeted(hub.port) as one, greeted(hub.port) as two:
        one.say(row("bad", port=0), row("far", host="10.0.0.7"), row("good"))
        heard = await two.next()
        assert isinstance(heard, Register)
        assert heard.id == "good"
    assert "refused bad from 127.0.0.1#1: 0 is not a port" in caplog.text
    assert "refused far from 127.0.0.1#1: 10.0.0.7 is not the peer's own address" in caplog.text


@pytest.mark.parametrize("end", ["killed", "hung up"])
async def test_the_end_of_a_connection_frees_at_once(hub: Hub, end: str) -> None:
    async with greeted(hub.port) as watcher, greeted(hub.port) as worker:
        worker.say(row("A1"), row("A2", 9002))
        await watcher.until(lambda message: isinstance(message, Register) and message.id == "A2")
        worker.writer.transport.abort() if end == "killed" else worker.writer.write_eof()
        async with asyncio.timeout(1):
            assert [await watcher.next(), await watcher.next()] == [Free("A1"), Free("A2")]


async def test_who_falls_silent_is_let_go(hub: Hub) -> None:
    async with greeted(hub.port) as watcher, greeted(hub.port) as worker:
        worker.say(row("A1", ttl_seconds=1))
        assert isinstance(await watcher.next(), Register)
        async with asyncio.timeout(3):
            assert await watcher.next() == Free("A1")
            with pytest.raises((EOFError, ConnectionError)):
                await worker.next()


async def test_peers_are_told_that_the_registry_lives() -> None:
    async with running_hub(heartbeat_seconds=0.05) as hub, greeted(hub.port) as peer:
        assert [await peer.hear(), await peer.hear()] == [Heartbeat(), Heartbeat()]


async def test_who_says_nothing_is_greeted_after_a_second(hub: Hub) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with connected(hub.port) as shy, greeted(hub.port) as other:
        assert loop.time() - begin < 0.9, "who speaks first does not wait"
        assert await shy.dump() == []
        assert 0.9 < loop.time() - begin < 5
        shy.say(row("A1"))
        assert isinstance(await other.next(), Register)


@pytest.mark.parametrize(
    "garbage", [b"[what is this?\n", b'["free"]\n', b"[" + b" " * MAX_ROW, b'["register","A2",{"port":NaN}]\n']
)
async def test_garbage_ends_its_sender_and_nobody_else(hub: Hub, garbage: bytes) -> None:
    async with greeted(hub.port) as watcher, greeted(hub.port) as vandal, greeted(hub.port) as other:
        vandal.say(row("A1"))
        assert isinstance(await watcher.next(), Register)
        vandal.writer.write(garbage)
        with pytest.raises((EOFError, ConnectionError)):
            await vandal.next()
        assert await watcher.next() == Free("A1")
        other.say(row("B"))
        assert isinstance(await watcher.next(), Register)


async def test_a_row_that_would_grow_too_long_does_not_bar_the_door(hub: Hub) -> None:
    grows = json.dumps(["register", "A1", {"role": "classify", "port": 1, "words": "ü" * 2000}], ensure_ascii=False)
    async with greeted(hub.port) as vandal, greeted(hub.port) as other:
        vandal.writer.write(grows.encode() + b"\n")
        vandal.say(row("A2"))
        heard = await other.next()
        assert isinstance(heard, Register)
        assert heard.id == "A2"
        async with connected(hub.port) as late:
            late.say(Synced())
            assert [register.id for register in await late.dump()] == ["A2"]


async def test_a_long_dump_is_delivered_in_full(hub: Hub) -> None:
    async with greeted(hub.port) as worker, connected(hub.port) as late:
        worker.say(*(row(f"A{n}", words="x" * 7000) for n in range(999)))
        async with connected(hub.port) as first:
            first.say(Synced())
            await first.until(lambda message: isinstance(message, Register) and message.id == "A998")
        late.say(Synced())
        assert len(await late.dump()) == 999


async def test_who_does_not_read_is_cut_off(hub: Hub) -> None:
    async with greeted(hub.port) as deaf, greeted(hub.port) as watcher, greeted(hub.port) as talker:
        deaf.say(row("A1"))
        await watcher.until(lambda message: isinstance(message, Register) and message.id == "A1")
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]

        async def talk() -> None:
            while True:
                talker.say(row("B", 9002, words="x" * 7000))
                await talker.writer.drain()

        talking = asyncio.create_task(talk())
        try:
            await watcher.until(lambda message: message == Free("A1"))
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)


async def test_connections_beyond_the_limit_are_closed() -> None:
    async with running_hub(max_connections=2) as hub, greeted(hub.port) as one, greeted(hub.port) as two:
        async with connected(hub.port) as third:
            with pytest.raises((EOFError, ConnectionError)):
                await third.hear()
        one.say(row("A1"))
        assert isinstance(await two.next(), Register)


async def test_http_connections_count_as_well() -> None:
    async with running_hub(max_connections=1) as hub, aiohttp.ClientSession() as http:
        async with http.get(f"http://127.0.0.1:{hub.port}/healthz") as answer:
            assert answer.status == 200
        async with connected(hub.port) as second:  # the first is kept alive
            with pytest.raises((EOFError, ConnectionError)):
                await second.hear()


async def test_http_on_the_same_port(hub: Hub) -> None:
    async with greeted(hub.port) as worker, greeted(hub.port) as other, aiohttp.ClientSession() as http:
        worker.say(row("A1", version="1.2.3"), row("A2", 9002, version="2.0.0", state="draining"))
        await other.until(lambda message: isinstance(message, Register) and message.id == "A2")

        async def get(path: str) -> object:
            async with http.get(f"http://127.0.0.1:{hub.port}{path}") as answer:
                assert answer.status == 200
                assert answer.content_type == "application/json"
                if path.startswith("/v1"):
                    assert answer.headers["X-Consul-Index"] == str(hub.catalog.index)
                return await answer.json()

        async def ids(path: str) -> list[str]:
            entries = await get(path)
            assert isinstance(entries, list)
            return [entry["Service"]["ID"] for entry in entries]

        assert await get("/healthz") == {"status": "ok"}
        assert await get("/v1/catalog/services") == {"classify": ["1.2.3", "2.0.0"]}
        assert await ids("/v1/health/service/classify") == ["A1", "A2"]
        assert await ids("/v1/health/service/classify?passing") == ["A1"]
        assert await ids("/v1/health/service/classify@2.x") == ["A2"]
        assert await ids("/v1/health/service/nobody") == []


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2", 404), ("PUT", "/healthz", 405)])
async def test_what_is_not_supported_says_what_is(hub: Hub, method: str, path: str, status: int) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, f"http://127.0.0.1:{hub.port}{path}") as answer,
    ):
        assert answer.status == status
        assert ("Allow" in answer.headers) is (status == 405)
        text = (await answer.json())["error"]
        assert text.startswith(f"{method} {path}: ")
        for word in ("/v1/catalog/services", "/v1/health/service/NAME", "/healthz", "seaport rows"):
            assert word in text


async def test_the_first_byte_decides_even_when_it_comes_alone(hub: Hub) -> None:
    async with connected(hub.port) as http, connected(hub.port) as rows:
        rows.writer.write(b"[")
        assert await rows.hear() == Helo("127.0.0.1"), "one byte is enough"
        rows.writer.write(encode(row("A1"))[1:] + encode(row("A2"))[:-1])
        http.writer.write(b"G")
        await http.writer.drain()
        http.writer.write(b"ET /healthz HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            answer = await http.reader.read()
        assert answer.startswith(b"HTTP/1.0 200 OK")
        assert answer.endswith(b'{"status": "ok"}')
        async with connected(hub.port) as other:
            other.say(Synced())
            assert [register.id for register in await other.dump()] == ["A1"], "half a row is no row"


async def test_a_port_that_is_taken(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    second = Hub(RegistrySettings(port=hub.port))
    with pytest.raises(ConfigurationError, match=f"the registry cannot listen on 127.0.0.1:{hub.port}: .*in use"):
        await second.start()
    await second.close()
    assert "listening" not in caplog.text
