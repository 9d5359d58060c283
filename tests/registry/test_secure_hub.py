"""A hub that asks who is there: tokens over rows and HTTP, TLS and mutual TLS on every face, and what a stranger gets."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairway.registry import Hub, Instance, Link
from fairway.registry.changes import Mark
from fairway.registry.config import RegistrySettings
from fairway.registry.credentials import Credentials
from fairway.registry.errors import ConfigurationError, RegistryUnreachable, StoreRefused
from fairway.registry.instance import Address
from fairway.registry.wire import Accepted, Free, Hello, Register, Rejected, Synced

from .certificates import Certificates, certificates
from .peers import PATIENCE, connected, greeted, row, running_hub

WORKER, READER, ADMIN = "token-of-the-workers", "token-of-the-readers", "token-of-the-admins"
TOKENS = f"{WORKER} register:classify\n{READER} read\n{ADMIN} admin\n"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def issued() -> Certificates:
    return certificates()


async def test_rows_go_by_rights(tokens: Path) -> None:
    async with running_hub(token_file=tokens) as hub, greeted(hub.port, Hello(READER)) as reader:
        async with greeted(hub.port, Hello(WORKER, services=())) as worker, connected(hub.port) as stranger:
            worker.say(row("A1"), row("B1", role="other"))
            heard = [await worker.next(), await worker.next()]
            assert Accepted("A1") in heard
            [refused] = [message for message in heard if isinstance(message, Rejected)]
            assert refused.id == "B1"
            assert "may not register 'other'" in refused.reason
            told = await reader.next()
            assert isinstance(told, Register)
            assert told.id == "A1"
            stranger.say(Synced())
            assert await stranger.dump() == [], "who may not read is told nothing"
            stranger.say(row("C1"), Free("A1"))
            reader.say(row("D1"))
            refusal = await reader.next()
            assert isinstance(refusal, Rejected), "the right to read is no right to register"
        assert await reader.next() == Free("A1")
        assert hub.counters["refused"] == 4


@pytest.mark.parametrize("token", ["", WORKER, "a-token-that-nobody-knows"])
async def test_who_may_not_read_is_told_so(tokens: Path, token: str, caplog: pytest.LogCaptureFixture) -> None:
    async with running_hub(token_file=tokens) as hub:
        link = Link(Address("127.0.0.1", hub.port), credentials=Credentials(token))
        await link.start(PATIENCE)
        assert "may not read: show a token that may" in link.refusal
        assert "tells us nothing" in caplog.text
        await link.close()
        silent = Link(Address("127.0.0.1", hub.port), credentials=Credentials(token), services=())
        await silent.start(PATIENCE)
        assert silent.refusal == "", "who wants to hear nobody needs no right to"
        await silent.close()


async def test_an_operators_mark_is_an_admins(tokens: Path) -> None:
    async with running_hub(token_file=tokens) as hub, greeted(hub.port, Hello(WORKER, services=())) as worker:
        worker.say(row("A1"))
        assert await worker.next() == Accepted("A1")
        for token, accepted in ((WORKER, False), (READER, False), (ADMIN, True)):
            link = Link(Address("127.0.0.1", hub.port), credentials=Credentials(token))
            await link.start(PATIENCE)
            marking = link.write([Mark("A1", False, "a test")])
            if accepted:
                await marking
            else:
                with pytest.raises(StoreRefused, match="that is an admin's"):
                    await marking
            assert hub.catalog.instances()[0].enabled is not accepted
            await link.close()


async def test_http_goes_by_rights(tokens: Path) -> None:
    async with running_hub(token_file=tokens) as hub, aiohttp.ClientSession(f"http://127.0.0.1:{hub.port}") as http:

        async def status(method: str, path: str, token: str = "", **more: Any) -> int:
            headers = {"X-Consul-Token": token} if token else {}
            async with http.request(method, path, headers=headers, **more) as answer:
                return answer.status

        body = {"Name": "classify", "ID": "A1", "Port": 9001, "Check": {"TTL": "30s"}}
        assert await status("GET", "/v1/catalog/services") == 403
        assert await status("GET", "/v1/catalog/services", READER) == 200
        assert await status("GET", "/healthz") == 200
        assert await status("PUT", "/v1/agent/service/register", json=body) == 403
        assert await status("PUT", "/v1/agent/service/register", READER, json=body) == 403
        assert await status("PUT", "/v1/agent/service/register", WORKER, json=body) == 200
        assert (
            await status("PUT", "/v1/agent/service/register", WORKER, json=body | {"Name": "other", "ID": "B"}) == 403
        )
        assert await status("PUT", "/v1/agent/service/deregister/A1", READER) == 403
        assert await status("PUT", "/v1/agent/service/deregister/A1", WORKER) == 200


async def test_a_revoked_token_ends_what_was_registered_with_it(tokens: Path) -> None:
    async with running_hub(token_file=tokens) as hub, greeted(hub.port, Hello(READER)) as reader:
        async with greeted(hub.port, Hello(WORKER, services=())) as worker:
            worker.say(row("A1"))
            assert isinstance(await reader.next(), Register)
            await asyncio.to_thread(tokens.write_text, TOKENS.replace(WORKER, "another-token-of-workers"))
            assert hub._tokens is not None
            hub._tokens.look()
            assert await reader.next() == Free("A1")
            with pytest.raises((EOFError, ConnectionError)):
                await worker.until(lambda _: False)
        async with greeted(hub.port, Hello("another-token-of-workers", services=())) as worker:
            worker.say(row("A2"))
            assert isinstance(await reader.next(), Register)


async def test_one_port_speaks_rows_and_http_over_tls(issued: Certificates) -> None:
    settings: dict[str, Any] = {"tls_cert": issued.server_cert, "tls_key": issued.server_key}
    async with running_hub(**settings) as hub:
        link = Link(Address("127.0.0.1", hub.port), credentials=Credentials(ca=issued.ca))
        await link.start(PATIENCE)
        await link.announce(Instance("A1", "classify", Address("127.0.0.1", 9001)))
        context = ssl.create_default_context(cafile=issued.ca)
        url = f"https://127.0.0.1:{hub.port}/v1/catalog/services"
        async with aiohttp.ClientSession() as http, http.get(url, ssl=context) as answer:
            assert await answer.json() == {"classify": []}
        for credentials in (Credentials(), Credentials(ca=issued.stranger.pem)):
            stranger = Link(Address("127.0.0.1", hub.port), credentials=credentials)
            with pytest.raises(RegistryUnreachable):
                await stranger.start(0.5)
        await link.close()


async def test_mutual_tls_lets_in_only_whom_it_knows(issued: Certificates) -> None:
    settings: dict[str, Any] = {
        "tls_cert": issued.server_cert, "tls_key": issued.server_key, "tls_client_ca": issued.ca
    }  # fmt: skip
    async with running_hub(**settings) as hub:
        known = Credentials(ca=issued.ca, cert=issued.client_cert, key=issued.client_key)
        link = Link(Address("127.0.0.1", hub.port), credentials=known)
        await link.start(PATIENCE)
        await link.announce(Instance("A1", "classify", Address("127.0.0.1", 9001)))
        await link.close()
        for cert, key in ((None, None), (issued.stranger_cert, issued.stranger_key)):
            stranger = Link(Address("127.0.0.1", hub.port), credentials=Credentials("", issued.ca, cert, key))
            with pytest.raises(RegistryUnreachable):
                await stranger.start(0.5)


async def test_half_a_handshake_is_ended(issued: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairway.registry.server.HANDSHAKE_SECONDS", 0.2)
    async with running_hub(tls_cert=issued.server_cert, tls_key=issued.server_key) as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.transport.abort()


async def test_half_a_handshake_holds_nobody_up(issued: Certificates) -> None:
    async with running_hub(tls_cert=issued.server_cert, tls_key=issued.server_key) as hub:
        _, silent = await asyncio.open_connection("127.0.0.1", hub.port)
        _, babbling = await asyncio.open_connection("127.0.0.1", hub.port)
        babbling.write(os.urandom(1000))
        link = Link(Address("127.0.0.1", hub.port), credentials=Credentials(ca=issued.ca))
        await link.start(PATIENCE)
        await link.close()
        for writer in (silent, babbling):
            writer.transport.abort()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"host": "0.0.0.0"}, "add --token-file FILE or --insecure"),
        ({"tls_cert": Path("x")}, "belong together"),
        ({"tls_client_ca": Path("x")}, "belong together"),
        ({"dns_tls_port": 0}, "wants --tls-cert"),
    ],
)
def test_settings_that_would_expose_or_cannot_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        RegistrySettings(**settings)


@pytest.mark.parametrize("name", ["token_file", "tls_cert"])
async def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    missing = tmp_path / "missing"
    settings: dict[str, Any] = {name: missing} | ({"tls_key": missing} if name == "tls_cert" else {})
    hub = Hub(RegistrySettings(port=0, store="embedded:", **settings))
    with pytest.raises(ConfigurationError, match="missing"):
        await hub.start()
