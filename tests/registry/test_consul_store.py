"""`consul://` where it is Consul's: what the conformance suite does not ask of every engine."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fairway.registry.changes import Change, Gone, Mark, Put
from fairway.registry.check import Check
from fairway.registry.credentials import Credentials
from fairway.registry.errors import ConfigurationError, StoreRefused, StoreUnavailable
from fairway.registry.instance import Address, Instance
from fairway.registry.ports import free_port
from fairway.registry.store import WRITE_SECONDS, Store, open_store
from fairway.registry.stores import consul_agents
from fairway.registry.stores.consul import ConsulStore
from fairway.registry.stores.consul_agents import Agents, Answer, Away

from ..conformance.consul import ConsulEngine
from .certificates import certificates

PATIENCE = 10.0
READER, WRITER = "reader-0123456789", "writer-0123456789"


def instance(id: str = "w1", port: int = 9001, **more: Any) -> Instance:
    return Instance(id, "classify", Address("127.0.0.1", port), **more)


@pytest.fixture
async def engine() -> AsyncIterator[ConsulEngine]:
    engine = ConsulEngine()
    await engine.start()
    yield engine
    await engine.stop()


@asynccontextmanager
async def opened(url: str, **more: Any) -> AsyncIterator[Store]:
    store = open_store(url, **more)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def call(engine: ConsulEngine, method: str, path: str, body: object = None) -> Any:
    """Behind the store's back, as an operator does. Blocks."""
    data = json.dumps(body).encode() if body is not None else b""
    request = urllib.request.Request(f"http://127.0.0.1:{engine.port}{path}", data or None, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        text = answer.read()
    return json.loads(text) if text else None


async def behind(engine: ConsulEngine, method: str, path: str, body: object = None) -> Any:
    return await asyncio.to_thread(call, engine, method, path, body)


def states(store: Store) -> dict[str, str]:
    return {found.id: found.state for found in store.instances()}


@pytest.mark.parametrize("rest", ["a:b@127.0.0.1:8500", "127.0.0.1:8500/prefix", ""])
def test_what_is_no_agents_address_is_refused(rest: str) -> None:
    with pytest.raises(ConfigurationError):
        open_store(f"consul://{rest}")


async def test_anybody_sees_what_is_ours_with_curl(engine: ConsulEngine) -> None:
    async with opened(engine.url) as store:
        await store.announce(instance(version="1.2.3", models=("flowers",), meta={"gpu": "a100", "slots": 4}))
        [entry] = await behind(engine, "GET", "/v1/health/service/classify?passing")
        assert entry["Service"]["Meta"] == {
            "fairway-writer": store.uid,
            "fairway-slots": "4",
            "gpu": "a100",
            "version": "1.2.3",
            "models": "flowers",
        }
        await store.announce(instance(state="draining"))
        assert await behind(engine, "GET", "/v1/health/service/classify?passing") == []
        [entry] = await behind(engine, "GET", "/v1/health/service/classify")
        assert [check["Output"] for check in entry["Checks"]] == ["draining"]
        await store.announce(instance())
        assert len(await behind(engine, "GET", "/v1/health/service/classify?passing")) == 1


async def test_what_others_register_with_curl_is_seen(engine: ConsulEngine) -> None:
    async with opened(engine.url) as store:
        check = {"CheckID": "said", "TTL": "60s", "Status": "passing"}
        body = {"Name": "classify", "ID": "theirs", "Port": 9002, "Meta": {"version": "2.0.0"}, "Check": check}
        await behind(engine, "PUT", "/v1/agent/service/register", body)
        await store.wait_for(lambda: states(store) == {"theirs": "passing"}, PATIENCE)
        assert store.instances()[0].version == "2.0.0"
        await behind(engine, "PUT", "/v1/agent/check/fail/said")
        await store.wait_for(lambda: states(store) == {"theirs": "critical"}, PATIENCE)
        await behind(engine, "PUT", "/v1/agent/service/maintenance/theirs?enable=true&reason=a+new+disk")
        await store.wait_for(lambda: not store.instances()[0].enabled, PATIENCE)
        await behind(engine, "PUT", "/v1/agent/service/deregister/theirs")
        await store.wait_for(lambda: not store.instances(), PATIENCE)


async def test_a_registration_that_was_lost_is_made_again(engine: ConsulEngine) -> None:
    async with opened(engine.url) as writer, opened(engine.url) as reader:
        await writer.announce(instance())
        await reader.wait_for(lambda: states(reader) == {"w1": "passing"}, PATIENCE)
        await behind(engine, "PUT", "/v1/agent/service/deregister/w1")
        await reader.wait_for(lambda: not states(reader), PATIENCE)
        await reader.wait_for(lambda: states(reader) == {"w1": "passing"}, PATIENCE)


async def test_one_that_was_taken_over_is_let_go_until_its_new_writer_goes(engine: ConsulEngine) -> None:
    heard: list[Change] = []
    async with opened(engine.url, on_change=heard.extend) as former, opened(engine.url) as heir:
        await former.announce(instance(port=9001))
        await heir.wait_for(lambda: states(heir) == {"w1": "passing"}, PATIENCE)
        await heir.announce(instance(port=9002))
        assert not heir.instances()
        await former.wait_for(lambda: states(former) == {"w1": "passing"}, PATIENCE)
        assert heard[-1] == Put(instance(port=9002))
        await heir.write([Gone(instance(port=9002))])
        await heir.wait_for(lambda: [i.address.port for i in heir.instances()] == [9001], PATIENCE)
        assert not former.instances()


async def test_what_the_last_writer_did_not_write_stays(engine: ConsulEngine) -> None:
    async with opened(engine.url) as former, opened(engine.url) as heir:
        await former.announce(instance(port=9001))
        await heir.announce(instance(port=9002))
        await former.write([Gone(instance(port=9001))])
        assert (await behind(engine, "GET", "/v1/agent/service/w1"))["Port"] == 9002
        await heir.write([Gone(instance(port=9002))])
        assert await behind(engine, "GET", "/v1/agent/services") == {}


async def test_a_durable_row_that_somebody_removed_is_not_ours_any_more(engine: ConsulEngine) -> None:
    heard: list[Change] = []
    row = Put(instance(checks=(Check("said", "ttl", ttl_seconds=60, status="passing"),)), "token:0123456789ab")
    async with opened(engine.url, on_change=heard.extend) as writer, opened(engine.url) as other:
        await writer.write([row])
        await other.wait_for(lambda: list(states(other)) == ["w1"], PATIENCE)
        await other.write([Gone(row.instance, row.principal)])
        await writer.wait_for(lambda: Gone(row.instance, row.principal) in heard, PATIENCE)
        assert "0 own" in repr(writer)  # nothing that would ever be written again
    assert await behind(engine, "GET", "/v1/agent/services") == {}


async def test_a_durable_row_without_checks_is_what_its_writer_says(engine: ConsulEngine) -> None:
    """A registry asked by people would dial it, and deregister it; here those who read it look after it."""
    row = Put(instance(port=free_port()), "token:0123456789ab")
    heard: list[Change] = []
    async with opened(engine.url) as writer, opened(engine.url, on_change=heard.extend) as reader:
        await writer.write([row])
        await reader.wait_for(lambda: bool(heard), PATIENCE)
        [entry] = await behind(engine, "GET", "/v1/health/service/classify")
        assert [(check["Type"], check["Status"]) for check in entry["Checks"]] == [("ttl", "passing")]
    assert heard == [row]


async def test_a_mark_outlives_a_change_of_checks(engine: ConsulEngine) -> None:
    """Consul ends maintenance when checks are replaced."""
    said = Check("said", "http", "http://127.0.0.1:1/", status="passing", interval_seconds=60)
    heard: list[Change] = []
    async with opened(engine.url, on_change=heard.extend) as writer, opened(engine.url) as reader:
        await writer.write([Put(instance(checks=(said,)), "token:0123456789ab"), Mark("w1", False, "a new disk")])
        await reader.wait_for(lambda: [i.enabled for i in reader.instances()] == [False], PATIENCE)
        await writer.wait_for(lambda: Mark("w1", False, "a new disk") in heard, PATIENCE)
        await writer.write([Put(instance(port=9002))])
        await reader.wait_for(lambda: [i.address.port for i in reader.instances()] == [9002], PATIENCE)
        await reader.wait_for(lambda: [i.enabled for i in reader.instances()] == [False], PATIENCE)


async def test_a_mark_on_nothing_is_refused(engine: ConsulEngine) -> None:
    async with opened(engine.url) as store:
        with pytest.raises(StoreRefused, match="w1"):
            await store.write([Mark("w1", False, "a new disk")])
        await store.write([Mark("w1", True)])


async def test_of_what_does_not_fit_nothing_is_written(engine: ConsulEngine) -> None:
    async with opened(engine.url) as writer, opened(engine.url) as reader:
        with pytest.raises(StoreRefused, match="large"):
            await writer.write([Put(instance("large", meta={"blob": "x" * 40_000})), Put(instance("small"))])
        await writer.announce(instance("other"))
        await reader.wait_for(lambda: list(states(reader)) == ["other"], PATIENCE)


async def test_five_hundred_rows_are_written_well_in_time(engine: ConsulEngine) -> None:
    rows = [Put(instance(f"w{n}", 10_000 + n)) for n in range(500)]
    async with opened(engine.url) as writer, opened(engine.url) as reader:
        began = time.monotonic()
        await writer.write(rows)
        assert time.monotonic() - began < WRITE_SECONDS
        await reader.wait_for(lambda: len(reader.instances()) == 500, PATIENCE)


async def test_the_next_host_is_asked_when_one_fails(engine: ConsulEngine) -> None:
    url = f"consul://127.0.0.1:{free_port()},127.0.0.1:{engine.port}"
    async with opened(url) as store:
        await store.announce(instance())
        await store.wait_for(lambda: store.synced, PATIENCE)
    with pytest.raises(StoreUnavailable, match="no answer from Consul"):
        async with opened(f"consul://127.0.0.1:{free_port()}") as store:
            await store.announce(instance())


async def test_a_token_decides_and_tls_hides_it(tmp_path: Path) -> None:
    made = certificates()
    tokens = tmp_path / "tokens"
    await asyncio.to_thread(tokens.write_text, f"{READER} read\n{WRITER} read,register:classify\n")
    await asyncio.to_thread(tokens.chmod, 0o600)
    options = ["--token-file", str(tokens), "--tls-cert", str(made.server_cert), "--tls-key", str(made.server_key)]
    engine = ConsulEngine(*options, "--tls-client-ca", str(made.ca))
    await engine.start()
    url = engine.url.replace("consul://", "consuls://")

    def shown(token: str) -> Credentials:
        return Credentials(token, made.ca, made.client_cert, made.client_key)

    try:
        async with (
            opened(url, credentials=shown(WRITER)) as writer,
            opened(url, credentials=shown(READER)) as reader,
            opened(url, credentials=shown("nobody-0123456789")) as nobody,
            opened(url, credentials=Credentials(WRITER, made.ca)) as uncertified,
        ):
            await writer.announce(instance())
            await reader.wait_for(lambda: states(reader) == {"w1": "passing"}, PATIENCE)
            with pytest.raises(StoreRefused, match="403"):
                await reader.announce(instance("w2"))
            with pytest.raises(StoreRefused, match="403"):
                await writer.announce(Instance("d1", "detect", Address("127.0.0.1", 9003)))
            with pytest.raises(StoreUnavailable):
                await uncertified.announce(instance("w3"))
            assert not nobody.synced
            assert not nobody.instances()
    finally:
        await engine.stop()


# -- what a Consul does, and ours does not ---------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def scripted(answer: Handler) -> AsyncIterator[str]:
    """-> HOST:PORT of a server that answers everything with `answer`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


def said(body: object, index: int = 5, filtered: bool = False) -> web.Response:
    headers = {"X-Consul-Index": str(index), "X-Consul-Results-Filtered-By-ACLs": str(filtered).lower()}
    return web.json_response(body, headers=headers)


async def followed(answers: Sequence[web.Response], count: int) -> tuple[list[Answer], list[dict[str, str]]]:
    """The first `count` answers of a blocking query, and what was asked."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        return answers[len(asked) - 1]

    found: list[Answer] = []
    async with scripted(answer) as host, asyncio.timeout(PATIENCE):
        agents = Agents([Address.parse(host)], "", None)
        agents.open()
        try:
            async for each in agents.follow("/v1/health/service/x", 100.0):
                found.append(each)
                if len(found) == count:
                    break
        finally:
            await agents.close()
    return found, asked


async def test_an_index_that_goes_backwards_starts_anew() -> None:
    found, asked = await followed([said(1, 50), said(2, 60), said(3, 7), said(4, 7)], 4)
    assert [query.get("index") for query in asked] == [None, "50", "60", None]
    assert [answer.backwards for answer in found] == [False, False, True, False]
    assert asked[1]["wait"] == "10s"


async def test_an_index_below_one_is_one() -> None:
    _, asked = await followed([said(1, 0), said(2, 0)], 2)
    assert [query.get("index") for query in asked] == [None, "1"]


@pytest.mark.parametrize("answer", [web.Response(status=500, text="No cluster leader"), web.Response(text="<html>")])
async def test_what_is_no_answer_is_another_hosts_turn(answer: web.Response) -> None:
    with pytest.raises(Away):
        await followed([answer], 1)


async def test_a_loop_is_limited_by_a_bucket_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return said([], count)  # each one a change

    async with scripted(answer) as host:
        agents = Agents([Address.parse(host)], "", None)
        agents.open()
        began = time.monotonic()
        async for _ in agents.follow("/v1/health/service/x", 10.0):
            if count == 6:
                break
        took = time.monotonic() - began
        await agents.close()
    assert took >= 0.35  # two at once, four more at ten a second


async def test_a_server_that_hangs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_agents, "WAIT_SECONDS", 0.16)
    monkeypatch.setattr(consul_agents, "MARGIN_SECONDS", 0.1)
    hang = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "index" in request.query:
            await hang.wait()
        return said([])

    async with scripted(answer) as host, asyncio.timeout(PATIENCE):
        agents = Agents([Address.parse(host)], "", None)
        agents.open()
        with pytest.raises(Away, match="no answer"):
            async for _ in agents.follow("/v1/health/service/x", 10.0):
                pass
        hang.set()
        await agents.close()


