"""Settings of the registry."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from .credentials import Credentials, read_credentials
from .errors import ConfigurationError
from .instance import is_loopback
from .options import option

PORT, DNS_PORT = 12481, 12453


@dataclass(frozen=True)
class RegistrySettings:
    host: str = option("127.0.0.1", "address to listen on; anything but loopback wants --token-file or --insecure")
    port: int = option(PORT, "TCP port: seaport rows and HTTP; 0 takes a free one", env="FAIRWAY_REGISTRY_PORT")
    store: str = option(
        "",
        "engine that holds the registrations: embedded:DIR (embedded: alone: in memory), etcd://HOST:PORT/PREFIX, "
        "zookeeper://HOST:PORT/PATH, consul://HOST:PORT, mdns://; empty: embedded, in the user's state folder "
        "(in memory with --port 0)",
    )
    store_token_file: Path | None = option(
        None, "file with the token to show to the engine, or the password of USER@, on its first line"
    )
    store_ca: Path | None = option(None, "PEM file: TLS to the engine, trusting these authorities only")
    store_cert: Path | None = option(None, "PEM file with our own certificate, where the engine asks for one")
    store_key: Path | None = option(None, "PEM file with the key of --store-cert")
    allow: tuple[str, ...] = option((), "networks (CIDR, comma separated) whose addresses workers may advertise")
    dial_back: bool = option(True, "connect to an advertised address before serving it")
    insecure: bool = option(False, "listen beyond loopback although nobody is asked who they are")
    token_file: Path | None = option(
        None,
        "who may do what: lines of TOKEN RIGHT[,RIGHT] (read, register:PREFIX, admin); read again when it changes",
    )
    tls_cert: Path | None = option(None, "PEM file: TLS with this certificate; read again when it changes")
    tls_key: Path | None = option(None, "PEM file with the key of --tls-cert")
    tls_client_ca: Path | None = option(
        None, "PEM file: only peers with a certificate of these authorities (mutual TLS)"
    )
    dns: bool = option(True, "answer DNS, if the registry is on its usual port or --dns-port is given")
    dns_port: int | None = option(None, f"UDP and TCP port of DNS; 0 takes a free one; usually {DNS_PORT}")
    dns_tls_port: int | None = option(None, "TCP port of DNS over TLS, with the certificate of --tls-cert")
    dns_zone: str = option("fairway.", "zone that DNS answers for")
    dns_ttl: int = option(0, "seconds for which resolvers may keep an answer")
    mdns: bool = option(False, "announce the registry on the local network, so that others find it by themselves")
    peer: tuple[str, ...] = option((), "HOST:PORT of seaport hubs to exchange all rows with, comma separated")
    heartbeat_seconds: float = option(3.0, "how often peers are told that the registry lives")
    max_connections: int = option(16_000, "connections held at once; further ones are closed at once")

    def __post_init__(self) -> None:
        require_port("--port", self.port)
        for flag, port in (("--dns-port", self.dns_port), ("--dns-tls-port", self.dns_tls_port)):
            require_port(flag, port or 0)
        if not 0 < self.heartbeat_seconds <= 15:  # a Link takes half a minute of silence for the registry's end
            raise ConfigurationError(f"--heartbeat-seconds {self.heartbeat_seconds}: expected more than 0, at most 15")
        if self.max_connections < 1:
            raise ConfigurationError(f"--max-connections {self.max_connections}: expected at least 1")
        if bool(self.tls_cert) != bool(self.tls_key) or (self.tls_client_ca and not self.tls_cert):
            raise ConfigurationError("--tls-cert and --tls-key belong together, and --tls-client-ca wants both")
        if self.dns_tls_port is not None and not self.tls_cert:
            raise ConfigurationError("--dns-tls-port wants --tls-cert and --tls-key")
        require_loopback(self.host, self.insecure or self.token_file is not None, "--token-file FILE or --insecure")

    def credentials(self) -> Credentials:
        """What we show to the engine. Raises ConfigurationError naming the file at fault."""
        return read_credentials("--store", self.store_token_file, self.store_ca, self.store_cert, self.store_key)

    @property
    def dns_listen_port(self) -> int | None:
        """None: no DNS. A registry off its usual port is one of several, and leaves DNS's usual port alone."""
        if not self.dns or (self.dns_port is None and self.port != PORT):
            return None
        return DNS_PORT if self.dns_port is None else self.dns_port


def state_store(settings: RegistrySettings) -> RegistrySettings:
    """Where nothing is said of a store: a folder of this port's in the user's state folder; memory if it has none."""
    if settings.store:
        return settings
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    where = str(state / "fairway" / f"registry-{settings.port}") if settings.port else ""
    return replace(settings, store=f"embedded:{where}")


def require_port(flag: str, port: int) -> None:
    """0 takes a free one. Checked here because uvloop would take a larger number modulo 65536."""
    if not 0 <= port < 65536:
        raise ConfigurationError(f"{flag} {port}: expected 0 (any free port) to 65535")


def require_loopback(host: str, permitted: bool, remedy: str = "--insecure") -> None:
    """Loopback by default: whoever reaches a door may use it."""
    if not is_loopback(host) and not permitted:
        raise ConfigurationError(
            f"--host {host}: anybody who reaches this address could use it; "
            f"add {remedy} if the network around it is trusted, or listen on 127.0.0.1"
        )
