"""Settings of the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..registry.config import require_loopback, require_port
from ..registry.credentials import StoreSettings
from ..registry.options import option

Mode = Literal["auto", "forward", "address", "redirect"]
AddressFormat = Literal["host:port", "port", "url"]


@dataclass(frozen=True)
class ProxySettings(StoreSettings):
    host: str = option("127.0.0.1", "address to listen on; anything but loopback wants --insecure")
    port: int = option(12480, "TCP port; 0 takes a free one", env="FAIRWAY_PROXY_PORT")
    mode: Mode = option(
        "auto", "auto: GET / hands out an address, uploads are forwarded, /-/direct/ redirects; or one only"
    )
    static: tuple[str, ...] = option((), "fixed workers, PORT or HOST:PORT, comma separated: no registry is needed")
    service: str = option("classify", "the service meant when a request names none")
    address_format: AddressFormat = option("host:port", "what address mode answers; ?format= overrides it")
    address_ttl_seconds: float = option(5.0, "how long callers may keep addresses; workers drain for as long")
    wait_seconds: float = option(2.0, "how long a request waits for a worker to appear before it gets 503")
    connect_seconds: float = option(2.0, "how long connecting to a worker may take")
    deadline_seconds: float = option(
        30.0, "from the upload being read to the answer's beginning, all attempts included"
    )
    stall_seconds: float = option(30.0, "an upload or an answer that makes no progress for this long is given up")
    replay_bytes: int = option(1024 * 1024, "of each upload, kept until answered, so that another worker can be tried")
    max_body: int = option(64 * 1024 * 1024, "largest upload, in bytes; larger ones get 413")
    finish_seconds: float = option(30.0, "after SIGTERM: how long requests in flight may take")
    insecure: bool = option(False, "listen beyond loopback although nobody is asked who they are")

    def __post_init__(self) -> None:
        require_port("--port", self.port)
        require_loopback(self.host, self.insecure)
