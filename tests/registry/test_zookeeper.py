"""`zookeeper://` where it is ZooKeeper's: sessions, owners, members, and what the conformance suite does not ask of all."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.credentials import Credentials
from fairway.registry.errors import ConfigurationError, InvalidInstance, StoreRefused
from fairway.registry.store import Store, new_id, open_store
from fairway.registry.stores.document import document

from ..conformance.zookeeper import Ensemble, zookeeper_missing
from .zookeepers import PATIENCE, instance, opened, owner, sees, session, stranger, until, until_owner

if (why := zookeeper_missing()) is not None:
    pytest.skip(why, allow_module_level=True)


@pytest.fixture(scope="module")
def ensemble() -> Iterator[Ensemble]:
    """One server for all tests that do it no harm; each has a path of its own."""
    ensemble = Ensemble()
    asyncio.run(ensemble.start())
    yield ensemble
    ensemble.stop()


@pytest.fixture
def path() -> str:
    return f"t{new_id()}"


@pytest.fixture
def url(ensemble: Ensemble, path: str) -> str:
    return f"zookeeper://{ensemble.hosts}/{path}"


# -- where it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rest", "error"), [("", ConfigurationError), ("/path", ConfigurationError)])
def test_what_names_no_host_is_refused(rest: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_store(f"zookeeper://{rest}")


def test_what_is_no_port_is_refused() -> None:
    with pytest.raises(InvalidInstance):
        open_store("zookeeper://127.0.0.1:99999")


def test_without_kazoo_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "kazoo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kazoo", None)
    monkeypatch.delitem(sys.modules, "fairway.registry.stores.zookeeper_session", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'fairway\[zookeeper\]'"):
        open_store("zookeeper://127.0.0.1")


async def test_what_lies_where_is_for_anybody_to_read(ensemble: Ensemble, path: str) -> None:
    deep = f"{path}/deep/down"  # none of which is there yet
    async with opened(f"zookeeper://{ensemble.hosts}/{deep}") as store, stranger(ensemble.hosts) as client:
        worker = instance("a/b c", models=("flowers",))
        await store.write([Put(worker), Put(instance("lasting", 9100), "ops"), Mark("a/b c", False, "loud")])
        value, stat = await asyncio.to_thread(client.get, f"/{deep}/v1/classify/a%2Fb%20c")
        assert json.loads(value) == worker.as_meta() | {"writer": store.uid, "principal": ""}
        assert stat.ephemeralOwner == session(store).id
        assert await owner(client, f"/{deep}/v1/classify/lasting") == 0
        value, stat = await asyncio.to_thread(client.get, f"/{deep}/marks/a%2Fb%20c")
        assert (json.loads(value)["reason"], stat.ephemeralOwner) == ("loud", 0)
        await store.withdraw(worker.id)
        assert await owner(client, f"/{deep}/marks/a%2Fb%20c") == -1


async def test_without_a_path_it_is_called_fairway(ensemble: Ensemble) -> None:
    async with opened(f"zookeeper://{ensemble.hosts}") as store, stranger(ensemble.hosts) as client:
        await store.announce(instance())
        assert await owner(client, "/fairway/v1/classify/w1") == session(store).id


async def test_nodes_of_strangers_are_skipped_and_said_once(
    url: str, ensemble: Ensemble, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with stranger(ensemble.hosts) as client:
        for name, value in (("odd", b"\xff{"), ("list", b"[]"), ("nobodys", b'{"role": "classify", "port": 1}')):
            await asyncio.to_thread(client.create, f"/{path}/v1/classify/{name}", value, makepath=True)
        async with opened(url) as store, opened(url) as other:
            await other.announce(instance())
            await sees(store, "w1")
            await asyncio.to_thread(client.set, f"/{path}/v1/classify/odd", b"still odd")
            await other.announce(instance("w2"))
            await sees(store, "w1", "w2")
            await asyncio.to_thread(client.delete, f"/{path}/v1/classify/odd")
    said = [record for record in caplog.records if "odd" in record.getMessage() and store.uid]
    assert len(said) == 2, "each of the two stores says so, once"


# -- sessions ----------------------------------------------------------------------------------------------------------


async def expire(store: Store, hosts: str) -> None:
    """ZooKeeper is told that the session is over, by one that has the same."""
    id, password = session(store)._client.client_id
    async with stranger(hosts, client_id=(id, password)):
        pass


async def test_who_loses_its_session_announces_again(url: str, ensemble: Ensemble, path: str) -> None:
    async with opened(url) as store, opened(url) as reader, stranger(ensemble.hosts) as client:
        rows = [instance(f"w{number}", 9000 + number) for number in range(100)]
        await store.write([*map(Put, rows), Put(instance("lasting", 9100), "ops")])
        await sees(reader, "lasting", *(row.id for row in rows))
        before = session(store).id
        await expire(store, ensemble.hosts)
        await until(store, lambda: store.connected and session(store).id not in (0, before))
        await sees(reader, "lasting", *(row.id for row in rows))
        assert {await owner(client, f"/{path}/v1/classify/{row.id}") for row in rows} == {session(store).id}
        assert await owner(client, f"/{path}/v1/classify/lasting") == 0


async def test_a_reader_that_loses_its_session_keeps_its_copy(url: str, ensemble: Ensemble) -> None:
    sizes: list[int] = []
    async with opened(url) as store, opened(url, lambda _: sizes.append(len(reader.instances()))) as reader:
        await store.write([Put(instance(f"w{number}", 9000 + number)) for number in range(20)])
        await until(reader, lambda: len(reader.instances()) == 20)
        sizes.clear()
        before = session(reader).id
        await expire(reader, ensemble.hosts)
        await until(reader, lambda: reader.connected and session(reader).id not in (0, before))
        await store.withdraw("w0")  # it goes on hearing
        await until(reader, lambda: len(reader.instances()) == 19)
        assert min(sizes) == 19


async def test_a_row_of_our_former_session_is_made_anew_in_this_one(url: str, ensemble: Ensemble, path: str) -> None:
    """What zkconfig, and many after it, fell over: the old ephemeral node is still there, and ends with its session."""
    row = instance()
    where = f"/{path}/v1/classify/w1"
    async with opened(url) as store, opened(url) as reader:
        async with stranger(ensemble.hosts) as former:
            said = document(Put(row), store.uid)
            await asyncio.to_thread(former.create, where, said, ephemeral=True, makepath=True)
            await store.announce(row)
            assert await owner(former, where) == session(store).id
            # And if it happens behind our back, while all seems well:
            await asyncio.to_thread(_replace, former, where, said)
            await until_owner(former, where, session(store).id)
        await sees(reader, "w1")
        await store.announce(replace(row, weight=2))
        await until(reader, lambda: [one.weight for one in reader.instances()] == [2])


def _replace(client: Any, path: str, said: bytes) -> None:
    transaction = client.transaction()
    transaction.delete(path)
    transaction.create(path, said, ephemeral=True)
    assert transaction.commit() == [True, path]


async def test_what_vanishes_is_announced_again(url: str, ensemble: Ensemble, path: str) -> None:
    async with opened(url) as store, stranger(ensemble.hosts) as client:
        store._tree._look_again = lambda: None  # it is told, and does not have to look
        await store.write([Put(instance()), Put(instance("lasting", 9100), "ops")])
        await asyncio.to_thread(client.delete, f"/{path}/v1/classify/w1")
        await asyncio.to_thread(client.delete, f"/{path}/v1/classify/lasting")
        await until_owner(client, f"/{path}/v1/classify/w1", session(store).id)
        assert await owner(client, f"/{path}/v1/classify/lasting") == -1, "that is for anybody to remove"


async def test_what_vanishes_without_a_word_is_missed_all_the_same(url: str, ensemble: Ensemble, path: str) -> None:
    """A server that swaps sessions, a watch that was lost: our rows are looked at even so."""
    async with opened(url) as store, opened(url) as other, stranger(ensemble.hosts) as client:
        await store.announce(instance())
        await other.announce(instance("w2"))
        await sees(store, "w2")
        session(store)._heard = lambda _: None  # deaf from now on
        said = document(Put(instance()), store.uid)
        await asyncio.to_thread(_replace, client, f"/{path}/v1/classify/w1", said)
        await other.withdraw("w2")
        await until_owner(client, f"/{path}/v1/classify/w1", session(store).id)
        await sees(store)


async def test_when_all_of_it_is_removed_it_is_made_again(url: str, ensemble: Ensemble, path: str) -> None:
    async with opened(url) as store, opened(url) as reader, stranger(ensemble.hosts) as client:
        await store.announce(instance())
        await sees(reader, "w1")
        all_of_it = client.transaction()  # at once: else what is removed first would be back before the rest has gone
        for name in ("/v1/classify/w1", "/v1/classify", "/v1", "/marks", ""):
            all_of_it.delete(f"/{path}{name}")
        assert await asyncio.to_thread(all_of_it.commit) == [True] * 5
        await until_owner(client, f"/{path}/v1/classify/w1", session(store).id)
        await store.announce(instance("w2"))
        await sees(reader, "w1", "w2")


# -- whose a row is ----------------------------------------------------------------------------------------------------


async def test_who_frees_what_is_taken_over_at_that_moment_frees_nothing(url: str) -> None:
    """The heir's node counts its versions from 0 as the old one did: a version alone would tell them not apart."""
    told: list[Change] = []
    async with opened(url) as store, opened(url) as heir, opened(url, told.extend) as reader:
        await store.announce(instance())
        await sees(heir, "w1")
        commit, raced = session(store).commit, 0

        async def late(operations: Any) -> None:  # between our reading and our writing
            nonlocal raced
            if not raced:
                await heir.announce(instance(weight=2))
            raced += 1
            await commit(operations)

        session(store).commit = late
        await store.withdraw("w1")
        assert raced == 1, "it tried once, and then saw that the row was another's"
        await until(reader, lambda: [one.weight for one in reader.instances()] == [2])
        await heir.announce(instance("w3", 9003))
        await sees(reader, "w1", "w3")
        assert not [change for change in told if isinstance(change, Gone)], "it was gone for a moment"
        await heir.withdraw("w3")
        session(store).commit = commit
        await store.close()
        await heir.announce(instance("w2"))
        await sees(reader, "w1", "w2")


