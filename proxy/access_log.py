"""A line for each request on standard output: JSON, or the Common Log Format and some fields more.

Sources: https://httpd.apache.org/docs/2.4/logs.html#common and its escapes, RFC 8259. A line holds what `Entry` names and
nothing else. What strangers choose is cut, and escaped where it is not plain ASCII: no line breaks, no quotes, no codes
that a terminal obeys. A line is shorter than PIPE_BUF: several processes can write into one pipe without mixing theirs.

Lines are made at once, for a microsecond or two each, and written by a thread, which alone waits where nobody reads. What
does not fit in the meantime is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger("fairway.proxy")

FLUSH_SECONDS, FLUSH_BYTES = 0.5, 32 * 1024  # a line is written when so much time has passed, or so much has gathered
BUFFER_BYTES = 1024 * 1024  # then lines are dropped
LEAVE_SECONDS = 2.0  # for what is left at the end
PIPE_BUF = 4096  # bytes that Linux writes into a pipe in one piece
MOST_TARGET, MOST_NAME = 2048, 128  # characters of a line
PLAIN = re.compile(r"[!#-\[\]-~]*").fullmatch  # nothing in it needs escaping in any of the formats


Format = Literal["json", "common"]


@dataclass(slots=True)
class Entry:
    """`time`: when its head came, in seconds since 1970. `received`, `sent`: bytes of the bodies.

    `worker`, `service`: empty where there was none. `seconds`: from the head to the answer's end.
    """

    time: float
    client: str
    method: bytes
    target: bytes
    status: int
    received: int
    sent: int
    seconds: float
    service: str
    worker: str
    retries: int
    request_id: bytes
    protocol: str = "HTTP/1.1"


class AccessLog:
    """`write(entry)` never waits. `dropped`: lines that found no room, or that could not be written. `close()` flushes.

    Made in the process that uses it: a thread does not live through a fork.
    """

    def __init__(self, format: Format, file: int = 1, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._line = Lines(format).line
        self._file, self._most = file, buffer_bytes
        self._lines: deque[bytes] = deque()
        self._given = self._taken = 0  # bytes; of each pair of counts one is this thread's, the other the writer's
        self._crowded = self._failed = 0  # lines
        self._resting = True
        self._some, self._enough = threading.Event(), threading.Event()
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="access log", daemon=True)
        self._writer.start()

    def write(self, entry: Entry) -> None:
        waiting = self._given - self._taken
        if waiting > self._most:
            self._crowded += 1
            return
        line = self._line(entry)
        self._lines.append(line)
        self._given += len(line)
        if self._resting:
            self._resting = False
            self._some.set()
        if waiting > FLUSH_BYTES and not self._enough.is_set():
            self._enough.set()

    @property
    def dropped(self) -> int:
        return self._crowded + self._failed

    def close(self) -> None:
        """Writes what is left, if somebody takes it within LEAVE_SECONDS."""
        self._closing = True
        self._enough.set()
        self._some.set()
        self._writer.join(LEAVE_SECONDS)

    def _write(self) -> None:
        lines = self._lines
        while not self._closing or lines:
            self._some.wait()
            self._some.clear()
            self._enough.wait(FLUSH_SECONDS)
            self._enough.clear()
            while lines:
                piece = self._piece()
                try:
                    self._whole(b"".join(piece))
                except OSError as error:
                    if not self._failed:
                        log.warning("the access log cannot be written: %s", error.strerror)
                    self._failed += len(piece)
                self._taken += sum(map(len, piece))
            self._resting = True
            if lines or self._closing:  # came after the last look, by one who thought that we were awake
                self._some.set()

    def _piece(self) -> list[bytes]:
        """The next lines, as many as a pipe takes in one piece; one at least."""
        piece = [self._lines.popleft()]
        length = len(piece[0])
        while self._lines and length + len(self._lines[0]) <= PIPE_BUF:
            piece.append(self._lines.popleft())
            length += len(piece[-1])
        return piece

    def _whole(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:  # somebody else, who has the same terminal or pipe, made it so
                select.select([], [self._file], [])

    def __repr__(self) -> str:
        return f"<AccessLog [{self._given - self._taken} bytes waiting, {self.dropped} lines dropped]>"


class Lines:
    """An entry as a line, with its line break, in ASCII."""

    def __init__(self, format: Format) -> None:
        self._json = format == "json"
        self._second, self._stamp = -1, ""

    def line(self, entry: Entry) -> bytes:
        now = int(entry.time)
        if now != self._second:
            self._second, self._stamp = now, (_iso_time if self._json else _apache_time)(now)
        method, target, id = (
            str(entry.method, "latin-1"),
            str(entry.target, "latin-1"),
            str(entry.request_id, "latin-1"),
        )
        client, service, worker = entry.client, entry.service, entry.worker
        names = f"{method}{id}{client}{service}{worker}"
        if len(target) > MOST_TARGET or len(names) > MOST_NAME or not PLAIN(target) or not PLAIN(names):
            escape = _json if self._json else _apache
            target = _cut(target, MOST_TARGET, escape)
            method, id, client, service, worker = (
                _cut(name, MOST_NAME, escape) for name in (method, id, client, service, worker)
            )
        if self._json:
            return (
                f'{{"time":"{self._stamp}.{int((entry.time - now) * 1000):03d}Z","client":"{client}",'
                f'"method":"{method}","target":"{target}","protocol":"{entry.protocol}","status":{entry.status},'
                f'"received":{entry.received},"sent":{entry.sent},"seconds":{entry.seconds:.6f},"service":"{service}",'
                f'"worker":"{worker}","retries":{entry.retries},"id":"{id}"}}\n'
            ).encode("ascii")
        return (
            f'{client or "-"} - - [{self._stamp}] "{method} {target} {entry.protocol}" {entry.status} {entry.sent} '
            f'"{service or "-"}" "{worker or "-"}" {entry.seconds:.6f} {entry.received} {entry.retries} "{id or "-"}"\n'
        ).encode("ascii")


def _iso_time(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in any locale


def _apache_time(now: int) -> str:
    then = time.gmtime(now)
    return f"{then.tm_mday:02d}/{MONTHS[then.tm_mon - 1]}/{then.tm_year}:{time.strftime('%H:%M:%S', then)} +0000"


def _cut(text: str, most: int, escape: Callable[[str], str]) -> str:
    """At most so many characters when escaped, never half an escape, and `...` where it was longer."""
    escaped = escape(text[:most])
    if len(escaped) > most:
        return escape(text[: most // LONGEST_ESCAPE]) + "..."
    return escaped + "..." if len(text) > most else escaped


LONGEST_ESCAPE = 16  # \xf0\x9f\x8c\xbc


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


APACHE = {byte: f"\\x{byte:02x}" for byte in range(256) if not 33 <= byte <= 126} | {34: '\\"', 92: "\\\\"}


def _apache(text: str) -> str:
    """A space, too: the client's name stands in no quotes."""
    return (
        text.encode("utf-8" if max(text, default="") > "\xff" else "latin-1", "surrogatepass")
        .decode("latin-1")
        .translate(APACHE)
    )
