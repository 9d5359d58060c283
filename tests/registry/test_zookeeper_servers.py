"""Servers of `zookeeper://`: dead, silent, small, emptied, one of three gone, spoken to over TLS."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
from contextlib import closing
from dataclasses import replace

import pytest

from fairway.registry.changes import Change, Gone, Put
from fairway.registry.credentials import Credentials
from fairway.registry.errors import StoreRefused, StoreUnavailable
from fairway.registry.instance import Instance
from fairway.registry.ports import free_port
from fairway.registry.store import TTL_SECONDS, Store, open_store

from ..conformance.zookeeper import running_ensemble, zookeeper_missing
from .certificates import certificates
from .zookeepers import PATIENCE, instance, opened, sees, session, stranger, until, until_owner

if (why := zookeeper_missing()) is not None:
    pytest.skip(why, allow_module_level=True)


async def test_of_several_hosts_one_may_be_dead_and_one_silent() -> None:
    async with running_ensemble() as ensemble:
        with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # it takes the connection, and says nothing
            hosts = f"127.0.0.1:{free_port()},127.0.0.1:{silent.getsockname()[1]},{ensemble.hosts}"
            async with opened(f"zookeeper://{hosts}/path") as store, opened(f"zookeeper://{hosts}/path") as reader:
                await store.announce(instance())
                await sees(reader, "w1")


async def test_a_server_that_falls_silent_is_noticed_and_nothing_is_lost() -> None:
    async with running_ensemble() as ensemble:
        url = f"zookeeper://{ensemble.hosts}/silent"
        async with opened(url) as store, opened(url) as reader, opened(url) as leaving:
            await store.announce(instance())
            await sees(reader, "w1")
            server = ensemble.servers[0]
            server.send(signal.SIGSTOP)
            try:
                loop = asyncio.get_running_loop()
                begin = loop.time()
                await leaving.close()
                assert loop.time() - begin < 6, "who leaves does not wait for it"
                late = [store.announce(instance(f"w{number}", 9000 + number)) for number in range(2, 600)]
                ticks, over = 0, asyncio.ensure_future(asyncio.gather(*late, return_exceptions=True))
                while not over.done():  # the loop is never held
                    await asyncio.wait([over], timeout=0.05)
                    ticks += 1
                assert ticks > 40
                assert all(isinstance(error, StoreUnavailable) for error in over.result())
                await until(reader, lambda: not reader.connected)
                assert [one.id for one in reader.instances()] == ["w1"]
            finally:
                server.send(signal.SIGCONT)
            await sees(reader, *(f"w{number}" for number in range(1, 600)))


async def test_a_server_that_was_emptied_is_filled_again_and_the_copy_holds() -> None:
    """It has seen fewer transactions than we have: it refuses whoever wants to go on from there."""
    async with running_ensemble() as ensemble:
        url, sizes = f"zookeeper://{ensemble.hosts}/again", list[int]()
        async with (
            opened(url) as store,
            opened(url) as gone,
            opened(url, lambda _: sizes.append(len(reader.instances()))) as reader,
        ):
            rows = [instance(f"w{number}", 9000 + number) for number in range(10)]
            await store.write([*map(Put, rows), Put(instance("lasting", 9100), "ops")])
            await gone.announce(instance("orphan", 9200))
            await until(reader, lambda: len(reader.instances()) == 12)
            for _ in range(50):
                await store.announce(rows[0])
                await store.announce(replace(rows[0], weight=2))
            server = ensemble.servers[0]
            server.kill()
            await gone.close()
            shutil.rmtree(server.data)
            sizes.clear()
            await ensemble.start()
            wanted = {"lasting", *(row.id for row in rows)}
            await until(reader, lambda: reader.synced, 2 * PATIENCE)
            assert {one.id for one in reader.instances()} >= wanted
            await sees(reader, *wanted, seconds=2 * PATIENCE)  # the orphan was held for its owner, which never came
            assert min(sizes) >= 11
            async with opened(url) as newcomer:
                await sees(newcomer, *wanted)


async def test_one_of_three_members_dies_and_nobody_notices() -> None:
    async with running_ensemble(3) as ensemble:
        url = f"zookeeper://{ensemble.hosts}/three"
        told: list[Change] = []
        async with opened(url) as store, opened(url, told.extend) as reader:
            await store.write([Put(instance()), Put(instance("lasting", 9100), "ops")])
            await sees(reader, "w1", "lasting")
            leader = next(one for one in ensemble.servers if "Mode: leader" in one.command("srvr"))
            leader.kill()
            await store_up(store, instance("w2", 9002))
            await sees(reader, "w1", "w2", "lasting")
            assert not [change for change in told if isinstance(change, Gone)]


async def store_up(store: Store, row: Instance) -> None:
    """A new leader is chosen meanwhile."""
    try:
        await store.announce(row)
    except StoreUnavailable:
        await until(store, lambda: store.connected and row.id not in store._outbox)  # type: ignore[attr-defined]


async def test_over_tls_with_our_own_authority_only(caplog: pytest.LogCaptureFixture) -> None:
    keys = certificates()
    port = free_port()
    async with running_ensemble() as ensemble:
        server = ensemble.servers[0]
        server.kill()
        keystore = ensemble.folder / "server.pem"
        keystore.write_bytes(keys.server_key.read_bytes() + keys.server_cert.read_bytes())
        server.more += (
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
            f"secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n"
            f"ssl.keyStore.location={keystore}\nssl.keyStore.type=PEM\n"
            f"ssl.trustStore.location={keys.ca}\nssl.trustStore.type=PEM\n"
        )
        await ensemble.start()
        client = Credentials(ca=keys.ca, cert=keys.client_cert, key=keys.client_key)
        url = f"zookeeper://127.0.0.1:{port}/tls"
        async with opened(url, credentials=client) as store, opened(url, credentials=client) as reader:
            rows = [instance(f"w{number}", 9000 + number, meta={"words": "x" * 2000}) for number in range(100)]
            await store.write([Put(row) for row in rows])
            await sees(reader, *(row.id for row in rows))
        trusting = open_store(url, credentials=replace(client, ca=keys.stranger.pem))
        with caplog.at_level(logging.WARNING, "fairway.registry.zookeeper"):
            await trusting.start()
            with pytest.raises(StoreUnavailable):
                await trusting.announce(instance())
            await trusting.close()
        assert f"no ZooKeeper at 127.0.0.1:{port}" in caplog.text


async def test_what_is_too_large_for_the_server_is_refused_and_harms_nothing() -> None:
    """A server breaks the connection over a message that is too large for it, and says no word."""
    async with running_ensemble(flags=["-Djute.maxbuffer=4096"]) as ensemble:
        url = f"zookeeper://{ensemble.hosts}/small"
        async with opened(url) as store, opened(url) as reader:
            await store.announce(instance())
            with pytest.raises(StoreRefused, match=r"jute\.maxbuffer"):
                await store.announce(instance("large", meta={"words": "x" * 6000}))
            # Each of these fits, and all in one message would not.
            several = [instance(f"m{number}", 9100 + number, meta={"words": "x" * 700}) for number in range(10)]
            await store.write([Put(row) for row in several])
            await sees(reader, "w1", *(row.id for row in several))


async def test_who_is_away_for_longer_than_a_session_comes_back_by_itself() -> None:
    async with running_ensemble() as ensemble:
        url = f"zookeeper://{ensemble.hosts}/long"
        async with opened(url) as store, opened(url) as reader:
            await store.announce(instance())
            await sees(reader, "w1")
            ensemble.servers[0].kill()
            await until(store, lambda: not store.connected)
            first = session(store)._client
            async with asyncio.timeout(2 * PATIENCE):
                # The session is given up: there is nothing to resume.
                while session(store)._client is first:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await ensemble.start()
            await until(store, lambda: store.connected)
            await until(reader, lambda: reader.connected)
            async with stranger(ensemble.hosts) as client:
                await until_owner(client, "/long/v1/classify/w1", session(store).id)
            await asyncio.sleep(TTL_SECONDS + 1)  # until the old session is over: it takes nothing along
            assert [one.id for one in reader.instances()] == ["w1"]