async def test_who_changes_what_is_taken_over_at_that_moment_owns_it_wholly(
    url: str, ensemble: Ensemble, path: str
) -> None:
    async with opened(url) as store, opened(url) as heir, stranger(ensemble.hosts) as client:
        await store.announce(instance())
        await sees(heir, "w1")
        commit, raced = session(store).commit, 0

        async def late(operations: Any) -> None:
            nonlocal raced
            if not raced:
                raced += 1
                await heir.announce(instance(weight=2))
            await commit(operations)

        session(store).commit = late
        await store.announce(instance(weight=3))
        value, stat = await asyncio.to_thread(client.get, f"/{path}/v1/classify/w1")
        assert (json.loads(value)["weight"], stat.ephemeralOwner) == (3, session(store).id), "the last word is ours"


async def test_what_an_heir_leaves_comes_back_to_who_had_it(url: str) -> None:
    async with opened(url) as store, opened(url) as heir, opened(url) as reader:
        await store.announce(instance())
        await sees(heir, "w1")
        await heir.announce(instance(weight=2))
        await until(reader, lambda: [one.weight for one in reader.instances()] == [2])
        await sees(store, "w1")
        await heir.close()
        await until(reader, lambda: [one.weight for one in reader.instances()] == [1])
        await sees(store)


