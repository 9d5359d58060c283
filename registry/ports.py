"""A port that is really free: found by binding it, not by rolling dice."""

from __future__ import annotations

import random
import socket

from .errors import ConfigurationError


def free_port(host: str = "127.0.0.1", low: int = 10_000, high: int = 65_000, tries: int = 200) -> int:
    """A port in `low..high` on which nobody listens at this moment; seaport's range by default."""
    for port in random.sample(range(low, high + 1), min(tries, high - low + 1)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ConfigurationError(f"no free port between {low} and {high} on {host}")