@pytest.mark.parametrize("status", [404, 500])
async def test_an_agent_that_lost_the_check_is_told_everything_again(status: int) -> None:
    registered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/v1/agent/service/register":
            registered.put_nowait(await request.json())
            return web.Response()
        if request.path.startswith("/v1/agent/check/pass/"):
            return web.Response(status=status, text='Unknown check ID "service:w1"')
        return said({} if request.path == "/v1/catalog/services" else [])

    async with scripted(answer) as host, opened(f"consul://{host}") as store, asyncio.timeout(PATIENCE):
        await store.announce(instance())
        assert await registered.get() == await registered.get()


async def test_a_check_that_was_known_is_given_its_new_status() -> None:
    """Consul keeps the old one when a check is defined again."""
    updates: list[tuple[str, dict[str, Any]]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/v1/agent/check/update/"):
            updates.append((request.path, await request.json()))
        return said({} if request.path == "/v1/catalog/services" else [])

    async with scripted(answer) as host, opened(f"consul://{host}") as store:
        await store.wait_for(lambda: store.synced, PATIENCE)
        await store.announce(instance())
        assert updates == []
        await store.announce(instance(state="draining"))
        assert updates == [("/v1/agent/check/update/service:w1", {"Status": "critical", "Output": "draining"})]


async def test_what_our_token_hides_from_us_is_remarked_upon(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return said({}, filtered=True)

    async with scripted(answer) as host, opened(f"consul://{host}") as store:
        await store.wait_for(lambda: store.synced, PATIENCE)
    assert "service:read" in caplog.text


async def test_the_token_goes_in_consuls_header() -> None:
    shown: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        shown.append(request.headers.get("X-Consul-Token"))
        return said({})

    async with scripted(answer) as host, opened(f"consul://{host}", credentials=Credentials(WRITER)) as store:
        await store.wait_for(lambda: store.synced, PATIENCE)
        assert isinstance(store, ConsulStore)
        assert WRITER not in repr(store) + repr(vars(store))
    assert set(shown) == {WRITER}
