"""What is etcd's alone: leases dropped in silence, compaction, watches that hang, members that die, who is let in."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
from collections.abc import AsyncIterator, Sequence

import pytest

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.errors import ConfigurationError, InvalidInstance, StoreUnavailable
from fairway.registry.store import open_store
from fairway.registry.stores import etcd_watch
from fairway.registry.stores.etcd import EtcdStore
from fairway.registry.stores.etcd_watch import Found

from ..conformance.etcd import Cluster, etcd_missing, running_cluster
from .etcd_stores import PATIENCE, encoded, ids, instance, listing, sees, store_at
from .relay import relay_to


@pytest.fixture(autouse=True)
def _needs_etcd() -> None:
    if why := etcd_missing():
        pytest.skip(why)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with running_cluster() as cluster:
        yield cluster


# -- where things lie --------------------------------------------------------------------------------------------------


async def test_the_layout_is_one_that_others_can_read_and_there_is_one_lease(cluster: Cluster) -> None:
    member = cluster.members[0]
    async with store_at(cluster.hosts) as store, store_at(cluster.hosts) as reader:
        one, two = instance(1, meta={"writer": "nobody you know"}), instance(2, id="a/b")
        await store.write([Put(one), Put(two), Put(instance(3), "ops"), Mark("A1", False, "loud")])
        found = listing(member)
        assert set(found) == {
            "/fairway/v1/classify/A1",
            "/fairway/v1/classify/a%2Fb",
            "/fairway/v1/classify/A3",
            "/fairway/marks/A1",
        }
        said = json.loads(base64.b64decode(found["/fairway/v1/classify/A3"]["value"]))
        meta = {"role": "classify", "host": "127.0.0.1", "port": 9003, "id": "A3"}
        assert said == {"writer": store.uid, "principal": "ops"} | meta
        assert json.loads(base64.b64decode(found["/fairway/v1/classify/A1"]["value"]))["writer"] == store.uid
        leases = member.call("lease/leases", {})["leases"]
        assert len(leases) == 1, "one a store that wrote, and none for those who only read"
        leased = {key for key, kv in found.items() if kv.get("lease") == leases[0]["ID"]}
        assert leased == {"/fairway/v1/classify/A1", "/fairway/v1/classify/a%2Fb"}
        await sees(reader, ["A1", "A3", "a/b"])
    assert set(listing(member)) == {"/fairway/v1/classify/A3"}, "and the mark of a row that ended is no litter"


async def test_registries_with_other_prefixes_do_not_mix(cluster: Cluster) -> None:
    async with (
        store_at(f"{cluster.hosts}/a") as a,
        store_at(f"{cluster.hosts}/a/b/") as inner,
        store_at(f"{cluster.hosts}/ab") as ab,
        store_at(f"{cluster.hosts}/a") as reader,
    ):
        for number, store in enumerate((a, inner, ab)):
            await store.announce(instance(number))
        await sees(reader, ["A0"])
        assert set(listing(cluster.members[0], "/a/")) == {"/a/v1/classify/A0", "/a/b/v1/classify/A1"}


async def test_what_strangers_left_is_skipped_with_a_word(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    member = cluster.members[0]
    good = {"writer": "w", "principal": "", "role": "classify", "host": "127.0.0.1", "port": 1}
    bad = {
        "v1/classify/B1": b"{",
        "v1/classify/B2": b"[" * 5000,
        "v1/classify/B3": b'"text"',
        "v1/classify/B4": b"\xff\xfe",
        "v1/classify/B5": json.dumps(good | {"port": "no"}).encode(),
        "v1/classify/B6": json.dumps(good | {"writer": 7}).encode(),
        "v1/classify/B7": json.dumps(good | {"role": "other"}).encode(),
        "v1/classify/B8": json.dumps(good | {"words": "x" * 20000}).encode(),
        "v1/classify/": json.dumps(good).encode(),
        "v1/B9": json.dumps(good).encode(),
        "marks/B10": b"no",
        "marks/%FF": b"{}",
        "v2/of/others": b"",
    }

    def put(key: str, value: bytes) -> None:
        member.call("kv/put", {"key": encoded("/fairway/" + key), "value": base64.b64encode(value).decode()})

    for key, value in list(bad.items())[:6]:
        put(key, value)
    async with store_at(cluster.hosts) as reader:
        for key, value in list(bad.items())[6:]:
            put(key, value)
        member.call("kv/put", {"key": base64.b64encode(b"/fairway/v1/\xff\xfe").decode(), "value": ""})
        put("v1/classify/good", json.dumps(good).encode())
        await sees(reader, ["good"])
        put("v1/classify/B1", b"still {")
        put("v1/classify/good2", json.dumps(good).encode())
        await sees(reader, ["good", "good2"])
        member.call("kv/deleterange", {"key": encoded("/fairway/v1/classify/B1")})
        member.call("kv/deleterange", {"key": encoded("/fairway/v1/classify/good2")})
        await sees(reader, ["good"])
        assert reader.connected
    skipped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped")]
    assert len(skipped) == len(bad), "each once; what is neither a row nor a mark is none of our business"
    assert any("B7': it is a 'other', and lies among those of 'classify'" in line for line in skipped)
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_long_list_comes_in_pages(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_watch, "PAGE_KEYS", 7)
    async with store_at(cluster.hosts) as writer:
        await writer.write([Put(instance(number)) for number in range(70)])
        async with store_at(cluster.hosts) as reader:
            assert ids(reader) == ids(reader) == sorted(f"A{number}" for number in range(70))


# -- what etcd loses, and how it says so -------------------------------------------------------------------------------


async def test_a_lease_that_was_dropped_is_noticed_by_its_rows(cluster: Cluster) -> None:
    member = cluster.members[0]
    async with store_at(cluster.hosts) as writer, store_at(cluster.hosts) as reader:
        await writer.write([Put(instance(number)) for number in range(150)])
        await writer.write([Put(instance(200), "ops")])
        await sees(reader, [f"A{number}" for number in (*range(150), 200)])
        (lease,) = member.call("lease/leases", {})["leases"]
        member.call("lease/revoke", lease)
        await reader.wait_for(lambda: len(ids(reader)) < 151, PATIENCE)
        await sees(reader, [f"A{number}" for number in (*range(150), 200)])
        (again,) = member.call("lease/leases", {})["leases"]
        assert again != lease


async def test_a_lease_that_was_dropped_is_noticed_by_its_renewal(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The watch says nothing, and the renewal gets no error: only its answer lacks the time that is left.
    monkeypatch.setattr(etcd_watch, "PROBE_SECONDS", 1000.0)
    member = cluster.members[0]
    async with (
        relay_to(member.port) as relay,
        store_at(f"127.0.0.1:{relay.port}") as writer,
        store_at(cluster.hosts) as reader,
    ):
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        assert relay.freeze(b"/v3/watch") == 1
        member.call("lease/revoke", member.call("lease/leases", {})["leases"][0])
        await sees(reader, [])
        await sees(reader, ["A1"])


async def test_a_row_that_somebody_deletes_by_hand_is_written_again(cluster: Cluster) -> None:
    async with store_at(cluster.hosts) as writer, store_at(cluster.hosts) as reader:
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        cluster.members[0].call("kv/deleterange", {"key": encoded("/fairway/v1/classify/A1")})
        await reader.wait_for(lambda: not ids(reader), PATIENCE)
        await sees(reader, ["A1"])


async def test_what_a_stalled_member_does_late_is_put_right(cluster: Cluster) -> None:
    member = cluster.members[0]
    async with store_at(cluster.hosts) as writer, store_at(cluster.hosts) as reader:
        await writer.announce(instance(1, weight=1))
        old = listing(member)["/fairway/v1/classify/A1"]
        late = {name: old[name] for name in ("key", "value", "lease")}
        await writer.announce(instance(1, weight=2))
        await reader.wait_for(lambda: [i.weight for i in reader.instances()] == [2], PATIENCE)
        seen: list[int] = []
        reader._on_change = lambda changes: seen.extend(c.instance.weight for c in changes if isinstance(c, Put))
        member.call("kv/put", late)
        await reader.wait_for(lambda: seen == [1, 2], PATIENCE)
        await writer.withdraw("A1")
        await sees(reader, [])
        member.call("kv/put", late)
        await reader.wait_for(lambda: seen == [1, 2, 1], PATIENCE)
        await sees(reader, [])


@pytest.mark.parametrize("further", [True, False])
async def test_what_was_compacted_away_meanwhile_is_listed_anew(cluster: Cluster, further: bool) -> None:
    """Not only with the revisions before the last: a deletion in the last itself is kept from whoever goes on there."""
    member, told = cluster.members[0], list[Change]()
    async with (
        store_at(cluster.hosts) as writer,
        relay_to(member.port) as relay,
        store_at(f"127.0.0.1:{relay.port}", told.extend) as reader,
    ):
        await writer.write([Put(instance(number)) for number in range(5)])
        await sees(reader, [f"A{number}" for number in range(5)])
        await relay.cut()
        await reader.wait_for(lambda: not reader.connected, PATIENCE)
        told.clear()
        await writer.write([Gone(instance(0)), Put(instance(1, weight=3)), Put(instance(9)), Mark("A2", False)])
        if further:
            await writer.announce(instance(9, weight=2))
        revision = member.call("kv/range", {"key": "AA=="})["header"]["revision"]
        member.call("kv/compaction", {"revision": revision, "physical": True})
        await relay.mend()
        await reader.wait_for(lambda: "A9" in ids(reader), PATIENCE)
        assert not further or "A0" not in ids(reader), (
            "it is the same etcd: what it does not list is gone, and not held"
        )
        await sees(reader, ["A1", "A2", "A3", "A4", "A9"])
        expected = [
            Put(instance(1, weight=3)),
            Put(instance(9, weight=1 + further)),
            Mark("A2", False),
            Gone(instance(0)),
        ]
        assert sorted(map(repr, told)) == sorted(map(repr, expected)), "what did not change is not said again"


async def test_who_was_away_for_a_moment_goes_on_where_it_was(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings: list[EtcdStore] = []
    really_listed = EtcdStore.listed

    async def listed(store: EtcdStore, found: Sequence[Found], same: bool) -> None:
        listings.append(store)
        await really_listed(store, found, same)

    monkeypatch.setattr(EtcdStore, "listed", listed)
    member = cluster.members[0]
    async with (
        store_at(cluster.hosts) as writer,
        relay_to(member.port) as relay,
        store_at(f"127.0.0.1:{relay.port}") as reader,
    ):
        await writer.write([Put(instance(1)), Put(instance(2))])
        await sees(reader, ["A1", "A2"])
        await relay.cut()
        await reader.wait_for(lambda: not reader.connected, PATIENCE)
        await writer.write([Gone(instance(1)), Put(instance(3))])
        assert ids(reader) == ["A1", "A2"]
        await relay.mend()
        await sees(reader, ["A2", "A3"])
        assert reader.synced
    assert listings == [writer, reader], "once each, at the beginning"


@pytest.mark.parametrize("request_line", [b"/v3/watch", b"/v3/"])
async def test_a_watch_that_hangs_without_a_word_is_noticed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, request_line: bytes
) -> None:
    """Once only the watch hangs; once every connection that was open, as after a cut that nobody is told of."""
    monkeypatch.setattr(etcd_watch, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(etcd_watch, "SUSPICION_SECONDS", 0.5)
    member = cluster.members[0]
    async with (
        store_at(cluster.hosts) as writer,
        relay_to(member.port) as relay,
        store_at(f"127.0.0.1:{relay.port}") as reader,
    ):
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        assert relay.freeze(request_line) >= 1
        await writer.write([Put(instance(2)), Put(instance(3)), Gone(instance(1))])
        await sees(reader, ["A2", "A3"])


async def test_an_etcd_that_was_set_up_anew_is_told_everything_and_the_copy_never_empties(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROBE_SECONDS", "SUSPICION_SECONDS"):  # it is known at once, by its revisions
        monkeypatch.setattr(etcd_watch, name, 1000.0)
    member, sizes = cluster.members[0], list[int]()
    async with (
        store_at(cluster.hosts) as writer,
        store_at(cluster.hosts) as dying,
        store_at(cluster.hosts) as reader,
    ):
        await writer.write([Put(instance(1)), Put(instance(2)), Put(instance(3), "ops")])
        await dying.announce(instance(4))
        await sees(reader, ["A1", "A2", "A3", "A4"])
        member.kill()
        await dying.close()
        shutil.rmtree(member.folder / member.name)
        reader._on_change = lambda _: sizes.append(len(ids(reader)))
        await cluster.start()
        await reader.wait_for(lambda: reader.connected, PATIENCE)
        assert ids(reader) == ["A1", "A2", "A3", "A4"], "those who did not come back yet are held for a while"
        await sees(reader, ["A1", "A2", "A3"])
        assert min(sizes) >= 3
        assert set(listing(member)) == {f"/fairway/v1/classify/A{number}" for number in (1, 2, 3)}


# -- several members ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def three() -> AsyncIterator[Cluster]:
    async with running_cluster(3) as cluster:
        yield cluster


async def test_of_three_members_any_may_die(three: Cluster) -> None:
    async with store_at(three.hosts) as writer, store_at(three.hosts) as reader:
        wanted = [f"A{number}" for number in range(10)]
        sizes: list[int] = []
        await writer.write([Put(instance(number)) for number in range(10)])
        await sees(reader, wanted)
        reader._on_change = lambda _: sizes.append(len(ids(reader)))
        for turn in range(3):  # each dies once: the one that the reader follows, then others, the leader among them
            followed = next(m for m in three.members if m.port == reader.watch.at.port)
            victim = followed if turn == 0 else three.members[(three.members.index(followed) + turn) % 3]
            victim.kill()
            await writer.write([Put(instance(100 + turn))])
            wanted.append(f"A{100 + turn}")
            await sees(reader, wanted)
            victim.start(three.members)
            await victim.ready()
        assert min(sizes) >= 10
        async with store_at(three.hosts) as newcomer:
            assert ids(newcomer) == sorted(wanted)


async def test_a_member_that_is_stopped_is_left(three: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_watch, "PROBE_SECONDS", 1.0)
    async with store_at(three.hosts) as writer, store_at(three.hosts) as reader:
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        stopped = next(member for member in three.members if member.port == reader.watch.at.port)
        stopped.send(signal.SIGSTOP)
        try:
            try:
                await writer.announce(instance(2))
            except StoreUnavailable:  # the leader was stopped, and two calls waited for it: it is written all the same
                pass
            await sees(reader, ["A1", "A2"])
            assert reader.watch.at.port != stopped.port
            await asyncio.sleep(12)  # longer than any lease lives that is not renewed
            assert ids(reader) == ["A1", "A2"]
        finally:
            stopped.send(signal.SIGCONT)


async def test_without_a_majority_the_copy_stays_and_what_is_written_is_kept(three: Cluster) -> None:
    async with store_at(three.hosts) as writer, store_at(three.hosts) as reader:
        await writer.announce(instance(1))
        await sees(reader, ["A1"])
        for member in three.members[:2]:
            member.kill()
        with pytest.raises(StoreUnavailable):
            await writer.announce(instance(2))
        assert ids(reader) == ["A1"]
        for member in three.members[:2]:
            member.start(three.members)
        await sees(reader, ["A1", "A2"])


@pytest.mark.parametrize("rest", ["", "/prefix", "user:pw@", "host:0", "a b:1"])
def test_an_address_that_is_none(rest: str) -> None:
    with pytest.raises((ConfigurationError, InvalidInstance), match=r"no host|not a port|not a host"):
        open_store(f"etcd://{rest}")
