"""Which registry or engine to use, and who we are there: written once, used by every role that reads or registers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConfigurationError
from .options import option
from .rights import TOKEN
from .tls import load_authorities, load_chain
from .watched import warn_if_world_readable


@dataclass(frozen=True)
class StoreSettings:
    """The part of a role's settings that says where registrations live."""

    registry: str = option(
        "auto",
        "HOST:PORT[,HOST:PORT] of registries, or an engine: etcd://HOST:PORT/PREFIX, zookeeper://HOST:PORT/PATH, "
        "consul://HOST:PORT, mdns://; auto: this machine's at 12481, else one found on the local network",
    )
    registry_token_file: Path | None = option(
        None, "file with the token to show there, or the password of an engine's USER@, on its first line"
    )
    registry_ca: Path | None = option(None, "PEM file: speak TLS there, and trust these authorities only")
    registry_cert: Path | None = option(None, "PEM file with our own certificate, where it asks for one")
    registry_key: Path | None = option(None, "PEM file with the key of --registry-cert")

    def credentials(self) -> Credentials:
        """Reads the token. Raises ConfigurationError naming the file at fault."""
        return read_credentials(
            "--registry", self.registry_token_file, self.registry_ca, self.registry_cert, self.registry_key
        )


def read_credentials(
    flag: str, token_file: Path | None, ca: Path | None, cert: Path | None, key: Path | None
) -> Credentials:
    """`flag`: how the options begin, `--registry` or `--store`. Raises ConfigurationError naming the file at fault."""
    token = ""
    if token_file:
        try:
            token = (token_file.read_text("utf-8").splitlines() or [""])[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{flag}-token-file {token_file}: {error}") from error
        if not token:
            raise ConfigurationError(f"{flag}-token-file {token_file}: its first line is empty")
        if not TOKEN.fullmatch(token):  # and never shown: it is a secret all the same
            raise ConfigurationError(f"{flag}-token-file {token_file}: a token is of printable ASCII, without spaces")
        warn_if_world_readable(token_file)
    if key and not cert:
        raise ConfigurationError(f"{flag}-key {key}: whose? name its {flag}-cert as well")
    return Credentials(token, ca, cert, key)


@dataclass(frozen=True)
class Credentials:
    """What we show at a registry or an engine, and whom we take for one."""

    token: str = field(default="", repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def tls(self, always: bool = False) -> ssl.SSLContext | None:
        """A client's context, if `ca` or `cert` ask for TLS, or `always`. Raises ConfigurationError."""
        if not (always or self.ca or self.cert):
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # wants a certificate, with the name that was asked for in it
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self.ca:
                load_authorities(context, self.ca)
            else:
                context.load_default_certs()
            if self.cert:
                load_chain(context, self.cert, self.key)
        except ConfigurationError as error:
            raise ConfigurationError(f"--registry-ca, --registry-cert, --registry-key: {error}") from error
        return context
