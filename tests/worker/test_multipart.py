"""multipart/form-data as real clients write it, and as nobody should."""

from __future__ import annotations

import time

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.errors import BadRequest
from fairway.worker.wire.multipart import MAX_HEADERS, MAX_PARTS, encode, image_field, parse

TYPE = "multipart/form-data; boundary=XX"
JPEG = (
    b"\xff\xd8\xff\x00\r\n--X\r\n\r\n--\r\nend\r\n"  # binary, with things in it that look like a boundary's beginning
)


def part(disposition: str, data: bytes = JPEG, more: str = "") -> bytes:
    return f"--XX\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode() + data + b"\r\n"


END = b"--XX--\r\n"
DATA = part('form-data; name="data"; filename="a.jpg"')


class _Sink(aiohttp.abc.AbstractStreamWriter):
    """Where aiohttp's client writes a body to."""

    def __init__(self) -> None:
        self.body = bytearray()

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.body += chunk

    async def write_eof(self, chunk: bytes = b"") -> None:
        self.body += chunk

    async def drain(self) -> None: ...

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None: ...

    def enable_chunking(self) -> None: ...

    async def write_headers(self, status_line: str, headers: object) -> None: ...


# What each client sends for one file: (what is told, content type, body, file name).
CLIENTS = [
    (
        "curl -F data=@daisy.jpg",
        "multipart/form-data; boundary=------------------------d74496d66958873e",
        b"--------------------------d74496d66958873e\r\n"
        b'Content-Disposition: form-data; name="data"; filename="daisy.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        + JPEG
        + b"\r\n--------------------------d74496d66958873e--\r\n",
        "daisy.jpg",
    ),
    (
        "Chrome",
        "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n"
        b'Content-Disposition: form-data; name="data"; filename="my %22best%22 daisy.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + JPEG + b"\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n",
        "my %22best%22 daisy.jpg",
    ),
    (
        "Python requests: no end of line after the last boundary is promised by anybody",
        "multipart/form-data; boundary=0f7b6b5c1a",
        b'--0f7b6b5c1a\r\nContent-Disposition: form-data; name="data"; filename="daisy.jpg"\r\n\r\n'
        + JPEG
        + b"\r\n--0f7b6b5c1a--",
        "daisy.jpg",
    ),
    ("a quoted boundary", 'multipart/form-data; boundary="XX"', DATA + END, "a.jpg"),
    ("upper case, other parameters first", "Multipart/Form-Data; charset=utf-8; BOUNDARY=XX", DATA + END, "a.jpg"),
    ("a preamble", TYPE, b"This is MIME.\r\n" + DATA + END, "a.jpg"),
    ("an empty line first", TYPE, b"\r\n" + DATA + END, "a.jpg"),
    ("an epilogue", TYPE, DATA + END + b"bye\r\n--XX\r\n", "a.jpg"),
    ("padding behind the boundary", TYPE, DATA.replace(b"--XX\r\n", b"--XX \t\r\n") + END, "a.jpg"),
    ("curl's escapes", TYPE, part(r'form-data; name="data"; filename="a \"b\" \\ c.jpg"') + END, 'a "b" \\ c.jpg'),
    (
        "a Windows path, unescaped",
        TYPE,
        part(r'form-data; name="data"; filename="C:\photos\a.jpg"') + END,
        r"C:\photos\a.jpg",
    ),
    ("a semicolon in the name", TYPE, part('form-data; name="data"; filename="a;name=b.jpg"') + END, "a;name=b.jpg"),
    ("nothing quoted", TYPE, part("form-data; name=data; filename=a.jpg") + END, "a.jpg"),
    ("lower-case header names", TYPE, DATA.replace(b"Content-Disposition", b"content-disposition") + END, "a.jpg"),
    ("UTF-8", TYPE, part('form-data; name="data"; filename="gänse 花.jpg"') + END, "gänse 花.jpg"),
    (
        "filename* beside filename",
        TYPE,
        part('form-data; name="data"; filename="g.jpg"; filename*=UTF-8\'\'g%C3%A4nse.jpg') + END,
        "g.jpg",
    ),
    (
        "filename* alone",
        TYPE,
        part("form-data; name=data; filename*=UTF-8''g%C3%A4nse.jpg") + END,
        "UTF-8''g%C3%A4nse.jpg",
    ),
    ("an empty file name", TYPE, part('form-data; name="data"; filename=""') + END, ""),
    ("more headers", TYPE, part('form-data; name="data"; filename="a.jpg"', more="X-A: b\r\n") + END, "a.jpg"),
]


