"""`mdns://` on loopback: what the conformance suite does not ask. Strangers on the network, foreign clients, restarts."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from zeroconf import IPVersion, ServiceInfo
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.credentials import Credentials
from fairway.registry.errors import ConfigurationError, StoreRefused, StoreUnavailable
from fairway.registry.instance import Address, Instance
from fairway.registry.lan import Lan, Service
from fairway.registry.link import Link
from fairway.registry.store import Store, open_store
from fairway.registry.stores.mdns import KIND, MdnsStore
from fairway.registry.stores.mdns_rows import Rows
from fairway.registry.stores.mdns_words import Word, encode, label

from ..cluster.processes import Running
from ..conformance.mdns import multicast_missing
from .peers import running_hub

OWNER = Path(__file__).parents[1] / "conformance" / "owner.py"
PATIENCE = 20.0

needs_multicast = pytest.mark.skipif(bool(missing := multicast_missing()), reason=str(missing))


@pytest.fixture
def group() -> str:
    return secrets.token_hex(8)


@asynccontextmanager
async def opened(group: str, on_change: Callable[..., None] = lambda _: None) -> AsyncIterator[MdnsStore]:
    store = open_store(f"mdns://127.0.0.1/{group}", on_change)
    assert isinstance(store, MdnsStore)
    await store.start()
    try:
        await store.wait_for(lambda: store.synced and store.connected, PATIENCE)
        yield store
    finally:
        await store.close()


def instance(id: str = "A1", **more: object) -> Instance:
    return replace(Instance(id, "classify", Address("127.0.0.1", 9001)), **more)  # type: ignore[arg-type]


async def sees(store: Store, *wanted: Instance) -> None:
    def right() -> bool:
        return sorted(store.instances(), key=lambda i: i.id) == sorted(wanted, key=lambda i: i.id)

    try:
        await store.wait_for(right, PATIENCE)
    except TimeoutError:
        raise AssertionError(f"{store!r} holds {store.instances()}") from None


@asynccontextmanager
async def stranger() -> AsyncIterator[Lan]:
    """Somebody who may say anything."""
    lan = Lan(KIND, ["127.0.0.1"], beat_seconds=3.0, ttl_seconds=10)
    await lan.start()
    try:
        yield lan
    finally:
        await lan.close()


# -- what is no address, and what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["mdns://eth0", "mdns://127.0.0.1,10.0.0.1", "mdns://::1", "mdns:///Group", "mdns:///a/b", "mdns://u:p@10.0.0.1"],
)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        open_store(url)


def test_there_is_nobody_to_show_a_token_to() -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        open_store("mdns://", credentials=Credentials("secret"))


async def test_what_others_could_not_reach_is_not_said() -> None:
    """Without start: nothing may be sent beyond loopback here."""
    store = open_store("mdns://")
    for host, reason in (("127.0.0.1", "nobody else"), ("worker-7", "IPv4"), ("::1", "IPv4"), ("localhost", "IPv4")):
        with pytest.raises(StoreRefused, match=reason):
            await store.announce(instance(address=Address(host, 9001)))
    with pytest.raises(StoreUnavailable):
        await store.announce(instance(address=Address("10.0.0.7", 9001)))


@needs_multicast
async def test_what_outlives_its_writer_is_refused_and_nothing_of_its_write_is_done(group: str) -> None:
    async with opened(group) as writer, opened(group) as reader:
        for change in (Put(instance("B2"), "ops"), Gone(instance("B2"), "ops"), Mark("A1", False)):
            with pytest.raises(StoreRefused, match="use a registry"):
                await writer.write([Put(instance("C3")), change])
        with pytest.raises(StoreRefused, match=r"127\.0\.0\.0/8"):
            await writer.announce(instance(address=Address("10.0.0.7", 9001)))
        await writer.announce(instance())
        await sees(reader, instance())


async def test_without_a_network_the_store_waits_for_one() -> None:
    store = open_store("mdns://127.0.0.99")  # no interface's address
    await store.start()
    try:
        with pytest.raises(StoreUnavailable, match="no network"):
            await store.announce(instance())
        assert not store.connected
        assert not store.synced
    finally:
        await store.close()


@needs_multicast
async def test_two_registries_over_it_are_one(group: str) -> None:
    url = f"mdns://127.0.0.1/{group}"
    async with running_hub(store=url) as one, running_hub(store=url) as other:
        worker, reader = Link(Address("127.0.0.1", one.port)), Link(Address("127.0.0.1", other.port))
        await one.store.wait_for(lambda: one.store.connected, PATIENCE)
        await worker.start(PATIENCE)
        await reader.start(PATIENCE)
        try:
            await worker.announce(instance())
            await reader.wait_for(lambda: [i.id for i in reader.instances()] == ["A1"], PATIENCE)
            await worker.close()
            await sees(reader)
        finally:
            await worker.close()
            await reader.close()


async def test_who_waits_for_a_network_that_never_comes_learns_of_the_end() -> None:
    store = open_store("mdns://127.0.0.99")
    await store.start()
    writing = asyncio.create_task(store.announce(instance()))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await writing


# -- foreign clients ---------------------------------------------------------------------------------------------------


@needs_multicast
async def test_a_dns_sd_browser_finds_and_resolves_it(group: str) -> None:
    found: asyncio.Queue[str] = asyncio.Queue()

    def tell(zeroconf: object, service_type: str, name: str, state_change: object) -> None:
        if "A1" + group.upper() in name:
            found.put_nowait(f"{state_change}".rpartition(".")[2])

    mine = instance("A1" + group.upper())
    async with opened(group) as writer:
        browsing = AsyncZeroconf(["127.0.0.1"], ip_version=IPVersion.V4Only)
        browser = AsyncServiceBrowser(browsing.zeroconf, KIND, handlers=[tell])
        try:
            await writer.announce(mine)
            async with asyncio.timeout(PATIENCE):
                assert await found.get() == "Added"
                info = AsyncServiceInfo(KIND, f"{mine.id}.{KIND}")
                assert await info.async_request(browsing.zeroconf, 3000)
                assert info.parsed_addresses() == ["127.0.0.1"]
                assert info.port == 9001
                assert info.decoded_properties["group"] == group
                await writer.withdraw(mine.id)
                while await found.get() != "Removed":
                    pass
        finally:
            await browser.async_cancel()
            await browsing.async_close()


# -- owners that come back ---------------------------------------------------------------------------------------------


@needs_multicast
async def test_who_is_started_again_at_once_under_its_old_name_is_believed_at_once(group: str) -> None:
    """The dead one said no goodbye, and everybody's caches still name it."""
    id, url = "R1", f"mdns://127.0.0.1/{group}"
    async with opened(group) as reader:
        for _ in range(3):
            with Running([sys.executable, str(OWNER), url, id, "classify"]) as owner:
                await asyncio.to_thread(owner.line, "announced")
                await sees(reader, Instance(id, "classify", Address("127.0.0.1", 9100)))
                owner.send(signal.SIGKILL)
                await asyncio.to_thread(owner.ended)
        async with opened(group) as heir:
            await heir.announce(instance(id, weight=3))
            await sees(reader, instance(id, weight=3))


