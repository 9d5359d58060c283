"""Who is alive, and where.

Nouns: an `Instance` is one process that serves, at an `Address`; the `Catalog` is the state machine that knows them all;
the `Hub` is its shell with sockets, timers and faces (rows, HTTP, DNS); a `Store` is where registrations live, an engine
or another hub, and keeps a `Replica` of what others registered; a `Link` is the Store of a peer of a hub; a `Lookup` is the
answer of a manual DNS. Ground floor: imports nothing of the other folders.
"""

from .catalog import Catalog
from .instance import Address, Instance, Query
from .link import Link
from .lookup import Lookup
from .replica import Replica
from .server import Hub
from .store import Store, open_store

__all__ = ["Address", "Catalog", "Hub", "Instance", "Link", "Lookup", "Query", "Replica", "Store", "open_store"]
