"""The hub with real sockets on loopback: rows and HTTP on one port."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest

from fairway.registry import Hub
from fairway.registry.config import RegistrySettings
from fairway.registry.errors import ConfigurationError
from fairway.registry.listeners import rows as rows_listener
from fairway.registry.listeners.rows import CHUNK_ROWS, HIGH_WATER
from fairway.registry.ports import free_port
from fairway.registry.wire import (
    MAX_ROW,
    Accepted,
    Free,
    Heartbeat,
    Hello,
    Helo,
    Marked,
    Register,
    Rejected,
    Synced,
    encode,
)

from .peers import PATIENCE, connected, greeted, listening, row, running_hub


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
        one.say(row("A1"), row("A1", words="more"), Free("A1"))
        for other in (two, three):
            heard = [await other.next() for _ in range(3)]
            assert [type(message) for message in heard] == [Register, Register, Free]
        two.say(row("B"))
        answer = await one.next()
        assert isinstance(answer, Register)
        assert answer.id == "B", "an echo of its own rows would have come before"


async def test_seaports_peers_know_no_states_and_are_told_of_none(hub: Hub) -> None:
    async with greeted(hub.port) as worker, greeted(hub.port) as theirs, greeted(hub.port, Hello()) as ours:
        worker.say(row("A1", state="starting"), row("A1"), row("A1", state="draining"), row("B", 9002))
        heard = [await theirs.next() for _ in range(3)]
        assert [(type(m), m.id) for m in heard] == [(Register, "A1"), (Free, "A1"), (Register, "B")]  # type: ignore[union-attr]
        states = [m.meta.get("state") for m in [await ours.next() for _ in range(4)] if isinstance(m, Register)]
        assert states == ["starting", None, "draining", None]
        async with connected(hub.port) as late:
            late.say(Synced())
            assert [register.id for register in await late.dump()] == ["B"]


async def test_a_reader_hears_of_the_services_it_asked_for(hub: Hub) -> None:
    async with greeted(hub.port) as worker, greeted(hub.port, Hello(services=("b",))) as reader:
        worker.say(row("A", role="a"), row("B", role="b"), row("C", role="c"), Free("B"))
        assert [type(await reader.next()) for _ in range(2)] == [Register, Free]
        async with greeted(hub.port, Hello(services=())) as nobody:
            worker.say(row("D", role="b"))
            assert isinstance(await reader.next(), Register)
            nobody.say(row("E", 9005, role="a"))
            assert await nobody.next() == Accepted("E")


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


async def test_who_does_not_read_is_told_the_end_of_the_story_and_costs_little(hub: Hub) -> None:
    """It is not cut off, and nothing is kept for it but which rows changed."""
    words = "x" * 7000
    async with greeted(hub.port) as deaf, greeted(hub.port) as watcher, greeted(hub.port) as talker:
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for turn in range(30):
            talker.say(*(row(f"A{n}", 9100 + n, turn=turn, words=words) for n in range(100)))
            await talker.writer.drain()
        talker.say(Free("A7"), row("last"))
        await watcher.until(lambda message: isinstance(message, Register) and message.id == "last")
        protocol = next(peer for peer in hub.peers.values() if peer._watcher and not peer._watcher.flowing)
        assert protocol.transport.get_write_buffer_size() < 2 * HIGH_WATER + CHUNK_ROWS * MAX_ROW
        assert protocol._watcher is not None
        assert protocol._watcher.behind <= 101
        deaf.reader._transport.resume_reading()  # type: ignore[attr-defined]
        copy: dict[str, Any] = {}
        while len(copy) < 100 or any(meta.get("turn") != 29 for id, meta in copy.items() if id != "last"):
            match await deaf.next():
                case Register(id, meta):
                    copy[id] = meta
                case Free(id):
                    copy.pop(id, None)
        assert copy.keys() == {instance.id for instance in hub.catalog.query()}


async def test_who_asks_and_never_reads_is_cut_off(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_listener, "MAX_UNREAD", 32 * 1024)
    async with greeted(hub.port, Hello(services=())) as deaf, greeted(hub.port) as watcher:
        deaf.say(row("A1"))
        await watcher.until(lambda message: isinstance(message, Register) and message.id == "A1")
        deaf.reader._transport.pause_reading()  # type: ignore[attr-defined]

        async def ask() -> None:
            while True:
                deaf.say(*(row("bad", port=0, words="x" * 1000) for _ in range(100)))
                await deaf.writer.drain()

        asking = asyncio.create_task(ask())
        try:
            await watcher.until(lambda message: message == Free("A1"))
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def test_a_registration_is_answered(hub: Hub) -> None:
    async with greeted(hub.port, Hello(services=())) as worker:
        for _ in range(2):
            worker.say(row("A1"))
            assert await worker.next() == Accepted("A1"), "what says nothing new is answered all the same"
        worker.say(row("bad", port=0))
        refused = await worker.next()
        assert isinstance(refused, Rejected)
        assert "0 is not a port" in refused.reason
        worker.say(Marked("A1", False, "a test"))
        assert [await worker.next(), await worker.next()] == [Marked("A1", False, "a test"), Accepted("A1")]
        assert not hub.catalog.instances()[0].enabled


async def test_an_address_is_served_once_somebody_listens_there() -> None:
    port = free_port()
    async with (
        running_hub(dial_back=True) as hub,
        greeted(hub.port) as watcher,
        greeted(hub.port, Hello(services=())) as worker,
    ):
        worker.say(row("A1", port))
        refused = await worker.next()
        assert isinstance(refused, Rejected)
        assert f"nobody can be reached at 127.0.0.1:{port}" in refused.reason
        assert hub.catalog.instances() == []
        async with listening(port):
            heard = await watcher.next()
            assert isinstance(heard, Register)
            assert heard.id == "A1"
            worker.say(row("A1", port, words="again"))
            assert await worker.next() == Accepted("A1")


async def test_what_is_asked_of_an_address_where_nobody_listens_leaves_nothing_behind() -> None:
    dead = [free_port() for _ in range(3)]
    async with running_hub(dial_back=True) as hub:
        async with greeted(hub.port, Hello(services=())) as vandal:
            for turn in range(20):
                vandal.say(*(row(f"A{n}", port, turn=turn) for n, port in enumerate(dead)))
            await vandal.until(lambda message: isinstance(message, Rejected))
            assert len(hub._dialler._tasks) <= 3, "one for each row, however often it is said"
        async with asyncio.timeout(PATIENCE):
            while hub._dialler._tasks:
                await asyncio.wait(list(hub._dialler._tasks.values()))
        assert not hub._asked


async def test_the_story_of_the_zombie() -> None:
    """thalassa #12: hub down, worker A dies, hub back, worker B announces A as well as itself."""
    dead = free_port()
    async with (
        running_hub(dial_back=True) as hub,
        listening() as alive,
        connected(hub.port) as b,
        greeted(hub.port) as watcher,
    ):
        b.say(row("A", dead), row("B", alive), Synced())
        heard = await watcher.next()
        assert isinstance(heard, Register)
        assert heard.id == "B"
        watcher.say(row("C", 9003))
        await b.until(lambda message: isinstance(message, Register) and message.id == "C")
        assert {instance.id for instance in hub.catalog.instances()} == {"B", "C"}


