"""Who is let in at a real etcd, and what becomes of those who are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fairway.registry.changes import Put
from fairway.registry.credentials import Credentials
from fairway.registry.errors import StoreRefused, StoreUnavailable

from ..conformance.etcd import Cluster, Member, etcd_missing, running_cluster
from .certificates import certificates
from .etcd_stores import PATIENCE, encoded, instance, listing, sees, store_at


@pytest.fixture(autouse=True)
def _needs_etcd() -> None:
    if why := etcd_missing():
        pytest.skip(why)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as cluster:
        yield cluster


def guard(member: Member) -> None:
    """Root, and a user `fairway` who may do everything under /fairway/ and nothing else."""
    for user, role in (("root", "root"), ("fairway", "registry")):
        member.call("auth/user/add", {"name": user, "password": "pw"})
        member.call("auth/role/add", {"name": role})
        member.call("auth/user/grant", {"user": user, "role": role})
    rights = {"permType": "READWRITE", "key": encoded("/fairway/"), "range_end": encoded("/fairway0")}
    member.call("auth/role/grant", {"name": "registry", "perm": rights})
    member.call("auth/enable", {})


async def test_with_a_user_and_a_password(cluster: Cluster) -> None:
    member = cluster.members[0]
    guard(member)
    who = Credentials(token="pw")
    async with (
        store_at(f"fairway:pw@{cluster.hosts}") as writer,
        store_at(f"fairway@{cluster.hosts}", credentials=who) as reader,
    ):
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        member.kill()  # tokens are kept in memory: after this they are worth nothing
        await cluster.start()
        await reader.wait_for(lambda: reader.connected, PATIENCE)
        await writer.wait_for(lambda: writer.connected, PATIENCE)
        await writer.announce(instance(2))
        await sees(reader, ["A1", "A2"])


async def test_who_goes_on_with_a_token_that_is_worth_nothing_any_more(cluster: Cluster) -> None:
    guard(cluster.members[0])
    async with (
        store_at(f"fairway:pw@{cluster.hosts}") as writer,
        store_at(f"fairway:pw@{cluster.hosts}") as reader,
    ):
        writer._gateway._token = "expired.1"
        await asyncio.gather(*(writer.announce(instance(number)) for number in range(3)))
        await sees(reader, ["A0", "A1", "A2"])
        reader._gateway._token = "expired.1"
        reader.watch.list_anew()
        cluster.members[0].kill()
        await cluster.start()
        await writer.wait_for(lambda: writer.connected, PATIENCE)
        await writer.announce(instance(3))
        await sees(reader, ["A0", "A1", "A2", "A3"])


@pytest.mark.parametrize(
    ("login", "path", "words"),
    [
        ("fairway:wrong@", "", "authentication failed"),
        ("", "", "user name is empty"),
        ("fairway:pw@", "/elsewhere", "permission denied"),
    ],
)
async def test_who_is_not_let_in_is_told_at_once(cluster: Cluster, login: str, path: str, words: str) -> None:
    guard(cluster.members[0])
    async with store_at(f"{login}{cluster.hosts}{path}", ready=False) as store:
        with pytest.raises(StoreRefused, match=words):
            await store.announce(instance(1))
        assert not store.synced


async def test_who_may_read_and_not_write(cluster: Cluster) -> None:
    member = cluster.members[0]
    guard(member)
    token = member.call("auth/authenticate", {"name": "root", "password": "pw"})["token"]
    rights = {"permType": "READ", "key": encoded("/fairway/"), "range_end": encoded("/fairway0")}
    member.call("auth/role/add", {"name": "reader"}, token)
    member.call("auth/role/grant", {"name": "reader", "perm": rights}, token)
    member.call("auth/user/add", {"name": "eye", "password": "pw"}, token)
    member.call("auth/user/grant", {"user": "eye", "role": "reader"}, token)
    async with store_at(f"fairway:pw@{cluster.hosts}") as writer, store_at(f"eye:pw@{cluster.hosts}") as reader:
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        with pytest.raises(StoreRefused, match="permission denied"):
            await reader.write([Put(instance(2)), Put(instance(3))])
        assert "| 0 own |" in repr(reader), "what was refused is not tried for ever"


async def test_an_etcd_that_asks_nobody_is_used_without_a_login(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with store_at(f"fairway:pw@{cluster.hosts}") as store:
        await store.announce(instance(1))
        guard(cluster.members[0])  # and when it begins to ask, we answer
        await store.announce(instance(2))
        member = cluster.members[0]
        token = member.call("auth/authenticate", {"name": "root", "password": "pw"})["token"]
        assert set(listing(member, token=token)) == {"/fairway/v1/classify/A1", "/fairway/v1/classify/A2"}
    assert "it has authentication disabled" in caplog.text


async def test_over_tls() -> None:
    made = certificates()
    async with running_cluster(tls=(made.server_cert, made.server_key)) as cluster:
        trusting = Credentials(ca=made.ca)
        async with (
            store_at(f"etcds://{cluster.hosts}", credentials=trusting) as writer,
            store_at(f"etcd://{cluster.hosts}", credentials=trusting) as reader,
        ):
            await writer.announce(instance(1))
            await sees(reader, ["A1"])
        async with store_at(f"etcds://{cluster.hosts}", ready=False) as nobody:
            with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await nobody.announce(instance(2))