# -- what is refused -------------------------------------------------------------------------------------------------------


async def test_with_a_user_nobody_else_reads_or_writes(ensemble: Ensemble, path: str) -> None:
    where = f"{ensemble.hosts}/{path}"
    async with (
        opened(f"zookeeper://user:secret@{where}") as store,
        opened(f"zookeeper://user@{where}", credentials=Credentials("secret")) as reader,
        stranger(ensemble.hosts) as client,
    ):
        await store.announce(instance())
        await sees(reader, "w1")
        for method in (lambda: client.get(f"/{path}/v1/classify/w1"), lambda: client.create(f"/{path}/v1/x", b"")):
            with pytest.raises(Exception, match=r"^$") as caught:
                await asyncio.to_thread(method)
            assert type(caught.value).__name__ == "NoAuthError"
        intruder = open_store(f"zookeeper://user:wrong@{where}")
        await intruder.start()
        try:
            with pytest.raises(StoreRefused, match="NoAuth"):
                await intruder.announce(instance("w2"))
            assert not intruder.synced
            assert not intruder.instances()
        finally:
            await intruder.close()
        await store.announce(instance("w3"))
        await sees(reader, "w1", "w3")


# -- the end -----------------------------------------------------------------------------------------------------------


def threads() -> set[threading.Thread]:
    """Without those of the loop's own executor."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_close_ends_the_session_and_all_threads(url: str, ensemble: Ensemble, path: str) -> None:
    async with stranger(ensemble.hosts) as client:
        before = threads()
        store = open_store(url)
        await store.start()
        lasting = instance("lasting", 9100)
        await store.write([Put(instance()), Put(lasting, "ops"), Mark("w1", False), Mark("lasting", False)])
        await until(store, lambda: len(store._marked) == 2)  # type: ignore[attr-defined]
        assert threads() > before
        await store.close()
        assert await owner(client, f"/{path}/v1/classify/w1") == -1
        assert await owner(client, f"/{path}/marks/w1") == -1, "what was said of a row ends with it"
        assert await owner(client, f"/{path}/v1/classify/lasting") == 0
        assert await owner(client, f"/{path}/marks/lasting") == 0
        for thread in threads() - before:
            await asyncio.to_thread(thread.join, PATIENCE)
        assert threads() <= before
