"""HTTPS at the door: the same answers, renewed certificates, clients of one's own; and who may see the numbers."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairway.client.resolver import Resolver
from fairway.proxy import Proxy, ProxySettings
from fairway.registry.errors import ConfigurationError
from fairway.registry.instance import Address
from fairway.registry.ports import free_port

from ..registry.certificates import certificates
from .stage import DAISY, HOST, Worker, proxy_for, session_to


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificates().ca))


@pytest.mark.parametrize("size", [0, 10, 20_000, 200_000, 3_000_000])
async def test_uploads_of_all_sizes_under_tls(size: int) -> None:
    made = certificates()
    cert, key = made.server_cert, made.server_key
    body = os.urandom(size)
    async with (
        Worker() as worker,
        proxy_for(worker.address, tls_cert=cert, tls_key=key) as proxy,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting())) as session,
    ):
        for _ in range(2):  # the second on the same connection
            async with session.post(f"https://{HOST}:{proxy.port}/x", data=io.BytesIO(body)) as said:
                assert (said.status, await said.read()) == (200, DAISY)
        assert [seen.body for seen in worker.requests] == [body, body]
        assert worker.requests[0].headers["X-Forwarded-Proto"] == "https"


async def test_a_stranger_who_speaks_no_tls_harms_nobody() -> None:
    made = certificates()
    cert, key = made.server_cert, made.server_key
    async with Worker() as worker, proxy_for(worker.address, tls_cert=cert, tls_key=key, head_seconds=0.3) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        silent, other = await asyncio.open_connection(HOST, proxy.port)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert not (await reader.read()).startswith(b"HTTP")
            assert await silent.read() == b""  # it said nothing for longer than a head may take
        writer.close()
        other.close()
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting())) as session,
            session.post(f"https://{HOST}:{proxy.port}/x", data=b"x") as said,
        ):
            assert said.status == 200


async def test_only_clients_of_the_authority() -> None:
    made = certificates()
    cert, key = made.server_cert, made.server_key
    async with (
        Worker() as worker,
        proxy_for(worker.address, tls_cert=cert, tls_key=key, tls_client_ca=made.ca) as proxy,
        aiohttp.ClientSession() as session,
    ):
        url = f"https://{HOST}:{proxy.port}/x"
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.post(url, data=b"x", ssl=trusting())
        mine = trusting()
        mine.load_cert_chain(made.client_cert, made.client_key)
        async with session.post(url, data=b"x", ssl=mine) as said:
            assert said.status == 200
        assert len(worker.requests) == 1


async def test_the_numbers_want_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    async with (
        Worker() as worker,
        proxy_for(worker.address, admin_token_file=token) as proxy,
        session_to(proxy) as session,
    ):
        for path in ("/-/metrics", "/-/workers"):
            for headers, status in (
                ({}, 401),
                ({"Authorization": "Bearer wrong"}, 401),
                ({"Authorization": "Bearer s3cret"}, 200),
            ):
                async with session.get(path, headers=headers) as said:
                    assert said.status == status, path
        async with session.get("/-/healthz") as said:
            assert said.status == 200


async def test_beyond_loopback_the_numbers_are_nobodys_without_a_token() -> None:
    async with (
        Worker() as worker,
        proxy_for(worker.address, host="0.0.0.0", insecure=True) as proxy,
        session_to(proxy) as session,
    ):
        for path, status in (("/-/metrics", 403), ("/-/workers", 403), ("/-/readyz", 200), ("/", 200)):
            async with session.get(path) as said:
                assert said.status == status, path


async def test_a_port_for_the_numbers_alone() -> None:
    with_port: dict[str, Any] = {"admin_port": free_port(HOST)}
    async with Worker() as worker, proxy_for(worker.address, **with_port) as proxy, session_to(proxy) as session:
        async with session.get("/-/metrics") as said:
            assert said.status == 404
        async with session.get(f"http://{HOST}:{with_port['admin_port']}/-/metrics") as said:
            assert said.status == 200
            assert "fairway_proxy_connections_opened_total" in await said.text()
        async with session.post(f"http://{HOST}:{with_port['admin_port']}/x", data=b"x") as said:
            assert said.status == 404  # nothing is forwarded there
        assert not worker.requests


@pytest.mark.parametrize(
    "settings", [{"tls_key": Path("key.pem")}, {"processes": 0}, {"balance": "fair"}, {"trusted": ("nowhere",)}]
)
def test_settings_that_will_not_do(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Proxy(
            ProxySettings(static=("9001",), **settings),  # type: ignore[arg-type]
            Resolver(static=[Address(HOST, 9001)], balance=str(settings.get("balance", "round-robin"))),
        )


async def test_what_a_trusted_proxy_says_is_added_to() -> None:
    async with (
        Worker() as worker,
        proxy_for(worker.address, trusted=("127.0.0.0/8",)) as proxy,
        session_to(proxy) as session,
    ):
        async with session.post("/x", data=b"x", headers={"X-Forwarded-For": "203.0.113.9"}):
            pass
        assert worker.requests[0].headers["X-Forwarded-For"] == "203.0.113.9, 127.0.0.1"


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    async with Worker() as worker, proxy_for(worker.address, host=f"unix:{path}"):
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.post("http://door/x", data=os.urandom(200_000)) as said,
        ):
            assert (said.status, await said.read()) == (200, DAISY)
        assert len(worker.requests[0].body) == 200_000
    assert not path.exists()
