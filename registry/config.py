"""Settings of the registry."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigurationError
from .instance import is_loopback
from .options import option


@dataclass(frozen=True)
class RegistrySettings:
    host: str = option("127.0.0.1", "address to listen on; anything but loopback wants --insecure")
    port: int = option(12481, "TCP port: seaport rows and HTTP; 0 takes a free one", env="FAIRWAY_REGISTRY_PORT")
    allow: tuple[str, ...] = option((), "networks (CIDR, comma separated) whose addresses workers may advertise")
    insecure: bool = option(False, "listen beyond loopback although nobody is asked who they are")
    heartbeat_seconds: float = option(5.0, "how often peers are told that the registry lives")
    max_connections: int = option(10_000, "connections held at once; further ones are closed at once")

    def __post_init__(self) -> None:
        require_port("--port", self.port)
        if not 0 < self.heartbeat_seconds <= 15:  # a Link takes half a minute of silence for the registry's end
            raise ConfigurationError(f"--heartbeat-seconds {self.heartbeat_seconds}: expected more than 0, at most 15")
        if self.max_connections < 1:
            raise ConfigurationError(f"--max-connections {self.max_connections}: expected at least 1")
        require_loopback(self.host, self.insecure)


def require_port(flag: str, port: int) -> None:
    """0 takes a free one. Checked here because uvloop would take a larger number modulo 65536."""
    if not 0 <= port < 65536:
        raise ConfigurationError(f"{flag} {port}: expected 0 (any free port) to 65535")


def require_loopback(host: str, insecure: bool) -> None:
    """Loopback by default: whoever reaches a door may use it."""
    if not is_loopback(host) and not insecure:
        raise ConfigurationError(
            f"--host {host}: anybody who reaches this address could use it; "
            "add --insecure if the network around it is trusted, or listen on 127.0.0.1"
        )
