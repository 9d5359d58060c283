"""The engines under test: what the suite must know of each, and where it is."""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod

# Name -> where it is, in this folder. Each is imported when its turn comes.
ENGINES = {
    "hub": "hub:HubEngine",
    "etcd": "etcd:EtcdEngine",
    "zookeeper": "zookeeper:ZooKeeperEngine",
    "consul": "consul:ConsulEngine",
    "mdns": "mdns:MdnsEngine",
}


class Engine(ABC):
    """A real one: `start` it, open stores at `url`, `stop` it. One object serves all tests of the suite, in one loop."""

    name: str
    url: str  # what open_store takes; valid from start on, and the same after a restart
    restarts = True  # whether `kill` and `restart` mean anything
    durable = True  # whether it takes rows with a principal
    marks = True  # whether it keeps an operator's marks
    lists = True  # whether a store that is synced knows all there is; else only what it has heard so far
    takeover = True  # whether another store may simply write an id that is somebody else's
    settle_seconds = 10.0  # a change is seen by everybody within this time: a generous upper bound
    ttl_seconds = 15.0  # an owner that fell silent is gone within this time: TTL_SECONDS, and what the engine adds

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run here, or None."""
        return None

    @abstractmethod
    async def start(self) -> None:
        """Returns when it answers."""

    @abstractmethod
    async def stop(self) -> None:
        """For good: no process and no file of it is left."""

    async def kill(self) -> None:
        """Its process dies at once, without a word."""
        raise NotImplementedError

    async def restart(self) -> None:
        """It is back, with what it had on disk; returns when it answers."""
        raise NotImplementedError


def load(name: str) -> type[Engine] | str:
    """The class, or why there is none here."""
    module, _, attribute = ENGINES[name].partition(":")
    if importlib.util.find_spec(f"{__package__}.{module}") is None:
        return f"there is no engine {name} to test yet"
    found: type[Engine] = getattr(importlib.import_module(f".{module}", __package__), attribute)
    return found.missing() or found