async def test_an_operators_endless_reason_is_cut(hub: Hub) -> None:
    async with greeted(hub.port, Hello()) as worker, greeted(hub.port, Hello()) as admin:
        worker.say(row("A1"))
        assert await worker.next() == Accepted("A1")
        admin.writer.write(json.dumps(["mark", "A1", False, "ü" * 3000], ensure_ascii=False).encode() + b"\n")
        marked = await worker.until(lambda message: isinstance(message, Marked))
        assert isinstance(marked, Marked)
        assert marked.reason == "ü" * 512
        await admin.until(lambda message: message == Accepted("A1"))


async def test_who_may_be_the_worker_is_not_told_that_it_is_gone() -> None:
    """An npm client that came back before its old connection was missed would take it for its own end."""
    async with (
        running_hub(dial_back=True) as hub,
        listening() as port,
        greeted(hub.port) as watcher,
        connected(hub.port) as back,
    ):
        async with greeted(hub.port) as old:
            old.say(row("A1", port))
            await watcher.until(lambda message: isinstance(message, Register) and message.id == "A1")
            back.say(row("A1", port), Synced())
            assert [register.id for register in await back.dump()] == ["A1"]
        assert await watcher.next() == Free("A1")
        again = await watcher.next()
        assert isinstance(again, Register)
        assert again.id == "A1", "it was reached, and is its own again"
        watcher.say(row("C", 9003))
        heard = await back.next()
        assert isinstance(heard, Register)
        assert heard.id == "C"


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
    async with (
        greeted(hub.port) as worker,
        greeted(hub.port, Hello()) as other,
        aiohttp.ClientSession(f"http://127.0.0.1:{hub.port}") as http,
    ):
        worker.say(row("A1", version="1.2.3"), row("A2", 9002, version="2.0.0", state="draining"))
        await other.until(lambda message: isinstance(message, Register) and message.id == "A2")

        async def ids(path: str) -> list[str]:
            async with http.get(path) as answer:
                assert answer.status == 200
                assert answer.headers["X-Consul-Index"] == str(hub.catalog.index_of("classify"))
                return [entry["Service"]["ID"] for entry in await answer.json()]

        assert await ids("/v1/health/service/classify") == ["A1", "A2"]
        assert await ids("/v1/health/service/classify?passing") == ["A1"]
        assert await ids("/v1/health/service/classify@2.x") == ["A2"]


async def test_the_first_byte_decides_even_when_it_comes_alone(hub: Hub) -> None:
    async with connected(hub.port) as http, connected(hub.port) as rows:
        rows.writer.write(b"[")
        assert await rows.hear() == Helo("127.0.0.1", fairway=True), "one byte is enough"
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
