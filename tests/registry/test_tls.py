"""Real handshakes: who is let in, what is said about files that will not do, and that renewed ones count at once."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.registry.credentials import Credentials
from fairway.registry.errors import ConfigurationError
from fairway.registry.tls import ServerTls, server_context

from .certificates import Certificates, certificates, openssl

PATIENCE = 10.0


@pytest.fixture
def made() -> Certificates:
    return certificates()


@asynccontextmanager
async def serving(tls: ServerTls) -> AsyncIterator[int]:
    """Answers `hello` to whoever gets through the handshake and says a line."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            writer.write(b"hello\n")
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, context: ssl.SSLContext | None) -> bytes:
    """The server's own certificate as it was shown, DER, if it then answered. Raises OSError for one that did not."""
    async with asyncio.timeout(PATIENCE):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        except ConnectionResetError as error:  # asyncio's says nothing
            raise ConnectionResetError("it closed the connection") from error
        try:
            writer.write(b"is anybody there?\n")
            if await reader.readline() != b"hello\n":
                raise ConnectionResetError("it closed the connection")
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert isinstance(shown, bytes)
            return shown
        finally:
            writer.transport.abort()


def der(pem: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.read_text())


async def test_a_client_that_trusts_the_authority_is_answered(made: Certificates) -> None:
    async with serving(ServerTls(made.server_cert, made.server_key)) as port:
        assert await ask(port, Credentials(ca=made.ca).tls()) == der(made.server_cert)
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(port, Credentials(ca=made.stranger.pem).tls())
        with pytest.raises(OSError, match="closed"):
            await ask(port, None)


async def test_mutual_tls_lets_in_who_has_a_certificate_of_the_authority(made: Certificates) -> None:
    async with serving(ServerTls(made.server_cert, made.server_key, made.ca)) as port:
        assert await ask(port, Credentials("", made.ca, made.client_cert, made.client_key).tls())
        with pytest.raises(OSError, match=r"certificate|closed|reset"):
            await ask(port, Credentials(ca=made.ca).tls())
        with pytest.raises(OSError, match=r"unknown ca|closed|reset|EOF"):
            await ask(port, Credentials("", made.ca, made.stranger_cert, made.stranger_key).tls())


async def test_old_versions_are_refused(made: Certificates) -> None:
    tls = ServerTls(made.server_cert, made.server_key)
    assert tls.files.value.minimum_version == ssl.TLSVersion.TLSv1_2
    async with serving(tls) as port:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(made.ca)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(OSError, match=r"(?i)version|closed"):
            await ask(port, context)


async def test_a_renewed_certificate_is_shown_without_a_restart(made: Certificates, tmp_path: Path) -> None:
    cert, key = tmp_path / "server.pem", tmp_path / "server.key"
    shutil.copy(made.server_cert, cert)
    shutil.copy(made.server_key, key)
    renewed_cert, renewed_key = made.authority.issue("renewed")
    tls, trusting = ServerTls(cert, key), Credentials(ca=made.ca).tls()
    async with serving(tls) as port:
        assert await ask(port, trusting) == der(made.server_cert)
        shutil.copy(renewed_cert, cert)
        tls.files.look()  # between the two copies: half a pair must not harm
        assert await ask(port, trusting) == der(made.server_cert)
        shutil.copy(renewed_key, key)
        tls.files.look()
        assert await ask(port, trusting) == der(renewed_cert)


async def test_the_files_are_looked_at_without_being_asked(made: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(made.server_cert.read_bytes() + made.server_key.read_bytes())
    both.chmod(0o600)
    tls, trusting = ServerTls(both), Credentials(ca=made.ca).tls()
    tls.start()
    cert, key = made.authority.issue("renewed")
    async with serving(tls) as port, asyncio.timeout(PATIENCE):
        both.write_bytes(cert.read_bytes() + key.read_bytes())
        while await ask(port, trusting) != der(cert):  # noqa: ASYNC110 - only a handshake tells
            await asyncio.sleep(0.1)
    await tls.close()


def resume(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Blocks. asyncio resumes no sessions; others do. Raises OSError for who is not answered."""
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as tls,
    ):
        tls.sendall(b"is anybody there?\n")
        if tls.recv(100) != b"hello\n":
            raise ConnectionResetError("it closed the connection")
        return tls.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_authority_that_is_taken_away_is_trusted_no_more(
    made: Certificates, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(made.ca.read_bytes() + made.stranger.pem.read_bytes())
    tls = ServerTls(made.server_cert, made.server_key, authorities)
    stranger = Credentials("", made.ca, made.stranger_cert, made.stranger_key).tls()
    ours = Credentials("", made.ca, made.client_cert, made.client_key).tls()
    assert stranger
    stranger.maximum_version = version
    async with serving(tls) as port:
        assert await ask(port, stranger)
        session = await asyncio.to_thread(resume, port, stranger, None)
        authorities.write_bytes(made.ca.read_bytes())
        assert tls.files.look()
        with pytest.raises(OSError, match=r"unknown ca|closed|reset|EOF"):
            await ask(port, stranger)
        with pytest.raises(OSError, match=r"unknown ca|closed|reset|EOF"):
            await asyncio.to_thread(resume, port, stranger, session)
        assert await ask(port, ours)


def test_files_that_will_not_do_are_named_with_the_remedy(made: Certificates, tmp_path: Path) -> None:
    nowhere, der_file, locked = tmp_path / "nowhere.pem", tmp_path / "cert.der", tmp_path / "locked.key"
    broken = tmp_path / "broken.pem"
    der_file.write_bytes(der(made.server_cert))
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    openssl("pkey", "-in", str(made.server_key), "-aes128", "-passout", "pass:secret", "-out", str(locked))
    for cert, key, ca, words in (
        (nowhere, made.server_key, None, ("nowhere.pem", "No such file")),
        (made.server_cert, nowhere, None, ("nowhere.pem", "No such file")),
        (made.server_cert, None, None, ("server.pem", "private key")),
        (made.server_cert, made.client_key, None, ("client.key", "belong together")),
        (made.server_cert, locked, None, ("locked.key", "passphrase")),
        (der_file, made.server_key, None, ("cert.der", "openssl x509 -inform der")),
        (broken, made.server_key, None, ("broken.pem", "openssl x509 -noout")),
        (made.server_cert, made.server_key, nowhere, ("nowhere.pem", "No such file")),
        (made.server_cert, made.server_key, made.server_key, ("server.key", "certificate")),
        (made.server_cert, made.server_key, broken, ("broken.pem", "openssl x509 -noout")),
    ):
        with pytest.raises(ConfigurationError) as caught:
            server_context(cert, key, ca)
        assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_a_key_that_everybody_can_read_is_remarked_upon(
    made: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "server.key"
    shutil.copy(made.server_key, key)
    ServerTls(made.server_cert, key)
    assert not caplog.text
    key.chmod(0o644)
    ServerTls(made.server_cert, key)
    assert caplog.text.count(f"chmod 600 {key}") == 1
