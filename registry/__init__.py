"""Who is alive, and where.

Nouns: an `Instance` is one process that serves, at an `Address`; the `Catalog` is the state machine that knows them all;
the `Hub` is its shell with sockets, timers and faces (rows, HTTP, DNS); a `Store` is where registrations live, an engine
or another hub, and keeps a `Replica` of what others registered; a `Link` is the Store of a peer of a hub; a `Lookup` is the
answer of a manual DNS. Ground floor: imports nothing of the other folders.
"""

from typing import TYPE_CHECKING

from .catalog import Catalog
from .instance import Address, Instance, Query
from .link import Link
from .lookup import Lookup
from .replica import Replica
from .store import Store, open_store

if TYPE_CHECKING:
    from .server import Hub

__all__ = ["Address", "Catalog", "Hub", "Instance", "Link", "Lookup", "Query", "Replica", "Store", "open_store"]


def __getattr__(name: str) -> object:
    """The hub's web server is 20 MB of a process, and who only asks a registry does without it."""
    if name == "Hub":
        from .server import Hub

        return Hub
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