@pytest.mark.parametrize(("content_type", "body", "filename"), [c[1:] for c in CLIENTS], ids=[c[0] for c in CLIENTS])
def test_one_file_as_clients_send_it(content_type: str, body: bytes, filename: str) -> None:
    (only,) = parse(body, content_type)
    assert (only.name, only.filename, bytes(only.data)) == ("data", filename, JPEG)
    assert bytes(image_field(body, content_type)) == JPEG


async def test_one_file_as_aiohttp_sends_it() -> None:
    form = aiohttp.FormData()
    form.add_field("note", "hello")
    form.add_field("data", JPEG, filename='gänse "2".jpg', content_type="image/jpeg")
    payload, sink = form(), _Sink()
    await payload.write(sink)
    assert bytes(image_field(bytes(sink.body), payload.headers["Content-Type"])) == JPEG


NOTE = part('form-data; name="note"', b"hello")
OTHER = part('form-data; name="picture"; filename="b.jpg"', b"other")
PLAIN = part('form-data; name="data"', b"plain")  # as `-F 'data=<x.jpg'` sends it


@pytest.mark.parametrize(
    ("body", "image"),
    [
        (DATA + END, JPEG),
        (NOTE + DATA + END, JPEG),
        (OTHER + DATA + END, JPEG),  # the field's name wins over other files
        (DATA + OTHER + END, JPEG),
        (PLAIN + OTHER + END, b"plain"),
        (OTHER + END, b"other"),  # the only file, whatever its name
        (NOTE + OTHER + END, b"other"),
        (part('form-data; name="data"; filename="a.jpg"', b"") + END, b""),  # empty: for the listener to refuse
    ],
)
def test_which_part_is_the_image(body: bytes, image: bytes) -> None:
    assert bytes(image_field(body, TYPE)) == image


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (NOTE + END, "expected a field 'data', or one file; found note"),
        (END, "found no field at all"),
        (DATA + DATA + END, "2 images in the upload: expected exactly one"),
        (OTHER + OTHER + OTHER + END, "3 images"),
        (b"", "does not contain the boundary"),
        (JPEG, "does not contain the boundary"),
        ((DATA + END).replace(b"\r\n", b"\n"), "malformed|boundary"),  # LF alone is no line end here
        (DATA.replace(b"--XX", b"--XXX") + END, "not followed by a line end"),
        (part("attachment; name=data") + END, "Content-Disposition"),
        (part("form-data; filename=a.jpg") + END, "Content-Disposition"),
        (b"--XX\r\n\r\n" + JPEG + b"\r\n" + END, "Content-Disposition"),
        (part("form-data; name=data", more="X: " + "y" * MAX_HEADERS + "\r\n") + END, "headers do not end"),
        (NOTE * (MAX_PARTS + 1) + END, f"more than {MAX_PARTS} parts"),
    ],
)
def test_what_is_refused_says_why(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        image_field(body, TYPE)


@pytest.mark.parametrize("spare", [-1, 0, 1])
@pytest.mark.parametrize("more", ["", "X: y\r\n"])  # as nearly all write it, and with patience
def test_a_part_s_head_is_bounded(more: str, spare: int) -> None:
    """From its first byte to the end of the blank line."""
    plain = f'Content-Disposition: form-data; name="data"; filename=""\r\n{more}Content-Type: \r\n\r\n'
    kind = "x" * (MAX_HEADERS - len(plain) - spare)
    body = part('form-data; name="data"; filename=""', more=f"{more}Content-Type: {kind}\r\n") + END
    assert body.index(b"\r\n\r\n") + 4 - len(b"--XX\r\n") == MAX_HEADERS - spare
    if spare < 0:
        with pytest.raises(BadRequest, match="headers do not end"):
            image_field(body, TYPE)
    else:
        assert image_field(body, TYPE) == JPEG


@pytest.mark.parametrize(
    "begun", ['form-data; name="', 'form-data; name="data"; filename="', 'form-data; name="data"\r\nContent-Type: ']
)
def test_a_head_that_never_ends_is_refused(begun: str) -> None:
    body = f"--XX\r\nContent-Disposition: {begun}".encode() + b"y" * (4 * MAX_HEADERS)
    for end in (b"", b'"\r\n\r\n' + JPEG + b"\r\n" + END):
        with pytest.raises(BadRequest, match="headers do not end"):
            image_field(body + end, TYPE)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary=""',
     "multipart/form-data; boundary=" + "x" * 71, "multipart/form-data; boundary=ä", "boundary=XX"],
)  # fmt: skip
def test_a_content_type_without_a_boundary(content_type: str) -> None:
    with pytest.raises(BadRequest, match="names no boundary"):
        parse(DATA + END, content_type)


