"""Address and Instance: one process that serves, and where. Pure values; equality is by content."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from .check import Check
from .errors import InvalidInstance

if TYPE_CHECKING:
    from semantic_version import Version

# semantic_version is imported where versions are compared: it takes 7 MB with all that it imports, and most ask for none.

State = Literal["starting", "passing", "draining", "critical"]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
HOST = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")
COMPARATOR = re.compile(r"([<>=~^])\s+")  # npm lets `>= 1.2` stand for `>=1.2`; the library behind NpmSpec does not


@dataclass(frozen=True, order=True)
class Address:
    host: str
    port: int

    def __post_init__(self) -> None:
        if not isinstance(self.port, int) or isinstance(self.port, bool) or not 0 < self.port < 65536:
            raise InvalidInstance(f"{self.port!r} is not a port: expected a whole number from 1 to 65535")
        if not HOST.fullmatch(self.host):
            raise InvalidInstance(f"{self.host!r} is not a host name or IP address")

    @classmethod
    def parse(cls, text: str, host: str = "127.0.0.1") -> Address:
        """`9001`, `host:9001`, `[::1]:9001`; `host` stands in when only a port is given."""
        head, _, tail = text.strip().rpartition(":")
        if not tail.isascii() or not tail.isdigit() or len(tail) > 5:
            raise InvalidInstance(f"{text!r} is not an address: expected PORT or HOST:PORT")
        return cls(head.removeprefix("[").removesuffix("]") or host, int(tail))

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Instance:
    """One registration. `meta` holds whatever else its owner said; it is carried, never interpreted.

    `state` is the owner's word and the measured health in one; `enabled` is the operator's word, kept apart from both;
    `suspect` says that the registry has not heard of it for long, but holds it: to be sent to last.
    """

    id: str
    service: str
    address: Address
    version: str = ""
    state: State = "passing"
    models: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    weight: int = 1
    enabled: bool = True
    suspect: bool = False
    checks: tuple[Check, ...] = ()

    @property
    def serving(self) -> bool:
        """Whether uploads may be sent to it."""
        return self.state == "passing" and self.enabled

    @property
    def role(self) -> str:
        return f"{self.service}@{self.version}" if self.version else self.service

    def as_meta(self) -> dict[str, Any]:
        """The `meta` object of a seaport row, and an engine's document. What says nothing new is left out."""
        row = dict(self.meta)
        row |= {"role": self.service, "host": self.address.host, "port": self.address.port, "id": self.id}
        if self.version:
            row["version"] = self.version
        if self.state != "passing":
            row["state"] = self.state
        for name, values in (("models", self.models), ("tags", self.tags)):
            if values:
                row[name] = list(values)
        if self.weight != 1:
            row["weight"] = self.weight
        if not self.enabled:
            row["enabled"] = False
        if self.suspect:
            row["suspect"] = True
        if self.checks:
            row["checks"] = [check.as_json() for check in self.checks]
        return row

    @classmethod
    def from_meta(cls, id: str, meta: Mapping[str, Any], host: str) -> Instance:
        """A seaport row's `meta`; `host` (the peer's address) stands in when it names none. Raises InvalidInstance."""
        rest = dict(meta)
        rest.pop("id", None)
        service, version = rest.pop("role", None), rest.pop("version", None)
        state, models = rest.pop("state", "passing"), rest.pop("models", ())
        if isinstance(service, str) and not version:
            service, _, version = service.partition("@")
        if not isinstance(service, str) or not NAME.fullmatch(service):
            raise InvalidInstance(f"{service!r} is not a service name: letters, digits, '_', '.', '-', at most 128")
        if not isinstance(id, str) or not 0 < len(id) <= 128:
            raise InvalidInstance(f"{id!r} is not an id: expected a text of 1 to 128 characters")
        if state not in get_args(State):
            raise InvalidInstance(f"{state!r} is not a state: expected one of {', '.join(get_args(State))}")
        if not isinstance(models, list | tuple) or not all(isinstance(name, str) for name in models):
            raise InvalidInstance(f"models is {models!r}: expected a list of names")
        named, port = rest.pop("host", None) or host, rest.pop("port", None)
        if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) < 6:
            port = int(port)
        if not isinstance(named, str):
            raise InvalidInstance(f"{named!r} is not a host name or IP address")
        version = version if isinstance(version, str) else ""
        ours = {name: value for name, read in _READ.items() if name in rest and (value := read(rest[name])) is not None}
        rest = {name: value for name, value in rest.items() if name not in ours}
        return cls(id, service, Address(named, port), version, state, tuple(models), rest, **ours)


def _tags(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list | tuple) and all(isinstance(tag, str) for tag in value) else None


def _weight(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535 else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _checks(value: object) -> tuple[Check, ...] | None:
    return tuple(map(Check.from_json, value)) if isinstance(value, list | tuple) else None


# What else of `meta` is ours, if it is of the right kind; otherwise it is a word of its owner's like any other.
_READ: Mapping[str, Callable[[object], Any]] = {
    "tags": _tags,
    "weight": _weight,
    "enabled": _flag,
    "suspect": _flag,
    "checks": _checks,
}


@dataclass(frozen=True)
class Query:
    """`name`, `name@range`, or nothing for all; ranges as npm writes them (`1.2.x`, `^1.2`, `>=1 <2`)."""

    service: str = ""
    range: str = ""

    @classmethod
    def parse(cls, text: str) -> Query:
        service, _, wanted = text.strip().partition("@")
        return cls(service, wanted.strip())

    def matches(self, instance: Instance) -> bool:
        return (not self.service or instance.service == self.service) and satisfies(instance.version, self.range)


EVERYTHING = Query()


def satisfies(version: str, wanted: str) -> bool:
    """npm's semver.satisfies; what is no version, or no range, satisfies nothing but the empty range."""
    if not wanted:
        return True
    from semantic_version import Version

    try:
        found = Version(version.strip().removeprefix("v"))
        return any(_within(found, part.strip()) for part in wanted.split("||"))
    except (ValueError, AttributeError):  # the latter is NpmSpec's for `a - b` of what are no versions
        return False


def is_range(wanted: str) -> bool:
    """Whether `wanted` can be read; what cannot satisfies nobody."""
    from semantic_version import Version

    try:
        for part in wanted.split("||"):
            _within(Version("0.0.0"), part.strip() or "*")
    except ValueError:
        return False
    return True


def _within(version: Version, part: str) -> bool:
    from semantic_version import NpmSpec, Version

    try:  # one whole version; NpmSpec would let 1.2.3-rc.1 stand for 1.2.3 as well
        return bool(version.truncate("prerelease") == Version(part.lstrip("=v ")).truncate("prerelease"))
    except ValueError:
        return bool(NpmSpec(COMPARATOR.sub(r"\1", part)).match(version))
