"""TLS of every TCP face: a server's certificate, and with a client CA only clients that have one of theirs (mutual TLS).

Renewed files are taken up without a restart: each new connection is wrapped by the context made of the newest ones. A live
context is never loaded into: a certificate without its key would leave it with neither, and an authority it trusted once,
or a session it remembers, would be good for ever.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Self

from .errors import ConfigurationError
from .watched import Watched, warn_if_world_readable


class ServerTls:
    """`context` is for `create_server(ssl=...)`; `start()` begins to look for renewed files every second."""

    def __init__(self, cert: Path, key: Path | None = None, client_ca: Path | None = None) -> None:
        """Without `key` it is in `cert` too. Raises ConfigurationError that names the file and the remedy."""
        self.mutual = client_ca is not None
        paths = [path for path in (cert, key, client_ca) if path is not None]
        self.files = Watched(paths, lambda: server_context(cert, key, client_ca))
        self.context = _Newest(self.files)

    def start(self) -> None:
        self.files.start()

    async def close(self) -> None:
        await self.files.close()

    def __repr__(self) -> str:
        return f"<ServerTls [{'mutual' if self.mutual else 'server only'} | {self.files!r}]>"


class _Newest(ssl.SSLContext):
    """What servers hold for as long as they live. It does the one thing they ask of it by another context, the newest."""

    def __new__(cls, files: Watched[ssl.SSLContext]) -> Self:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._files = files
        return self

    _files: Watched[ssl.SSLContext]

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        return self._files.value.wrap_bio(*arguments, **named)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self._files.value.wrap_socket(*arguments, **named)


def server_context(cert: Path, key: Path | None = None, client_ca: Path | None = None) -> ssl.SSLContext:
    """TLS 1.2 or later. With `client_ca`, nobody gets in without a certificate of theirs. Raises ConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_chain(context, cert, key)
    if client_ca is not None:
        load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    """A certificate with its chain, and its key; both sides use this. Raises ConfigurationError."""
    _expect(cert, b"-----BEGIN CERTIFICATE-----", "certificate", f"openssl x509 -inform der -in {cert}")
    _expect(key or cert, b"PRIVATE KEY-----", "private key", f"openssl pkey -inform der -in {key or cert}")

    def no_passphrase() -> str:
        raise ConfigurationError(
            f"{key or cert} is locked with a passphrase, and nobody is there to type it: "
            f"unlock it with openssl pkey -in {key or cert} -out UNLOCKED, chmod 600 UNLOCKED"
        )

    try:
        context.load_cert_chain(cert, key, no_passphrase)
    except ssl.SSLError as error:
        pair = f"{cert} with {key or cert}"
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"{pair}: not the key of this certificate; name two that belong together, our own first in its chain"
        else:
            text = f"{pair}: {error.reason or error}; check them with openssl x509 -noout -text and openssl pkey -check"
        raise ConfigurationError(text) from error
    except OSError as error:
        raise ConfigurationError(f"{cert} with {key or cert}: {error}") from error
    warn_if_world_readable(key or cert)


def load_authorities(context: ssl.SSLContext, ca: Path) -> None:
    """Whose certificates are trusted. Raises ConfigurationError."""
    _expect(ca, b"-----BEGIN CERTIFICATE-----", "certificate", f"openssl x509 -inform der -in {ca}")
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{ca}: {error}; check it with openssl x509 -noout -text -in {ca}") from error


def _expect(path: Path, words: bytes, noun: str, remedy: str) -> None:
    """OpenSSL does not say which file it could not read; so we look first."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; a PEM file with a {noun} is expected there") from error
    if words not in content:
        raise ConfigurationError(f"{path} holds no {noun} in PEM form; if it is DER: {remedy}")