def test_an_upload_cut_off_at_any_byte_is_refused() -> None:
    body = NOTE + DATA + END
    for length in range(len(body) - len("\r\n")):  # the end of the last line may be missing
        with pytest.raises(BadRequest):
            parse(body[:length], TYPE)
    assert len(parse(body[:-2], TYPE)) == 2


_NAMES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


@given(st.dictionaries(_NAMES, st.tuples(_NAMES, st.binary(max_size=300)), min_size=1, max_size=MAX_PARTS))
def test_what_is_encoded_parses_to_the_same(fields: dict[str, tuple[str, bytes]]) -> None:
    parts = parse(*encode(fields))
    assert {p.name: (p.filename, bytes(p.data)) for p in parts} == fields


def test_line_ends_in_a_name_cannot_smuggle_in_a_header() -> None:
    (only,) = parse(*encode({"data": ('a"\r\nContent-Type: text/html\r\n\r\n', JPEG)}))
    assert only.content_type == "application/octet-stream"
    assert bytes(only.data) == JPEG


def test_a_file_name_that_is_not_unicode_can_be_sent() -> None:
    body, content_type = encode({"data": (b"g\xe4nse.jpg".decode("utf-8", "surrogateescape"), JPEG)})
    assert bytes(image_field(body, content_type)) == JPEG


_PIECES = [b"--XX", b"--XX--", b"\r\n", b"\r\n\r\n", b"\n", b'Content-Disposition: form-data; name="data"', b'"', b"\\",
           b'; filename="', b";", b"=", b":", b"-", b"\0\xff", b" "]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(_PIECES), st.binary(max_size=8)), max_size=40).map(b"".join))
def test_no_body_raises_anything_but_bad_request(body: bytes) -> None:
    try:
        parts = parse(body, TYPE)
    except BadRequest:
        return
    assert sum(len(p.data) for p in parts) <= len(body)


@given(st.text(max_size=100))
def test_no_content_type_raises_anything_but_bad_request(content_type: str) -> None:
    with pytest.raises(BadRequest):
        parse(b"", content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"--XX\r\n" * 1_000_000,
        b"--XX" * 1_500_000,
        b"--XX\r\n" + b"a" * 8_000_000,
        DATA + b"\r\n--X" * 1_500_000,
        part('form-data; name="' + "\\" * 8000) + END,
        part("form-data" + ";" * 8000) + END,
        part("form-data; " + 'a="' * 2600) + END,
        part("form-data" + "; " * 2000 + " " * 4000) + END,
    ],
    ids=lambda body: repr(body[:24]) + f"... {len(body)}",
)
def test_hostile_bodies_are_refused_quickly(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BadRequest):
        image_field(body, TYPE)
    assert time.process_time() - started < 0.5


def test_parts_are_views_not_copies() -> None:
    body = DATA + END
    (only,) = parse(body, TYPE)
    assert only.data.obj is body


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (DATA + END, JPEG),
        (DATA + b"--XX--", JPEG),  # what follows the end does not matter, nor that nothing does
        (part('form-data; name="data"') + END, JPEG),
        (part('form-data; name="other"; filename=""') + END, JPEG),
        (part('form-data; name="data"; filename="a"', b"") + END, b""),
        (b'--XX\r\nContent-Disposition: form-data; name="data"\r\n\r\n--XX--\r\n', b""),  # not even an empty line
    ],
)
def test_the_quick_way_to_an_only_part_finds_what_the_patient_one_does(body: bytes, found: bytes) -> None:
    assert bytes(image_field(body, TYPE)) == found
    (only,) = parse(body, TYPE)
    assert bytes(only.data) == found


@given(st.integers(0, len(DATA + END)), st.binary(max_size=3), st.integers(0, 3))
def test_and_no_other_body_is_taken_for_one(at: int, put: bytes, cut: int) -> None:
    body = (DATA + END)[:at] + put + (DATA + END)[at + cut :]
    try:
        parts = parse(body, TYPE)
        files = [part for part in parts if part.name == "data"] or [part for part in parts if part.filename is not None]
        expected = bytes(files[0].data) if len(files) == 1 else None
    except BadRequest:
        expected = None
    try:
        assert bytes(image_field(body, TYPE)) == expected
    except BadRequest:
        assert expected is None
