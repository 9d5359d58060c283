"""Who was heard when, whom to ask, and who is lost. Sans-io: `now` is an argument.

Who speaks on a local network says so again and again, and dies without a word. Law: whoever was not heard for `ask_after`
is asked, once more later, and is lost after `lost_after` without an answer. Who did not listen cannot say that nobody
spoke: time in which `due` was not called is nobody's silence.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from .deadlines import Deadlines

T = TypeVar("T", bound=Hashable)

LOOK_SECONDS = 0.5  # how often `due` is to be called
DEAF_SECONDS = 2.0  # between two calls: we were stopped, or asleep
ANSWER_SECONDS = 1.2  # how long an answer may take (RFC 6762, 6: half a second, one more if it was just given)


@dataclass
class _Ear:
    heard_at: float
    questions: int = 0


class Hearing(Generic[T]):
    def __init__(self, ask_after: float = 7.0, lost_after: float = 10.0) -> None:
        """Seconds. The defaults go with things that are said every 10/3 s: two were missed."""
        self.ask_after, self.lost_after = ask_after, lost_after
        self._ears: dict[T, _Ear] = {}
        self._deadlines: Deadlines[T] = Deadlines()
        self._looked_at: float | None = None

    def heard(self, thing: T, now: float) -> None:
        self._ears[thing] = _Ear(now)
        self._deadlines.put(thing, now + self.ask_after)

    def forget(self, thing: T) -> None:
        self._ears.pop(thing, None)
        self._deadlines.drop(thing)

    def doubt(self, thing: T, now: float) -> None:
        """There is a sign that it is gone: an answer may still be under way, and that is all we wait for."""
        ear = self._ears.get(thing)
        if ear and ear.questions:
            ear.questions = 2
            self._deadlines.put(thing, min(now + ANSWER_SECONDS, ear.heard_at + self.lost_after))

    def due(self, now: float) -> tuple[list[T], list[T]]:
        """-> those to be asked, and those that are lost, which are forgotten herewith."""
        self._allow_for_deafness(now)
        ask: list[T] = []
        lost: list[T] = []
        while (thing := self._deadlines.take(now)) is not None:
            ear = self._ears[thing]
            if ear.questions == 2:
                del self._ears[thing]
                lost.append(thing)
                continue
            ear.questions += 1
            ask.append(thing)
            end = ear.heard_at + self.lost_after
            next = end if ear.questions == 2 else (now + end) / 2
            self._deadlines.put(thing, max(next, now + LOOK_SECONDS))  # late as we may be: an answer has its time
        return ask, lost

    def asked(self, thing: T) -> int:
        """How often, since it was heard."""
        return self._ears[thing].questions if thing in self._ears else 0

    def _allow_for_deafness(self, now: float) -> None:
        gap = now - self._looked_at if self._looked_at is not None else 0.0
        self._looked_at = now
        if gap > DEAF_SECONDS:
            for thing, ear in self._ears.items():
                ear.heard_at = min(ear.heard_at + gap, now)
                ear.questions = 0
                self._deadlines.put(thing, ear.heard_at + self.ask_after)

    def __contains__(self, thing: object) -> bool:
        return thing in self._ears

    def __len__(self) -> int:
        return len(self._ears)
