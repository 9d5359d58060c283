"""Which versions of one model should be served, and what is to be done next to get there. Sans-io.

The words are TensorFlow Serving's: a version is *aspired* to when the policy, or a label, wants it; its states are

    START       it is wanted; nothing has been done yet, or it failed and waits to be tried again
    LOADING     it is being read and warmed up
    AVAILABLE   it is served
    UNLOADING   it is served no longer, but requests that came before still run
    END         it is gone, or has failed for good

and what may follow what stands in `TABLE`. What is served is not given up before there is something better:

- superseded (still there, but no longer wanted): goes when everything that is wanted is served;
- removed from its folder: goes when anything that is wanted is served;
- named by a label that is to move: goes when the label has moved, which it does when its new target is served;
- nothing is found any more: stays. A folder that is emptied by mistake, or not mounted, ends no service;
- the model is withdrawn: goes.

Where the latest is wanted, has failed, and nothing is served, the next lower version stands in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .errors import ConfigurationError

State = Literal["START", "LOADING", "AVAILABLE", "UNLOADING", "END"]
Event = Literal["wanted", "begun", "loaded", "failed", "given up", "retired", "unloaded"]

TABLE: Mapping[tuple[State, Event], State] = {
    ("START", "begun"): "LOADING",
    ("LOADING", "loaded"): "AVAILABLE",
    ("LOADING", "failed"): "START",
    ("LOADING", "given up"): "END",
    ("AVAILABLE", "retired"): "UNLOADING",
    ("UNLOADING", "unloaded"): "END",
    ("END", "wanted"): "START",
    # its files changed while it was served: what was loaded serves until the new contents do, or for good if they fail
    ("AVAILABLE", "begun"): "AVAILABLE",
    ("AVAILABLE", "loaded"): "AVAILABLE",
    ("AVAILABLE", "failed"): "AVAILABLE",
    ("AVAILABLE", "given up"): "AVAILABLE",
}

PAUSES = (
    1.0,
    4.0,
    15.0,
    60.0,
    60.0,
)  # seconds before a version that failed is tried again; then it has failed for good
REMEMBERED = 8  # versions that are gone and still told about
LABEL = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Policy:
    """`count` highest versions of those that are there, or all of them, or these `versions` of them."""

    kind: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Policy:
        """`latest`, `latest:N`, `all`, `specific:N,N`. Raises ConfigurationError."""
        kind, _, rest = text.strip().partition(":")
        numbers = [part.strip() for part in rest.split(",")] if rest else []
        if all(number.isascii() and number.isdigit() for number in numbers):
            if kind == "latest" and len(numbers) < 2 and numbers != ["0"]:
                return cls("latest", int(numbers[0]) if numbers else 1)
            if kind == "all" and not numbers:
                return cls("all")
            if kind == "specific" and numbers:
                return cls("specific", versions=frozenset(map(int, numbers)))
        raise ConfigurationError(f"version policy {text!r}: expected latest, latest:N, all, or specific:N,N")

    def select(self, found: Iterable[int]) -> set[int]:
        if self.kind == "all":
            return set(found)
        if self.kind == "specific":
            return set(self.versions) & set(found)
        return set(sorted(found)[-self.count :])

    def __str__(self) -> str:
        numbers = ",".join(map(str, sorted(self.versions))) if self.kind == "specific" else str(self.count)
        return self.kind if self.kind == "all" else f"{self.kind}:{numbers}"


def parse_labels(text: str) -> dict[str, int]:
    """`stable=1,canary=2` -> which version each name means. Raises ConfigurationError."""
    labels: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        label, equals, number = (word.strip() for word in part.partition("="))
        if not equals or not (number.isascii() and number.isdigit()):
            raise ConfigurationError(f"version labels {text!r}: expected NAME=VERSION,NAME=VERSION")
        if label in labels:
            raise ConfigurationError(f"version labels {text!r}: {label} is said twice")
        labels[label] = int(number)
    check_labels(labels)
    return labels


def check_labels(labels: Mapping[str, int]) -> None:
    """Raises ConfigurationError for a name that could not be asked for in TensorFlow Serving's paths."""
    for label in labels:
        if not LABEL.fullmatch(label):
            raise ConfigurationError(f"version label {label!r}: expected letters, digits and '_'")


@dataclass(frozen=True)
class VersionStatus:
    """`code`: OK, or the name of the gRPC status that `message` explains."""

    version: int
    state: State
    code: str = "OK"
    message: str = ""


@dataclass
class Version:
    """`due`: not to be begun before, in seconds of the caller's clock. `changed`: its files did, since its last attempt."""

    number: int
    state: State = "START"
    code: str = "OK"
    message: str = ""
    tries: int = 0
    due: float = 0.0
    loading: bool = False
    changed: bool = False

    def on(self, event: Event) -> None:
        self.state = TABLE[self.state, event]

    def afresh(self) -> None:
        """What went wrong before does not count any more."""
        self.tries, self.due = 0, 0.0


