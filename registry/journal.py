"""The hub's own state as bytes, and what is left of it after a crash. Sans-io: whole files in, records and names out.

A file is lines of ASCII, so that an operator can read it. The first says what it is, each further one is a record:

    fairway journal 1
    0000001b 1f391919 {"gone":"9F2C55D0A1B2C3D4"}

the length of the JSON and its CRC-32 (zlib's), eight hex digits each, and the JSON. The format is our own.

Laws:
* A record says all there is to know about one row, mark or the epoch; the last one of each counts.
* `snapshot-N` is the state when `journal-N` began. It counts if it is whole: its last record says how many it holds.
  What is so is found by the highest whole snapshot, then its journal and those after it.
* A last line that is shorter than it says is the torn tail of a write nobody was told had succeeded: it is cut.
* Any other line that is not what its checksum says is damage. That line is lost, those around it are not: the file is
  set aside for whoever wants to look, and the rest of it used.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .changes import Change, Gone, Mark, Put
from .errors import InvalidInstance, StoreRefused
from .instance import Instance

SNAPSHOT, JOURNAL = b"fairway snapshot 1\n", b"fairway journal 1\n"
MAX_RECORD_BYTES = 64 * 1024  # of JSON
HEADER = re.compile(rb"[0-9a-f]{8} [0-9a-f]{8} ")
HEADER_BYTES = 18
NAME = re.compile(r"(snapshot|journal)-([0-9]{1,15})")
TEMPORARY = re.compile(r"snapshot-[0-9]{1,15}\.tmp")
EPOCH = "epoch"

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Record:
    """One line. `key` is what it is about; `removes`: nothing of that is left."""

    key: str
    line: bytes
    removes: bool = False
    change: Put | Mark | None = None  # what it says, when it was read
    number: int = 0  # of the epoch; of the records before the end of a snapshot


def record(change: Change) -> Record:
    """Raises StoreRefused for what JSON cannot say, or a record too large."""
    try:
        match change:
            case Put(instance, principal):
                said: dict[str, object] = {"put": instance.as_meta()} | ({"principal": principal} if principal else {})
                return Record(f"row {instance.id}", frame(_encode(said)))
            case Gone(instance):
                return Record(f"row {instance.id}", frame(_encode({"gone": instance.id})), removes=True)
            case Mark(id, enabled, reason):
                said = {"mark": id, "enabled": enabled, "reason": reason}
                return Record(f"mark {id}", frame(_encode(said)), removes=enabled)
    except (TypeError, ValueError, RecursionError) as error:
        id = change.id if isinstance(change, Mark) else change.instance.id
        raise StoreRefused(f"{id!r} cannot be kept: {error}") from error


def epoch_record(number: int) -> Record:
    return Record(EPOCH, frame(_encode({"epoch": number})), number=number)


def frame(text: str) -> bytes:
    """The line of one record. Raises ValueError."""
    body = text.encode("ascii")
    if len(body) > MAX_RECORD_BYTES:
        raise ValueError(f"{len(body)} bytes, at most {MAX_RECORD_BYTES} are")
    return b"%08x %08x %b\n" % (len(body), zlib.crc32(body), body)


def parse(line: bytes) -> Record:
    """Raises ValueError saying what is wrong with the line."""
    body = line[HEADER_BYTES:-1]
    if len(body) > MAX_RECORD_BYTES:
        raise ValueError(f"a record has at most {MAX_RECORD_BYTES} bytes")
    if line != b"%08x %08x %b\n" % (len(body), zlib.crc32(body), body):
        raise ValueError("its length or checksum is wrong")
    try:
        match json.loads(body):
            case {"put": {"id": str(id)} as meta, **more}:
                put = Put(Instance.from_meta(id, meta, ""), str(more.get("principal", "")))
                return Record(f"row {id}", line, change=put)
            case {"gone": str(id)}:
                return Record(f"row {id}", line, removes=True)
            case {"mark": str(id), "enabled": bool(enabled), "reason": str(reason)}:
                return Record(f"mark {id}", line, removes=enabled, change=Mark(id, enabled, reason))
            case {"epoch": int(number)}:
                return Record(EPOCH, line, number=number)
            case {"end": int(number)}:
                return Record("end", line, number=number)
    except (ValueError, RecursionError, InvalidInstance) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    raise ValueError("it is no record of ours")


class State:
    """What is to be on disk, as lines by key; and which of it the disk does not have yet."""

    def __init__(self) -> None:
        self.lines: dict[str, bytes] = {}
        self._owed: dict[str, bytes] = {}  # what to append, oldest first
        self._written: set[str] = set()  # keys that are on disk, whatever is said of them

    def absorb(self, record: Record) -> None:
        if record.removes:
            self.lines.pop(record.key, None)
            self._owed.pop(record.key, None)
            if record.key in self._written:  # the end of what was never written need not be
                self._owed[record.key] = record.line
        elif self.lines.get(record.key) != record.line:
            self.lines[record.key] = record.line
            self._owed.pop(record.key, None)
            self._owed[record.key] = record.line

    @property
    def owes(self) -> bool:
        return bool(self._owed)

    def owed(self) -> bytes:
        """What the journal lacks. However long the disk is full, no more than the state and its ends."""
        return b"".join(self._owed.values())

    def settle(self) -> None:
        """The disk has it all."""
        for key in self._owed:
            if key in self.lines:
                self._written.add(key)
            else:
                self._written.discard(key)
        self._owed.clear()

    def snapshot(self) -> Iterator[bytes]:
        """The lines of a whole file."""
        yield SNAPSHOT
        yield from self.lines.values()
        yield frame(_encode({"end": len(self.lines)}))


class Reading:
    """Iterate over it for the sound records of a file; what was wrong with it stands here afterwards."""

    def __init__(self, data: bytes, magic: bytes) -> None:
        self._data = data
        self._magic = magic
        self.kept = 0
        self.torn = 0  # bytes at the end
        self.lost = 0  # lines
        self.first_loss = ""
        self.whole = False  # a snapshot with its end

    def __iter__(self) -> Iterator[Record]:
        at = len(self._magic)
        if not self._data.startswith(self._magic):
            if self._magic.startswith(self._data.rstrip(b"\0")):
                self.torn = len(self._data)
            else:
                self._lose(0, f"it does not begin with {self._magic.decode().strip()!r}")
            return
        while at < len(self._data):
            end = self._data.find(b"\n", at) + 1
            line = self._data[at : end or len(self._data)]
            if not end:
                self.torn = len(line)
                line = line.rstrip(b"\0")  # a file system may have made room before it wrote
                if is_torn(line):
                    return
                self.torn = 0
                line += b"\n"  # all of it is there, or its checksum says otherwise
            try:
                record = parse(line)
            except ValueError as error:
                self._lose(at, str(error))
            else:
                if record.key == "end":
                    self.whole = record.number == self.kept and not self.lost and end == len(self._data)
                else:
                    self.kept += 1
                    yield record
            at = end or len(self._data)

    def _lose(self, at: int, why: str) -> None:
        self.first_loss = self.first_loss or f"at byte {at}: {why}"
        self.lost += 1


def is_torn(last: bytes) -> bool:
    """Whether this, the end of a file, is the beginning of a record."""
    if len(last) < HEADER_BYTES:
        return HEADER.fullmatch(last + b"00000000 00000000 "[len(last) :]) is not None
    return HEADER.match(last) is not None and len(last) < HEADER_BYTES + int(last[:8], 16)


@dataclass
class Recovered:
    """What the last life left."""

    state: State = field(default_factory=State)
    changes: dict[str, Put | Mark] = field(default_factory=dict)  # by key
    epoch: int = 0
    generation: int = 0  # the highest there is; a new one is begun beyond it
    base: int = 0  # the generation that all this began with: older ones are of no use
    damaged: dict[str, str] = field(default_factory=dict)  # file -> what is kept and lost of it
    remarks: list[str] = field(default_factory=list)

    def _take(self, record: Record) -> None:
        self.state.absorb(record)
        if record.key == EPOCH:
            self.epoch = max(self.epoch, record.number)
        elif record.removes:
            self.changes.pop(record.key, None)
        elif record.change:
            self.changes[record.key] = record.change

    def _read(self, name: str, read: Callable[[str], bytes], magic: bytes) -> bool:
        """Whether it is all there. What is sound of it is taken in any case."""
        try:
            reading = Reading(read(name), magic)
        except OSError as error:
            self.damaged[name] = f"it cannot be read ({error.strerror}); nothing of it was kept"
            return False
        for record in reading:
            self._take(record)
        if reading.lost:
            self.damaged[name] = (
                f"{reading.lost} of its records cannot be read, the first {reading.first_loss}; {reading.kept} were kept"
            )
        elif magic == SNAPSHOT and not reading.whole:
            self.damaged[name] = f"its end is missing; {reading.kept} records were kept"
        elif reading.torn:
            self.remarks.append(f"{name}: cut {reading.torn} bytes of a write that a crash interrupted")
        return name not in self.damaged


def recover(names: Iterable[str], read: Callable[[str], bytes]) -> Recovered:
    """`names` are those in the directory; `read(name)` -> a file's content, or raises OSError."""
    found = [(match[1], int(match[2])) for name in names if (match := NAME.fullmatch(name))]
    snapshots = sorted((n for kind, n in found if kind == "snapshot"), reverse=True)
    journals = sorted(n for kind, n in found if kind == "journal")
    last, oldest = max(snapshots + journals, default=0), min(snapshots + journals, default=0)
    damaged: dict[str, str] = {}
    for base in snapshots:
        left = Recovered(base=base, generation=last)
        if left._read(f"snapshot-{base}", read, SNAPSHOT):
            break
        damaged |= left.damaged
    else:  # none is whole: all there is counts
        left = Recovered(base=oldest, generation=last)
    left.damaged = damaged
    for n in range(left.base, last + 1):
        if f"snapshot-{n}" in damaged:  # says again what the journals before it said, if they are there
            left._read(f"snapshot-{n}", read, SNAPSHOT)
        if n in journals:
            left._read(f"journal-{n}", read, JOURNAL)
        elif found:
            left.remarks.append(f"journal-{n} is missing, and with it what was changed in its time")
    left.state.settle()
    return left


def is_due(journal_bytes: int, snapshot_bytes: int, least: int, factor: int) -> bool:
    """Whether a new snapshot is worth its writing."""
    return journal_bytes > max(least, factor * snapshot_bytes)


def useless(names: Iterable[str], base: int) -> list[str]:
    """Files of generations before `base`, and what an interrupted snapshot left."""
    return [
        name
        for name in names
        if TEMPORARY.fullmatch(name) or ((match := NAME.fullmatch(name)) and int(match[2]) < base)
    ]


def aside(name: str, names: Iterable[str]) -> str:
    """A name for a damaged file that is nobody's yet."""
    taken, n = set(names), 1
    while f"{name}.corrupt-{n}" in taken:
        n += 1
    return f"{name}.corrupt-{n}"
