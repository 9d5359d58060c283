"""A line for each request: read by readers of those formats, harmless whatever strangers send, and never waited for."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proxy.access_log import FLUSH_SECONDS, PIPE_BUF, AccessLog, Entry, Format, Lines

from ..conftest import ROOT

ENTRY = Entry(
    1764067800.25, "10.1.2.3", b"POST", b"/classify?top=3", 200, 10240, 57, 0.0123456, "classify", "w-1", 1, b"abc-7"
)  # fmt: skip

# The Common Log Format as the tools that read it know it, and our fields behind it.
COMMON = re.compile(
    r'(?P<client>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>\S*) (?P<target>(?:[^"\\]|\\.)*) (?P<protocol>HTTP/[\d.]+)" '
    r'(?P<status>\d{3}) (?P<sent>\d+) "(?P<service>(?:[^"\\]|\\.)*)" "(?P<worker>(?:[^"\\]|\\.)*)" (?P<seconds>[\d.]+) '
    r'(?P<received>\d+) (?P<retries>\d+) "(?P<id>(?:[^"\\]|\\.)*)"\n'
)


def test_json() -> None:
    assert json.loads(Lines("json").line(ENTRY)) == {
        "time": "2025-11-25T10:50:00.250Z",
        "client": "10.1.2.3",
        "method": "POST",
        "target": "/classify?top=3",
        "protocol": "HTTP/1.1",
        "status": 200,
        "received": 10240,
        "sent": 57,
        "seconds": 0.012346,
        "service": "classify",
        "worker": "w-1",
        "retries": 1,
        "id": "abc-7",
    }
    assert len(json.loads(Lines("json").line(ENTRY))) == len(fields(Entry)), "nothing but what an entry names"


def test_common() -> None:
    assert Lines("common").line(ENTRY) == (
        b'10.1.2.3 - - [25/Nov/2025:10:50:00 +0000] "POST /classify?top=3 HTTP/1.1" 200 57 '
        b'"classify" "w-1" 0.012346 10240 1 "abc-7"\n'
    )
    assert COMMON.fullmatch(Lines("common").line(ENTRY).decode())
    bare = Lines("common").line(replace(ENTRY, client="", service="", worker="", request_id=b"")).decode()
    found = COMMON.fullmatch(bare)
    assert found, bare
    assert [found[name] for name in ("client", "service", "worker", "id")] == ["-"] * 4


def test_the_time_goes_on() -> None:
    lines = Lines("json")
    times = [json.loads(lines.line(replace(ENTRY, time=at)))["time"][17:] for at in (59.5, 60.0, 59.75, 119.0)]
    assert times == ["59.500Z", "00.000Z", "59.750Z", "59.000Z"]


HOSTILE = [
    b'"',
    b"\\",
    b"\r\nX: 1",
    b"\x1b[31m",
    b"\x00\x7f",
    b"\xe2\x80\xae",
    b"\xff" * 3000,
    b"\\" * 5000,
    b"a" * 8192,
]


@pytest.mark.parametrize("format", ["json", "common"])
@pytest.mark.parametrize("bad", HOSTILE)
def test_what_strangers_send_stays_in_its_place(format: Format, bad: bytes) -> None:
    text = bad.decode("latin-1")
    line = Lines(format).line(
        Entry(1.0, text, b"PO" + bad, b"/x" + bad, 400, 1, 2, 0.5, text, text + "\U0001f33c\u202e", 0, bad)
    )
    assert len(line) < PIPE_BUF
    assert line.endswith(b"\n")
    assert all(32 <= byte <= 126 for byte in line[:-1]), "one line, of plain ASCII"
    if format == "json":
        found = json.loads(line)
        assert list(found) == list(json.loads(Lines("json").line(ENTRY)))
        assert found["target"][:2] == "/x"
        assert ("/x" + text).startswith(found["target"].removesuffix("...")), "as it was, as far as it goes"
    else:
        match = COMMON.fullmatch(line.decode())
        assert match, line
        assert match["retries"] == "0"
        assert match["received"] == "1"


@pytest.mark.parametrize("format", ["json", "common"])
def test_a_target_alone_is_cut_and_escaped(format: Format) -> None:
    lines = Lines(format)
    assert b"/" + b"a" * 2047 + b"..." in lines.line(replace(ENTRY, target=b"/" + b"a" * 2048))
    assert b"/" + b"a" * 2047 + b"..." not in lines.line(replace(ENTRY, target=b"/" + b"a" * 2047))
    assert lines.line(replace(ENTRY, target=b'/"')).count(b'\\"') == 1


@given(
    *(st.text() for _ in range(3)), *(st.binary(max_size=300) for _ in range(3)), st.sampled_from(["json", "common"])
)  # fmt: skip
def test_any_names(
    client: str, service: str, worker: str, method: bytes, target: bytes, id: bytes, format: Format
) -> None:
    entry = Entry(1.0, client, method, target, 400, 1, 2, 0.5, service, worker, 0, id)
    line = Lines(format).line(entry)
    assert all(32 <= byte <= 126 for byte in line[:-1])
    assert len(line) < PIPE_BUF
    if format == "json":
        found = json.loads(line)
        if len(target) < 150:
            assert found["target"].encode("latin-1") == target
        if len(client) < 8:
            assert found["client"] == client
    else:
        assert COMMON.fullmatch(line.decode())


def test_a_hostile_line_costs_little() -> None:
    lines, entry = Lines("common"), replace(ENTRY, target=b"\x01" * 8192)
    began = time.process_time()
    for _ in range(100):
        lines.line(entry)
    assert (time.process_time() - began) / 100 < 2e-3


@contextmanager
def pipe(most: int | None = None) -> Iterator[tuple[int, AccessLog]]:
    """The reading end, and a log that writes into the other."""
    ours, theirs = os.pipe()
    log = AccessLog("json", theirs) if most is None else AccessLog("json", theirs, most)
    try:
        yield ours, log
    finally:
        os.close(ours)
        log.close()
        os.close(theirs)


def lines_of(file: int, count: int, at_once: int = 1 << 16) -> list[dict[str, object]]:
    """The next `count`, however they come."""
    data = b""
    while data.count(b"\n") < count:
        assert select.select([file], [], [], 20)[0], "nothing came"
        data += os.read(file, at_once)
    return [json.loads(line) for line in data.splitlines()]


def test_a_line_is_there_soon_although_nothing_follows() -> None:
    with pipe() as (ours, log):
        for number in (1, 2):  # and once more after a rest
            began = time.monotonic()
            log.write(replace(ENTRY, retries=number))
            assert [line["retries"] for line in lines_of(ours, 1)] == [number]
            assert time.monotonic() - began < FLUSH_SECONDS + 5
        assert log.dropped == 0


def test_all_lines_in_order_however_many() -> None:
    with pipe() as (ours, log):
        found: list[dict[str, object]] = []
        reader = threading.Thread(target=lambda: found.extend(lines_of(ours, 3000)))
        reader.start()
        for number in range(3000):  # fewer than the buffer holds, whoever gets the processor
            log.write(replace(ENTRY, retries=number))
        reader.join(20)
        assert [line["retries"] for line in found] == list(range(3000))
        assert log.dropped == 0


def test_many_lines_do_not_wait_for_the_half_second() -> None:
    with pipe() as (ours, log):
        began = time.monotonic()
        count = 0
        while time.monotonic() - began < 0.2 and count < 2000:
            log.write(ENTRY)
            count += 1
        assert select.select([ours], [], [], FLUSH_SECONDS * 0.6)[0]


def test_where_nobody_reads_lines_are_dropped_and_nobody_waits() -> None:
    with pipe(100_000) as (ours, log):
        slowest = 0.0
        for number in range(5000):  # 1.2 MB into a pipe of 64 KiB that nobody reads
            began = time.thread_time()
            log.write(replace(ENTRY, retries=number))
            slowest = max(slowest, time.thread_time() - began)
        assert slowest < 0.05
        assert 3000 < log.dropped < 5000
        kept = [line["retries"] for line in lines_of(ours, 5000 - log.dropped)]
        assert kept[:100] == list(range(100))
        assert kept == sorted(set(kept))  # type: ignore[type-var]
        # The last piece is read before it is counted, which nobody announces.
        while "[0 bytes waiting" not in repr(log):
            time.sleep(0.001)
        log.write(ENTRY)
        assert len(lines_of(ours, 1)) == 1, "when somebody reads again it goes on"


def test_nothing_is_lost_at_the_end() -> None:
    ours, theirs = os.pipe()
    log = AccessLog("json", theirs)
    for _ in range(10):
        log.write(ENTRY)
    began = time.monotonic()
    log.close()
    assert time.monotonic() - began < FLUSH_SECONDS
    assert len(lines_of(ours, 10)) == 10
    os.close(ours)
    os.close(theirs)


def test_a_reader_that_left_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    log = AccessLog("json", theirs)
    for _ in range(100):
        log.write(ENTRY)
    log.close()
    os.close(theirs)
    assert log.dropped == 100
    assert [record.getMessage() for record in caplog.records] == ["the access log cannot be written: Broken pipe"]


def test_a_pipe_that_somebody_made_nonblocking() -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    log = AccessLog("json", theirs)
    found: list[dict[str, object]] = []
    for _ in range(2000):
        log.write(ENTRY)
    reader = threading.Thread(target=lambda: found.extend(lines_of(ours, 2000)))
    reader.start()
    reader.join(20)
    log.close()
    assert (len(found), log.dropped) == (2000, 0)
    os.close(ours)
    os.close(theirs)


WRITER = """
import sys
from fairway.proxy.access_log import AccessLog, Entry
log = AccessLog("json")
for number in range(1000):
    log.write(Entry(1.0, "c", b"POST", b"/" + sys.argv[1].encode() * 300, 200, 1, 2, 0.5, "s", "w", number, b""))
print("all given", file=sys.stderr, flush=True)
sys.stdin.read()
log.close()
"""


def test_several_processes_write_into_one_pipe() -> None:
    ours, theirs = os.pipe()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name],
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT / "src"))},
        )
        for name in "abc"
    ]
    os.close(theirs)
    for writer in writers:
        assert writer.stderr is not None
        assert writer.stderr.readline() == b"all given\n"
    while struct.unpack("i", fcntl.ioctl(ours, termios.FIONREAD, bytes(4)))[0] < 60_000:
        time.sleep(0.001)  # until they stand in each other's way, which nobody announces
    found = lines_of(ours, 3000, PIPE_BUF)  # as there is room, now one of them goes on and now another
    for writer in writers:
        writer.communicate()
    os.close(ours)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    for name in "abc":
        assert [line["retries"] for line in found if line["target"] == "/" + name * 300] == list(range(1000))