@needs_multicast
async def test_what_was_taken_over_comes_back_when_the_heir_goes(group: str) -> None:
    async with opened(group) as first, opened(group) as reader:
        await first.announce(instance(weight=1))
        async with opened(group) as heir:
            await sees(heir, instance(weight=1))
            await heir.announce(instance(weight=2))
            await sees(reader, instance(weight=2))
            await sees(first, instance(weight=2))
        await sees(reader, instance(weight=1))
        await sees(first)


# -- strangers ---------------------------------------------------------------------------------------------------------


@needs_multicast
async def test_only_what_is_announced_with_its_own_address_is_believed(group: str) -> None:
    def service(id: str, host: str, port: int, announced: str, announced_port: int) -> Service:
        word = Word(instance(id, address=Address(host, port)), "STRANGER", 5, group)
        return Service(label(id), (announced,), announced_port, encode(word))

    async with opened(group) as reader, stranger() as lan:
        await lan.say(
            [
                service("ELSEWHERE", "192.0.2.9", 80, "127.0.0.1", 80),
                service("OFF-LINK", "192.0.2.9", 80, "192.0.2.9", 80),
                service("OTHER-PORT", "127.0.0.1", 81, "127.0.0.1", 80),
                Service("GARBAGE", ("127.0.0.1",), 80, secrets.token_bytes(900)),
                Service("EMPTY", ("127.0.0.1",), 80, b""),
                Service("OTHER-NAME", ("127.0.0.1",), 80, service("N1", "127.0.0.1", 80, "", 1).txt),
                service("GOOD", "127.0.0.1", 80, "127.0.0.1", 80),
            ]
        )
        await sees(reader, instance("GOOD", address=Address("127.0.0.1", 80)))
        await lan.unsay(["GOOD"])
        await sees(reader)


@needs_multicast
async def test_a_flood_of_rows_is_bounded_and_displaces_nobody(group: str, caplog: pytest.LogCaptureFixture) -> None:
    def services(begin: int, end: int) -> list[Service]:
        rows = [Word(instance(f"F{number}"), "STRANGER", 5, group) for number in range(begin, end)]
        return [Service(label(row.instance.id), ("127.0.0.1",), 9001, encode(row)) for row in rows]

    async with opened(group) as reader, opened(group) as writer, stranger() as lan:
        reader._rows = Rows(most=50)
        await writer.announce(instance())
        await sees(reader, instance())
        await lan.say(services(0, 300))
        await reader.wait_for(lambda: len(reader.instances()) == 50, PATIENCE)
        await writer.announce(instance(weight=7))
        await reader.wait_for(lambda: instance(weight=7) in reader.instances(), PATIENCE)
        assert len(reader.instances()) == 50
        assert caplog.text.count("further ones are ignored") == 1


@needs_multicast
async def test_two_groups_on_one_network_do_not_mix(group: str) -> None:
    changes: list[Change] = []
    async with opened(group) as one, opened(group + "-b", changes.extend) as other, opened(group) as witness:
        await one.announce(instance())
        await sees(witness, instance())
        await other.announce(instance("B2"))
        await one.withdraw("A1")
        await sees(witness)
        assert not changes
        assert not other.instances()


@needs_multicast
async def test_another_responders_service_of_our_kind_does_no_harm(group: str) -> None:
    """Such as one that avahi announces for somebody."""
    foreign = AsyncZeroconf(["127.0.0.1"], ip_version=IPVersion.V4Only)
    try:
        async with opened(group) as reader, opened(group) as writer:
            info = ServiceInfo(
                KIND, f"Ünsere Kiste {group}.{KIND}", 80, parsed_addresses=["127.0.0.1"], properties={"a": "b"}
            )
            await (await foreign.async_register_service(info, cooperating_responders=True))
            await writer.announce(instance())
            await sees(reader, instance())
    finally:
        await foreign.async_close()


def test_nobody_pays_for_zeroconf_who_does_not_use_it() -> None:
    modules = "fairway.registry, fairway.registry.beacon, fairway.registry.finder, fairway.registry.stores.mdns"
    program = f"import sys, {modules}; print([m for m in ('zeroconf', 'ifaddr') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.stdout == "[]\n", run
