"""A peer's end of the connection, against a real hub: announced, found, lost, found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.registry import Address, Hub, Instance, Link, Query
from fairway.registry.changes import Change, Put
from fairway.registry.credentials import Credentials
from fairway.registry.errors import RegistryUnreachable, StoreRefused, StoreUnavailable
from fairway.registry.ports import free_port
from fairway.registry.store import TTL_SECONDS
from fairway.registry.wire import Accepted, Free, Hello, Register, encode

from .peers import PATIENCE, greeted, row, running_hub


@asynccontextmanager
async def link_to(
    port: int, on_change: Callable[[Sequence[Change]], None] = lambda _: None, wait: float = PATIENCE
) -> AsyncIterator[Link]:
    async with closing(Link(Address("127.0.0.1", port), on_change)) as link:
        await link.start(wait)
        yield link


@asynccontextmanager
async def closing(link: Link) -> AsyncIterator[Link]:
    try:
        yield link
    finally:
        await link.close()


def ids(link: Link) -> list[str]:
    return [instance.id for instance in link.query()]


async def sees(link: Link, *expected: str) -> None:
    await link.wait_for(lambda: sorted(ids(link)) == sorted(expected), PATIENCE)


async def test_announce_change_withdraw(hub: Hub) -> None:
    async with link_to(hub.port) as worker, link_to(hub.port) as reader:
        mine = Instance("A1", "classify", Address("127.0.0.1", 9001), "1.2.3", "starting", ("flowers",), {"pid": 7})
        await worker.announce(mine)
        await sees(reader, "A1")
        assert reader.query() == [replace(mine, meta={"pid": 7, "ttl_seconds": TTL_SECONDS})]
        assert reader.query(Query.parse("classify@^1")) == reader.query()
        assert reader.query(Query.parse("classify@2")) == []
        await worker.announce(replace(mine, state="passing"))
        await reader.wait_for(lambda: reader.query()[0].state == "passing", PATIENCE)
        await worker.withdraw("A1")
        await sees(reader)
        assert repr(reader).startswith("<Link [up | 0 own | <Replica [0 instances")


async def test_seaports_one_liner(hub: Hub) -> None:
    async with link_to(hub.port) as worker, link_to(hub.port) as reader:
        given, found = worker.register("classify@1.2.3", 9001), worker.register("tf_classify_server")
        await sees(reader, given.id, found.id)
        assert (given.service, given.version, given.address.port) == ("classify", "1.2.3", 9001)
        assert (found.service, found.version) == ("tf_classify_server", "")
        assert found.address.port >= 10_000
        assert given.id != found.id


async def test_what_is_announced_before_the_start_is_said_on_connecting(hub: Hub) -> None:
    early = Link(Address("127.0.0.1", hub.port))
    mine = early.register("classify", 9001)
    assert repr(early).startswith("<Link [down | 1 own")
    async with link_to(hub.port) as reader:
        await early.start()
        await sees(reader, mine.id)
        await early.close()
        await sees(reader)


async def test_a_row_that_does_not_fit_is_not_kept(hub: Hub) -> None:
    async with link_to(hub.port) as worker:
        with pytest.raises(StoreRefused, match="at most 8192"):
            await worker.announce(Instance("A1", "a", Address("127.0.0.1", 1), meta={"words": "x" * 9000}))
        assert "| 0 own |" in repr(worker), "or it would end every connection from now on"


async def test_a_hub_that_comes_back_is_told_everything_and_the_copy_never_empties() -> None:
    sizes: list[int] = []
    async with running_hub() as first:
        port = first.port
        two = Link(Address("127.0.0.1", port), lambda _: sizes.append(len(ids(two))))
        async with link_to(port) as one, closing(two):
            await two.start(PATIENCE)
            one.register("classify", 9001)
            one.register("classify", 9002)
            mine = two.register("classify", 9003)
            known = list(one._own)
            await sees(two, *known)
            sizes.clear()
            await first.close()
            await one.wait_for(lambda: not one.replica.synced, PATIENCE)
            await two.wait_for(lambda: not two.replica.synced, PATIENCE)
            late = one.register("classify", 9004)  # nobody is there to hear it yet
            assert ids(two) == known, "what was known is all there is to go on with"
            async with running_hub(port=port) as second, link_to(port) as witness:
                await sees(witness, *known, late.id, mine.id)
                await sees(two, *known, late.id)
                assert min(sizes, default=2) >= 2, f"the copy emptied meanwhile: {sizes}"
                assert {instance.id for instance in second.catalog.query()} == {*known, late.id, mine.id}


async def test_a_link_may_be_there_before_its_hub() -> None:
    port = free_port()
    async with link_to(port, wait=0) as early:
        mine = early.register("classify", 9001)
        async with running_hub(port=port), link_to(port) as reader:
            await sees(reader, mine.id)
            await early.wait_for(lambda: early.replica.synced, PATIENCE)


async def test_our_own_row_is_not_taken_for_somebody_elses(hub: Hub) -> None:
    # The hub has not missed the old connection yet when the worker comes back: its dump holds the worker's own row.
    async with greeted(hub.port) as old, link_to(hub.port) as reader:
        old.say(row("A1"))
        await sees(reader, "A1")
        async with closing(Link(Address("127.0.0.1", hub.port))) as back:
            await back.start(PATIENCE)
            await back.announce(Instance("A1", "classify", Address("127.0.0.1", 9001)))
            await reader.wait_for(lambda: "ttl_seconds" in reader.query()[0].meta, PATIENCE)
            await back.withdraw("A1")
            await sees(reader)
            assert ids(back) == []


async def test_a_listener_that_fails_does_not_end_the_connection(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    async with link_to(hub.port, lambda _: print(1 / 0)) as reader, link_to(hub.port) as worker:
        await worker.announce(Instance("A1", "classify", Address("127.0.0.1", 9001)))
        await sees(reader, "A1")
    assert "ZeroDivisionError" in caplog.text


async def test_wait_for_gives_up(hub: Hub) -> None:
    async with link_to(hub.port) as link:
        begin = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await link.wait_for(lambda: bool(link.query()), 0.1)
        assert asyncio.get_running_loop().time() - begin < 2


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b"])  # the second is a name that DNS cannot spell
async def test_nobody_there(host: str) -> None:
    port = free_port()
    link = Link(Address(host, port))
    with pytest.raises(RegistryUnreachable) as caught:
        await link.start(0.3)
    assert str(caught.value) == f"no registry answers at {host}:{port}; start one with `fairway registry`"
    assert caught.value.status == 503


async def test_somebody_else_there(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(RegistryUnreachable):
            async with link_to(server.sockets[0].getsockname()[1], wait=0.3):
                pytest.fail("it took an HTTP server for a registry")
    assert "not a JSON row: b'HTTP/1.1 400 Bad Request" in caplog.text


@asynccontextmanager
async def no_hub(says: bytes | None) -> AsyncIterator[int]:
    """Accepts, and says this at once and closes; None: nothing, for ever, and reads nothing."""
    over = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if says is None:
            await over.wait()
        else:
            writer.write(says)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()


@pytest.mark.parametrize("says", [b"", b"what?\n", None])
async def test_the_next_hub_is_tried_if_one_accepts_and_serves_nobody(hub: Hub, says: bytes | None) -> None:
    """It is full, or speaks TLS, or is a stopped process, for which the system accepts."""
    async with no_hub(says) as port, closing(Link(f"127.0.0.1:{port},127.0.0.1:{hub.port}")) as link:
        await link.start(PATIENCE)
        await link.announce(Instance("A", "classify", Address("127.0.0.1", 9001)))
        assert hub.catalog.get("A") is not None


@pytest.mark.parametrize("rows", [1, 1000])  # the latter are more than the connection holds
async def test_a_hub_that_says_nothing_has_taken_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.registry.link.WRITE_SECONDS", 0.5)
    async with no_hub(None) as port, closing(Link(Address("127.0.0.1", port))) as link:
        await link.start()
        while not link.connected:  # noqa: ASYNC110 - nothing is told of it
            await asyncio.sleep(0)
        one = Instance("A", "classify", Address("127.0.0.1", 9001), meta={"words": "x" * 7000})
        async with asyncio.timeout(3):
            with pytest.raises(StoreUnavailable):
                await link.write([Put(replace(one, id=f"A{n}")) for n in range(rows)])


TOKEN = "worker-token-0123456789"


async def test_what_was_refused_is_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.registry.link.AGAIN_SECONDS", 0.2)
    tokens = tmp_path / "tokens"
    tokens.write_text("admin-token-0123456789 admin\n")
    async with (
        running_hub(token_file=tokens) as hub,
        closing(Link(Address("127.0.0.1", hub.port), credentials=Credentials(TOKEN))) as link,
        greeted(hub.port, Hello("admin-token-0123456789")) as watcher,
    ):
        await link.start()
        with pytest.raises(StoreRefused, match="may not register"):
            await link.announce(Instance("A", "classify", Address("127.0.0.1", 9001)))
        tokens.write_text(f"admin-token-0123456789 admin\n{TOKEN} register:classify\n")
        assert isinstance(await watcher.next(), Register)


async def test_a_hub_that_others_named_is_not_shown_the_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN} read,register:\n")
    shown: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not shown.done():
            shown.set_result(line)
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        async with running_hub(token_file=tokens) as hub, greeted(hub.port, Hello(TOKEN, ())) as peer:
            peer.say(row("H", port, role="seaport"))
            assert await peer.next() == Accepted("H")
            link = Link(Address("127.0.0.1", hub.port), credentials=Credentials(TOKEN))
            await link.start(PATIENCE)
        async with closing(link), asyncio.timeout(PATIENCE):
            assert await shown == encode(Hello(""))


async def test_rows_of_other_peers_arrive_and_go(hub: Hub) -> None:
    changes: list[Sequence[Change]] = []
    async with link_to(hub.port, changes.append) as link, greeted(hub.port) as peer:
        changes.clear()
        peer.say(row("A1"), Register("A2", {"role": "other", "port": 9002}))
        await sees(link, "A1", "A2")
        peer.say(Free("A1"))
        await sees(link, "A2")
        peer.writer.transport.abort()
        async with asyncio.timeout(1):
            await sees(link)
        assert len(changes) >= 3
