"""What can happen to a catalog, said to whoever keeps a copy of it. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

from .instance import Address, Instance


@dataclass(frozen=True)
class Put:
    """`instance` is new, or changed. With a `principal` (who made it) it outlives its maker's connection."""

    instance: Instance
    principal: str = ""


@dataclass(frozen=True)
class Gone:
    """With a `principal` it was one that outlives connections: it is removed wherever it was written."""

    instance: Instance
    principal: str = ""


@dataclass(frozen=True)
class Mark:
    """An operator's word about an instance, kept apart from what its owner says and from what was measured."""

    id: str
    enabled: bool
    reason: str = ""


@dataclass(frozen=True)
class Refused:
    """Nothing changed; `reason` is for the log, the operator, and who asked."""

    id: str
    reason: str


@dataclass(frozen=True)
class Released:
    """We no longer hold it, somebody else does: the engine forgets our version, and readers notice nothing."""

    instance: Instance


@dataclass(frozen=True)
class Dial:
    """Find out whether anybody listens at `address` before what `peer` said of it is served."""

    id: str
    peer: str
    address: Address


Change = Put | Gone | Mark
