"""Settings of `fairway classify`, and of the client library's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..registry.errors import ConfigurationError
from ..registry.options import option

Via = Literal["address", "forward", "redirect"]


@dataclass(frozen=True)
class ClientSettings:
    url: str = option("http://127.0.0.1:12480", "the proxy's address")
    via: Via = option(
        "address", "address: look up, upload straight to a worker; forward: through the proxy; redirect: 307"
    )
    service: str = option("", "service to ask for; empty: the proxy's default")
    top: int = option(5, "how many labels an image gets")
    concurrency: int = option(16, "uploads under way at once")
    timeout_seconds: float = option(30.0, "for one image, all attempts included")
    json: bool = option(False, "one JSON object a line")

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.top < 1:
            raise ConfigurationError("--concurrency and --top: at least 1")
