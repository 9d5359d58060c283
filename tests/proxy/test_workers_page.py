"""`/-/workers` in three forms: the same rows in each, and nothing that a registration holds is more than text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.client.pool import Pool
from fairway.client.upstream import Outcome
from fairway.proxy.errors import BadRequest
from fairway.proxy.standing import View, view
from fairway.proxy.workers_page import COLUMNS, CONTENT_TYPES, HEADERS, page, wanted
from fairway.registry.instance import Address, Instance

BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def seeing(*instances: Instance, connected: bool = True) -> View:
    pools: dict[str, Pool] = {}
    for service in {instance.service: None for instance in instances}:
        pools[service] = Pool()
        pools[service].update([instance for instance in instances if instance.service == service], 0.0)
    return view("auto", connected, pools, 0.0)


ONE = Instance("w1", "classify", Address("127.0.0.1", 9001), "1.2.3")
TWO = Instance("w2", "classify", Address("fd00::1", 12345), weight=30, state="draining")
THREE = Instance("worker-three", "embed", Address("127.0.0.1", 9003))


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("", b"*/*", "json"),
        ("", b"", "json"),
        ("", b"application/json", "json"),
        ("", BROWSER, "html"),
        ("", b"text/plain", "text"),
        ("", b"application/json, text/plain, */*", "json"),  # axios
        ("format=text", BROWSER, "text"),
        ("a=b&format=html", b"text/plain", "html"),
        ("a=b", b"text/plain", "text"),
    ],
)
def test_which_form_is_wanted(query: str, accept: bytes, expected: str) -> None:
    assert wanted(query, accept) == expected


@pytest.mark.parametrize("query", ["format=xml", "format=", "format=%00"])
def test_no_other_forms(query: str) -> None:
    with pytest.raises(BadRequest, match="expected json, text or html"):
        wanted(query, b"")


def test_json() -> None:
    seen = seeing(ONE, TWO, THREE)
    assert json.loads(page(seen, "json")) == seen


def test_text_is_a_table() -> None:
    seen = seeing(ONE, TWO, THREE)
    head, _, *table = page(seen, "text").decode().splitlines()
    assert head == "mode auto · registry connected · 3 workers, 2 ready · 0 in flight"
    assert table[0].split() == [word for column in COLUMNS for word in column.upper().split()]
    assert [row.split()[:5] for row in table[1:]] == [
        ["classify", "w1", "127.0.0.1:9001", "1.2.3", "passing"],
        ["classify", "w2", "[fd00::1]:12345", "-", "draining"],
        ["embed", "worker-three", "127.0.0.1:9003", "-", "passing"],
    ]
    assert len({row.index(":90") for row in table if ":90" in row}) == 1, "columns line up"
    assert len({len(row) for row in table}) == 1, "numbers end in one column"
    assert "away" in page(seeing(ONE, connected=False), "text").decode().splitlines()[0]


class Reader(HTMLParser):
    """What a browser would make of it: tags, and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows:
            self.rows[-1][-1:] = ["".join([*self.rows[-1][-1:], data])]


def test_html_needs_nobody_and_looks_again_by_itself() -> None:
    pool = Pool()
    pool.update([ONE, TWO], 0.0)
    pool.started(pool.upstreams[0], 0.0)
    pool.started(pool.upstreams[0], 0.0)
    pool.finished(pool.upstreams[0], Outcome.ANSWERED, 0.0, 0.0433)
    text = page(view("auto", True, {"classify": pool}, 0.0), "html").decode()
    found = Reader(text)
    assert ("meta", {"http-equiv": "refresh", "content": "2"}) in found.tags
    assert not {"script", "link", "img", "iframe", "form"} & {tag for tag, _ in found.tags}
    assert not re.search(r"\b(src|href|url\(|@import|on[a-z]+=)", text)
    assert "prefers-color-scheme: dark" in text
    assert found.rows[0] == list(COLUMNS[1:])
    assert found.rows[1] == ["w1", "127.0.0.1:9001", "1.2.3", "passing", "-", "1", "1", "43.3 ms", "0"]
    assert found.rows[2][:6] == ["w2", "[fd00::1]:12345", "-", "draining", "-", "30"]
    assert "No worker" in page(seeing(), "html").decode()
    assert set(CONTENT_TYPES) == {"json", "text", "html"}
    assert ("Cache-Control", "no-store") in HEADERS


NASTY = [
    "<script>alert(1)</script>", "</table><img src=x onerror=alert(1)>", '"><b onmouseover=x>', "&lt;i&gt;",
    "\x1b]0;title\x07", "\u202egnp.exe", "a\nmode auto", "\ud800", "x" * 128,
]  # fmt: skip


@pytest.mark.parametrize("nasty", NASTY)
def test_what_a_registration_holds_is_text(nasty: str) -> None:
    plain = [tag for tag, _ in Reader(page(seeing(ONE), "html").decode()).tags]
    seen = seeing(Instance(nasty, "classify", Address("127.0.0.1", 9001), nasty))
    seen["services"][nasty] = seen["services"].pop("classify")
    html = page(seen, "html").decode()
    assert [tag for tag, _ in Reader(html).tags] == plain
    text = page(seen, "text").decode()
    assert len(text.splitlines()) == 4
    for shown in (html.split("</style>")[1], text.replace("\n", "")):
        assert shown.isprintable(), "nothing for a terminal to obey"
    assert json.loads(page(seen, "json")) == seen


@given(st.text(), st.text())
def test_any_registration(id: str, version: str) -> None:
    seen = seeing(Instance(id, "classify", Address("127.0.0.1", 9001), version))
    row = Reader(page(seen, "html").decode()).rows[1]
    assert len(row) == len(COLUMNS) - 1
    if id.isprintable() and len(id) < 40:
        assert row[0] == id
    assert len(page(seen, "text").decode().split("\n")) == 5
