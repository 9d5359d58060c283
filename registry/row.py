"""A registration as the catalog keeps it: its owner's word, what was measured, who else claims it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .changes import Put
from .errors import InvalidInstance, WireError
from .instance import Instance, State
from .lease import SHOWN, Silence, worse
from .wire import Register, encode

MAX_DEPTH = 32  # of metadata within metadata


@dataclass(frozen=True, slots=True)
class Word:
    """What somebody says of an instance. What is `relayed` may be about somebody else, who need not live any more."""

    instance: Instance
    relayed: bool = False
    size: int = 0  # bytes of its document; 0 if it was not said to us, but read from an engine


@dataclass(slots=True)
class Row:
    word: Word  # its owner's
    owner: str
    principal: str = ""
    measured: State = "passing"  # what its checks say
    unheard: bool = False  # nothing was heard of it since the restart
    shown: Instance | None = None  # what readers were told
    heir: Instance | None = None  # the engine's version, by another hub: its own when our owner goes

    @property
    def instance(self) -> Instance:
        return self.word.instance

    def look(self, silence: Silence, enabled: bool) -> Instance:
        """What readers are to see."""
        state, suspect = SHOWN[worse(self.instance.state, self.measured), silence]
        seen = self.instance
        if (seen.state, seen.suspect, seen.enabled) == (state, suspect, enabled):
            return seen
        return replace(seen, state=state, suspect=suspect, enabled=enabled)

    def document(self) -> Put:
        """What the engine is to hold. The operator's mark is kept elsewhere."""
        # What checks say is not written: every hub asks for itself. What silence says is: only we could hear.
        if self.principal or self.shown is None:
            return Put(self.instance, self.principal)
        return Put(replace(self.shown, enabled=True))


def first_word(instance: Instance) -> State:
    """Before a check was asked, its own `status` counts."""
    return "critical" if any(check.status == "critical" for check in instance.checks) else "passing"


def last_word(instance: Instance) -> State:
    """What its owner said last, where that is written: another registry heard it, or our last life did."""
    said = [check for check in instance.checks if check.kind == "ttl"]
    return "critical" if any(check.status == "critical" for check in said) else "passing"


def weigh(instance: Instance) -> int:
    """The bytes of its document, with room for what is said of it later. InvalidInstance if it could not be told."""
    if _is_deeper(instance.meta, MAX_DEPTH):
        raise InvalidInstance(f"its metadata are nested too deeply; at most {MAX_DEPTH} levels are accepted")
    try:
        worst = replace(instance, state="critical", enabled=False, suspect=True)
        return len(encode(Register(instance.id, worst.as_meta())))
    except WireError as error:
        raise InvalidInstance(str(error)) from error


def too_large(instance: Instance) -> str | None:
    """A row nobody can be told is not taken."""
    try:
        weigh(instance)
    except InvalidInstance as error:
        return str(error)
    return None


def _is_deeper(value: object, levels: int) -> bool:
    """Whoever reads it has a stack of his own, maybe a smaller one than ours."""
    if not isinstance(value, Mapping | list | tuple):
        return False
    return not levels or any(
        _is_deeper(item, levels - 1) for item in (value.values() if isinstance(value, Mapping) else value)
    )
