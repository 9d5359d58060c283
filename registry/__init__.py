"""Who is alive, and where.

Nouns: an `Instance` is one process that serves, at an `Address`; the `Catalog` is the state machine that knows them all;
the `Hub` is its shell with sockets; a `Link` is a peer's end of the connection to a hub, and holds a `Replica` of the
catalog; a `Lookup` is the answer of a manual DNS. Ground floor: imports nothing of the other folders.
"""

from .catalog import Catalog
from .instance import Address, Instance, Query
from .link import Link
from .lookup import Lookup
from .replica import Replica
from .server import Hub

__all__ = ["Address", "Catalog", "Hub", "Instance", "Link", "Lookup", "Query", "Replica"]