@dataclass
class Versions:
    """Of one model. Who carries it out asks `next_load` and `next_unload`, and says what became of it."""

    name: str
    policy: Policy = Policy()
    label_targets: Mapping[str, int] = field(default_factory=dict)  # where each label should point
    labels: dict[str, int] = field(default_factory=dict)  # where it points: to what is served only
    withdrawn: bool = False
    _found: set[int] = field(default_factory=set)
    _wanted: set[int] = field(default_factory=set)
    _known: dict[int, Version] = field(default_factory=dict)

    # -- what is wanted -----------------------------------------------------------------------------------------

    def configure(self, policy: Policy, labels: Mapping[str, int]) -> None:
        self.policy, self.label_targets = policy, dict(labels)
        self._aspire()

    def aspire(self, found: Collection[int]) -> None:
        """`found`: the versions that are there, complete as far as one can see."""
        self._found = set(found)
        self._aspire()

    def withdraw(self) -> None:
        """Out of service, until `restore`."""
        self.withdrawn = True
        self._aspire()

    def restore(self) -> None:
        self.withdrawn = False
        self.retry()
        self._aspire()

    def retry(self) -> None:
        """What has failed is tried again, at once."""
        for number in [v.number for v in self._known.values() if v.message]:
            self.changed(number)

    def changed(self, number: int) -> None:
        """The files of a version that was tried, or is served, are not what they were."""
        version = self._known.get(number)
        if version is None:
            return
        version.afresh()
        if version.state == "END" and version.message:
            version.on("wanted")
        version.changed = version.loading or version.state == "AVAILABLE"
        self._aspire()

    def _aspire(self) -> None:
        labelled = set(self.label_targets.values()) & self._found
        self._wanted = set() if self.withdrawn else self.policy.select(self._found) | labelled
        for number in self._wanted:
            version = self._known.setdefault(number, Version(number))
            if version.state == "END" and not version.message:
                version.on("wanted")
        for version in [*self._known.values()]:
            failed = version.state == "END" and version.message
            if (version.state == "START" and version.number not in self._wanted) or (
                failed and version.number not in self._found
            ):
                del self._known[version.number]
        gone = sorted(v.number for v in self._known.values() if v.state == "END" and v.number not in self._wanted)
        for number in gone[:-REMEMBERED]:
            del self._known[number]
        self._move_labels()

    def _move_labels(self) -> None:
        served = set(self.available)
        moved = {}
        for label, target in self.label_targets.items():
            place = target if target in served else self.labels.get(label)
            if place in served:
                moved[label] = place
        self.labels = moved

    # -- what is to be done -------------------------------------------------------------------------------------

    def next_load(self, now: float) -> int | None:
        """The highest version that is due to be loaded: first what is not served at all, then what has changed."""
        due = [v for v in self._known.values() if v.number in self._wanted and v.due <= now and not v.loading]
        for ready in ([v for v in due if v.state == "START"], [v for v in due if v.changed and v.state == "AVAILABLE"]):
            if ready:
                return max(v.number for v in ready)
        return self._stand_in()

    def _stand_in(self) -> int | None:
        if self.policy.kind != "latest" or not self._wanted:
            return None
        if any(v.state in ("LOADING", "AVAILABLE") for v in self._known.values()):
            return None
        if not all(self._known[number].message for number in self._wanted):
            return None
        gone = {v.number for v in self._known.values() if v.state == "END" and not v.message}
        return max((n for n in self._found if n in gone or n not in self._known), default=None)

    def next_unload(self) -> int | None:
        """The lowest version that is served and may go."""
        wanted = [self._known[number] for number in self._wanted]
        served = [version for version in wanted if version.state == "AVAILABLE"]
        for number in self.available:
            if number in self._wanted or self._known[number].loading:
                continue
            held = any(place == number != self.label_targets[label] for label, place in self.labels.items())
            enough = len(served) == len(wanted) if number in self._found else True
            if self.withdrawn or (served and enough and not held):
                return number
        return None

    def due(self) -> float | None:
        """When time alone will make something due: the next attempt at what has failed."""
        waiting = [v.due for v in self._known.values() if v.state == "START" and v.number in self._wanted]
        return min(waiting, default=None)

    # -- what became of it --------------------------------------------------------------------------------------

    def begun(self, number: int) -> None:
        version = self._known.setdefault(number, Version(number))
        if version.state == "END":  # a stand-in that was served before
            version.on("wanted")
        version.on("begun")
        version.loading, version.changed = True, False

    def loaded(self, number: int) -> None:
        version = self._known[number]
        version.on("loaded")
        version.loading, version.code, version.message = False, "OK", ""
        version.afresh()
        self._aspire()

    def failed(self, number: int, message: str, now: float, code: str = "UNKNOWN") -> None:
        version = self._known[number]
        version.loading, version.code, version.message = False, code, message or "it failed"
        if version.changed:  # while it was being read: that attempt says nothing
            version.on("failed")
            version.changed, version.due = version.state == "AVAILABLE", now
        elif number in self._wanted and version.tries < len(PAUSES) and version.state == "LOADING":
            version.on("failed")
            version.due = now + PAUSES[version.tries]
            version.tries += 1
        else:
            version.on("given up")
        self._aspire()

    def retired(self, number: int) -> None:
        """It is no longer found by requests."""
        self._known[number].on("retired")
        self._move_labels()

    def unloaded(self, number: int) -> None:
        version = self._known[number]
        version.on("unloaded")
        version.changed, version.code, version.message = False, "OK", ""
        self._aspire()

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def available(self) -> list[int]:
        """Lowest first."""
        return sorted(v.number for v in self._known.values() if v.state == "AVAILABLE")

    @property
    def loading(self) -> bool:
        return any(version.loading for version in self._known.values())

    @property
    def returning(self) -> bool:
        """Something is wanted again that has to be unloaded first."""
        return any(self._known[number].state == "UNLOADING" for number in self._wanted)

    @property
    def wanted(self) -> frozenset[int]:
        return frozenset(self._wanted)

    def statuses(self) -> list[VersionStatus]:
        """Highest version first."""
        known = sorted(self._known.values(), key=lambda version: -version.number)
        return [VersionStatus(v.number, v.state, v.code, v.message) for v in known]

    def __repr__(self) -> str:
        shown = ", ".join(f"{v.number} {v.state}" for v in sorted(self._known.values(), key=lambda v: v.number))
        return f"<Versions {self.name} [{self.policy} | {shown or 'none'}]>"
