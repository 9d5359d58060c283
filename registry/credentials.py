"""Which registry or engine to use, and who we are there: written once, used by every role that reads or registers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigurationError
from .options import option


@dataclass(frozen=True)
class StoreSettings:
    """The part of a role's settings that says where registrations live."""

    registry: str = option(
        "127.0.0.1:12481",
        "HOST:PORT[,HOST:PORT] of registries, or an engine: etcd://HOST:PORT/PREFIX, zookeeper://HOST:PORT/PATH, "
        "consul://HOST:PORT, mdns://; 'auto' finds a registry on the local network",
    )
    registry_token_file: Path | None = option(None, "file with the token to show there, on its first line")
    registry_ca: Path | None = option(None, "PEM file: speak TLS there, and trust these authorities only")
    registry_cert: Path | None = option(None, "PEM file with our own certificate, where it asks for one")
    registry_key: Path | None = option(None, "PEM file with the key of --registry-cert")

    def credentials(self) -> Credentials:
        """Reads the token. Raises ConfigurationError naming the file at fault."""
        token = ""
        if self.registry_token_file:
            try:
                token = (self.registry_token_file.read_text("utf-8").splitlines() or [""])[0].strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"--registry-token-file {self.registry_token_file}: {error}") from error
            if not token:
                raise ConfigurationError(f"--registry-token-file {self.registry_token_file}: its first line is empty")
        return Credentials(token, self.registry_ca, self.registry_cert, self.registry_key)


@dataclass(frozen=True)
class Credentials:
    token: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def tls(self, always: bool = False) -> ssl.SSLContext | None:
        """A client's context, if `ca` or `cert` ask for TLS, or `always`. Raises ConfigurationError."""
        if not (always or self.ca or self.cert):
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"--registry-ca, --registry-cert, --registry-key: {error}") from error
        return context
