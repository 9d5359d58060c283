"""What the checks of the instances say that were registered over HTTP. Sans-io: `now` is an argument, in seconds.

Laws:
* critical beats warning beats passing: an instance is as well as its worst check.
* An http or tcp check is asked, one question at a time, `interval` after the last answer. A ttl check is critical once its
  owner has said nothing for `ttl`. (Consul's words and defaults; docs of /v1/agent/check.)
* With `shared`, other registries hold the same rows, and an owner talks to one of them only. What it said there is in the
  row's document. Who did not hear it goes by that, and dials the address: whoever is dead says nothing to anybody.
* An instance whose check was critical for longer than it allows is to be deregistered; where many of a service are ill at
  once, it is more likely we who are blind, and they are kept for a while (`lease.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from zlib import crc32

from .check import Check, Status
from .deadlines import Deadlines
from .instance import Address, Instance, State
from .lease import HOLD_SECONDS, is_mass

WORST: Mapping[str, int] = {"passing": 0, "warning": 1, "critical": 2}
LEAST_INTERVAL = 0.1  # seconds; whatever a document says
LOOK_AGAIN_SECONDS = 30.0  # at those who should have been deregistered
DIALS_BEFORE_CRITICAL = 2  # of a ttl check whose owner talks to another registry


@dataclass(frozen=True)
class Result:
    status: Status
    output: str = ""


@dataclass(frozen=True)
class Ask:
    """To be asked now; then `report` what came of it. A ttl check here means: dial the address."""

    id: str
    check: Check
    address: Address


@dataclass(frozen=True)
class Turned:
    """What the checks of this instance say has changed, or was heard for the first time."""

    id: str


@dataclass(frozen=True)
class Expired:
    """Critical for longer than it allows: to be deregistered."""

    id: str


Event = Ask | Turned | Expired


@dataclass(slots=True, eq=False)
class Course:
    """How one check goes."""

    stay: Stay
    check: Check  # as its document has it; its status is what other registries know
    result: Result
    since: float  # when it became what it is
    heard: bool = False  # something came of it since we know it
    word: Status | None = None  # what its owner said to us, or its silence; None: what it says elsewhere counts
    fresh: bool = False  # it said so lately enough
    asking: bool = False  # right now
    successes: int = 0
    failures: int = 0

    @property
    def asked(self) -> bool:
        """It is we who ask."""
        return self.check.kind != "ttl" or (self.stay.shared and not self.fresh)

    @property
    def interval(self) -> float:
        every = self.check.ttl_seconds / 3 if self.check.kind == "ttl" else self.check.interval_seconds
        return max(LEAST_INTERVAL, every)


@dataclass(slots=True, eq=False)
class Stay:
    """One instance, as long as it is here."""

    instance: Instance
    shared: bool
    courses: dict[str, Course] = field(default_factory=dict)
    version: int = 0
    expires: float | None = None  # when it is to be deregistered

    @property
    def status(self) -> Status:
        return max((c.result.status for c in self.courses.values()), key=WORST.__getitem__, default="passing")


class Health:
    """`track` and `forget` instances; ask for what is `due`; `report` what was answered, or was `said` by its owner."""

    def __init__(self, shared: bool = False) -> None:
        self._shared = shared
        self._stays: dict[str, Stay] = {}
        self._holders: dict[str, str] = {}  # check id -> instance id
        self._populations: Counter[str] = Counter()
        self._ill: dict[str, set[str]] = {}  # service -> ids of its critical ones
        self._versions: Counter[str] = Counter()  # service -> how often anything was said
        self._asks: Deadlines[Course] = Deadlines()
        self._clocks: Deadlines[Course | Stay] = Deadlines()

    # -- readers ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._stays)

    def results(self, id: str) -> dict[str, Result]:
        """By check id; empty for whom we do not know."""
        stay = self._stays.get(id)
        return {name: course.result for name, course in stay.courses.items()} if stay else {}

    def state(self, id: str) -> State:
        """What the catalog is to think of it; a warning is no reason not to serve."""
        stay = self._stays.get(id)
        return "critical" if stay and stay.status == "critical" else "passing"

    def statuses(self, id: str) -> dict[str, Status]:
        return {name: result.status for name, result in self.results(id).items()}

    def find(self, check_id: str) -> tuple[str, Check] | None:
        """-> the instance's id, and the check."""
        holder = self._holders.get(check_id)
        return (holder, self._stays[holder].courses[check_id].check) if holder is not None else None

    def version(self, service: str | None) -> int:
        """Grows with whatever a reader of the service's checks (None: of any) could see."""
        return self._versions[service or ""]

    def version_of(self, id: str) -> int:
        stay = self._stays.get(id)
        return stay.version if stay else 0

    def vouched(self, id: str) -> dict[str, Status]:
        """Statuses that other registries are to know from us: of ttl checks whose owner talks, or talked, to us."""
        stay = self._stays.get(id)
        found = stay.courses.values() if stay and self._shared else ()
        return {course.check.id: course.word for course in found if course.word is not None}

    def next_deadline(self, room: int = 1) -> float | None:
        """When `due` has something to say, if there is `room` for questions."""
        due = [self._clocks.next(), self._asks.next() if room > 0 else None]
        return min((when for when in due if when is not None), default=None)

    # -- who is here -----------------------------------------------------------------------------------------------

    def track(self, instance: Instance, now: float, spread: bool = False) -> None:
        """New, or changed. Checks that it had already keep their status, and their rhythm if they are the same.

        `spread`: do not ask at once, but some time in the first interval: many come at a time.
        """
        before = self._stays.get(instance.id)
        if before is not None and before.instance.service != instance.service:
            self.forget(instance.id)
        stay = before or Stay(instance, self._shared)
        if instance.id not in self._stays:
            self._stays[instance.id] = stay
            self._populations[instance.service] += 1
        moved = stay.instance.address != instance.address
        stay.instance = instance
        kept, stay.courses = stay.courses, {}
        for check in instance.checks:
            course = kept.pop(check.id, None)
            stay.courses[check.id] = (
                self._continue(course, check, now, moved) if course else self._begin(stay, check, now)
            )
            if course is None and spread and (begun := stay.courses[check.id]).asked:
                self._later(begun, now + begun.interval * crc32(check.id.encode("utf-8", "replace")) / 2**32)
            self._holders.setdefault(check.id, instance.id)
        for name, course in kept.items():
            self._end(course)
            self._let_go(name, instance.id)
        self._changed(stay)

    def forget(self, id: str) -> None:
        stay = self._stays.pop(id, None)
        if stay is None:
            return
        self._clocks.drop(stay)
        for name, course in stay.courses.items():
            self._end(course)
            self._let_go(name, id)
        service = stay.instance.service
        self._ill.get(service, set()).discard(id)
        if not self._ill.get(service, True):
            del self._ill[service]
        self._populations[service] -= 1
        self._versions[service] += 1
        self._versions[""] += 1
        if not self._populations[service]:
            del self._populations[service], self._versions[service]

    # -- what comes of it ------------------------------------------------------------------------------------------

    def due(self, now: float, room: int) -> list[Event]:
        """What is to be done now, with at most `room` questions; each is out of the way until its `report`."""
        events: list[Event] = []
        while (clock := self._clocks.take(now)) is not None:
            events += self._look_at(clock, now) if isinstance(clock, Stay) else self._silent(clock, now)
        while room > 0 and (course := self._asks.take(now)) is not None:
            course.asking = True
            room -= 1
            events.append(Ask(course.stay.instance.id, course.check, course.stay.instance.address))
        return events

    def report(self, id: str, check: Check, result: Result, now: float) -> list[Event]:
        """What came of an `Ask` for `check`. If it is another check by now, nobody cares."""
        stay = self._stays.get(id)
        course = stay.courses.get(check.id) if stay else None
        if course is None or not course.asking:
            return []
        self._later(course, now + course.interval)
        if result.status == "critical":
            course.successes, course.failures = 0, course.failures + 1
            needed = DIALS_BEFORE_CRITICAL if check.kind == "ttl" else check.failures_before_critical
            if course.failures < needed:
                return []
        else:
            course.successes, course.failures = course.successes + 1, 0
            if check.kind == "ttl":
                result = Result(
                    course.word or course.check.status, f"its owner talks to another registry; {result.output}"
                )
            elif course.result.status == "critical" and course.successes < check.successes_before_passing:
                return []
        return self._say(course, result, now)

    def said(self, check_id: str, result: Result, now: float) -> list[Event]:
        """By its owner, of a ttl check. What is not known is no longer: nothing."""
        found = self.find(check_id)
        if found is None or found[1].kind != "ttl":
            return []
        course = self._stays[found[0]].courses[check_id]
        course.word, course.fresh = result.status, True
        self._later(course, now + course.check.ttl_seconds)
        events = self._say(course, result, now)
        if not events and self._shared and course.word != course.check.status:
            return [Turned(found[0])]  # another one took its silence there for silence
        return events

    # -- one check -------------------------------------------------------------------------------------------------

    def _begin(self, stay: Stay, check: Check, now: float) -> Course:
        # What is served already, by a row of before or of another registry, is well until we know better.
        ill = stay.instance.state == "critical" or check.status != "critical"
        course = Course(stay, check, Result(check.status if ill else "passing"), now)
        self._later(course, now if course.asked else now + check.ttl_seconds)
        return course

    def _continue(self, course: Course, check: Check, now: float, moved: bool) -> Course:
        same = replace(check, status=course.check.status) == course.check and not moved
        elsewhere = check.kind == "ttl" and self._shared and not course.fresh
        if elsewhere and check.status not in (course.check.status, course.word):  # another registry was told so
            course.word = None
            course.result, course.since = Result(check.status, course.result.output), now
        course.check = check
        if not same:
            course.successes = course.failures = 0
            self._later(course, now if course.asked else now + check.ttl_seconds)
        return course

    def _silent(self, course: Course, now: float) -> list[Event]:
        """A ttl check's owner said nothing for too long."""
        course.fresh, course.word = False, "critical"
        if course.asked:
            self._later(course, now + course.interval)
        return self._say(course, Result("critical", "TTL expired"), now)

    def _say(self, course: Course, result: Result, now: float) -> list[Event]:
        turned = result.status != course.result.status or not course.heard
        if result.status != course.result.status:
            course.since = now
        course.heard = True
        if turned or result != course.result:
            course.result = result
            self._changed(course.stay)
        return [Turned(course.stay.instance.id)] if turned else []

    def _changed(self, stay: Stay) -> None:
        service, id = stay.instance.service, stay.instance.id
        stay.version += 1
        self._versions[service] += 1
        self._versions[""] += 1
        if stay.status == "critical":
            self._ill.setdefault(service, set()).add(id)
        elif id in self._ill.get(service, ()):
            self._ill[service].discard(id)
        ends = [
            course.since + course.check.deregister_after_seconds
            for course in stay.courses.values()
            if course.result.status == "critical" and course.check.deregister_after_seconds > 0
        ]
        expires = min(ends, default=None)
        if expires != stay.expires:
            stay.expires = expires
            if expires is None:
                self._clocks.drop(stay)
            else:
                self._clocks.put(stay, expires)

    def _look_at(self, stay: Stay, now: float) -> list[Event]:
        """Its time is over."""
        assert stay.expires is not None
        service = stay.instance.service
        self._clocks.put(stay, now + LOOK_AGAIN_SECONDS)
        if is_mass(len(self._ill.get(service, ())), self._populations[service]) and now < stay.expires + HOLD_SECONDS:
            return []
        return [Expired(stay.instance.id)]

    def _later(self, course: Course, when: float) -> None:
        """Its one deadline; what is being asked right now is asked in vain."""
        self._end(course)
        if course.asked:
            self._asks.put(course, when)
        else:
            self._clocks.put(course, when)

    def _end(self, course: Course) -> None:
        course.asking = False
        self._asks.drop(course)
        self._clocks.drop(course)

    def _let_go(self, check_id: str, id: str) -> None:
        if self._holders.get(check_id) == id:
            del self._holders[check_id]

    def __repr__(self) -> str:
        ill = sum(map(len, self._ill.values()))
        checks = sum(len(stay.courses) for stay in self._stays.values())
        return f"<Health [{checks} checks of {len(self._stays)} instances, {ill} critical]>"
