"""Settings of the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..registry.config import require_loopback, require_port
from ..registry.credentials import StoreSettings
from ..registry.errors import ConfigurationError
from ..registry.options import option

Mode = Literal["auto", "forward", "address", "redirect"]
AddressFormat = Literal["host:port", "port", "url"]
AccessLogFormat = Literal["none", "json", "common"]


@dataclass(frozen=True)
class ProxySettings(StoreSettings):
    host: str = option("127.0.0.1", "address to listen on, or unix:PATH; anything but loopback wants --insecure")
    port: int = option(12480, "TCP port; 0 takes a free one", env="FAIRWAY_PROXY_PORT")
    mode: Mode = option(
        "auto", "auto: GET / hands out an address, uploads are forwarded, /-/direct/ redirects; or one only"
    )
    static: tuple[str, ...] = option((), "fixed workers, PORT or HOST:PORT, comma separated: no registry is needed")
    service: str = option("classify", "the service meant when a request names none")
    balance: str = option(
        "round-robin", "who gets the next request: round-robin, least-loaded, peak-ewma or hash:HEADER"
    )
    slow_start_seconds: float = option(10.0, "how long a worker that joins takes to get its full share; 0: at once")
    worker_limit: int = option(0, "requests in flight at one worker at the most, the others wait here; 0: no limit")
    address_format: AddressFormat = option("host:port", "what address mode answers; ?format= overrides it")
    address_ttl_seconds: float = option(5.0, "how long callers may keep addresses; workers drain for as long")
    wait_seconds: float = option(2.0, "how long a request waits for a worker to appear before it gets 503")
    connect_seconds: float = option(2.0, "how long connecting to a worker may take")
    deadline_seconds: float = option(
        30.0, "from the upload being read to the answer's beginning, all attempts included"
    )
    head_seconds: float = option(10.0, "how long a request's head may take to arrive")
    stall_seconds: float = option(30.0, "an upload or an answer that makes no progress for this long is given up")
    idle_seconds: float = option(75.0, "how long a client's connection may rest between two requests")
    replay_bytes: int = option(1024 * 1024, "of each upload, kept until answered, so that another worker can be tried")
    held_bytes: int = option(
        256 * 1024 * 1024, "of all uploads together, kept at the most; beyond that they go through without being kept"
    )
    max_body: int = option(64 * 1024 * 1024, "largest upload, in bytes; larger ones get 413")
    max_connections: int = option(8_000, "clients connected at once; more are told 503 and to come again")
    max_in_flight: int = option(2_000, "requests being worked on at once; more are told 503 before their body is read")
    finish_seconds: float = option(30.0, "after SIGTERM: how long requests in flight may take")
    processes: int = option(1, "processes that share the port, each with its own turn and its own view of the workers")
    splice: bool = option(True, "let the kernel move bodies above 48 KB where it can; off: they are copied")
    tls_cert: Path | None = option(None, "certificate (PEM) to serve HTTPS with; renewed files are taken up")
    tls_key: Path | None = option(None, "its key, if it is in a file of its own")
    tls_client_ca: Path | None = option(None, "only clients with a certificate of this authority are let in")
    trusted: tuple[str, ...] = option(
        (), "addresses or networks of proxies before this one, whose X-Forwarded-For is believed and added to"
    )
    admin_port: int = option(0, "port for /-/metrics and /-/workers alone, on loopback; 0: they are at the main port")
    admin_token_file: Path | None = option(
        None, "file with the token that /-/metrics and /-/workers want; beyond loopback they need it, or --admin-port"
    )
    access_log: AccessLogFormat = option("none", "a line for each request on standard output: none, json or common")
    insecure: bool = option(False, "listen beyond loopback although nobody is asked who they are")

    def __post_init__(self) -> None:
        require_port("--port", self.port)
        require_port("--admin-port", self.admin_port)
        if not self.host.startswith("unix:"):
            require_loopback(self.host, self.insecure)
        if not 1 <= self.processes <= 256:
            raise ConfigurationError(f"--processes {self.processes}: expected 1 to 256")
        if (self.tls_key or self.tls_client_ca) and not self.tls_cert:
            raise ConfigurationError("--tls-key and --tls-client-ca need --tls-cert")
