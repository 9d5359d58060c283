"""The HTTP door over real sockets, around a model that is understood at a glance."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from fairway.worker.wire import multipart

from .colours import plain
from .door import BLUE, LIMIT, PATIENCE, RED, Door, answer, head


def form(*files: tuple[str, bytes], **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData(fields)
    for name, content in files:
        data.add_field(name, content, filename="x.jpg", content_type="image/jpeg")
    return data


# -- what is taken --------------------------------------------------------------------------------------------------

UPLOADS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("field data", "POST", "/", {"data": form(("data", RED))}),
    ("the only file, under another name", "POST", "/", {"data": form(("picture", RED), note="hello")}),
    ("data wins over other files", "POST", "/", {"data": form(("other", BLUE), ("data", RED))}),
    ("raw image", "POST", "/", {"data": RED, "headers": {"Content-Type": "image/png"}}),
    (
        "curl --data-binary",
        "POST",
        "/",
        {"data": RED, "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
    ),
    ("another kind claimed", "POST", "/", {"data": RED, "headers": {"Content-Type": "text/html; charset=utf-8"}}),
    ("a nonsensical kind", "POST", "/", {"data": RED, "headers": {"Content-Type": "///"}}),
    ("no kind", "POST", "/", {"data": RED, "skip_auto_headers": ["Content-Type"]}),
    ("curl -T", "PUT", "/x.jpg", {"data": RED}),
    ("curl -T to the root", "PUT", "/", {"data": RED}),
    ("a strange file name", "PUT", "/my%20%E8%8A%B1%20(1).jpg", {"data": RED}),
    ("an upload of unknown length", "POST", "/", {"data": RED, "chunked": True}),
    ("a query nobody knows", "POST", "/?x=1", {"data": RED}),
]


@pytest.mark.parametrize(("method", "path", "more"), [u[1:] for u in UPLOADS], ids=[u[0] for u in UPLOADS])
async def test_uploads(warm: Door, method: str, path: str, more: dict[str, Any]) -> None:
    status, pairs = await warm.send(method, path, **more)
    assert (status, [label for label, _ in pairs]) == (200, ["red", "green", "blue"])
    assert pairs[0][1] == pytest.approx(0.75)


async def test_top(warm: Door) -> None:
    for query, count in (("", 3), ("?top=1", 1), ("?top=2", 2), ("?top=99999999999", 3)):
        assert len((await warm.send("POST", "/" + query, data=RED))[1]) == count
    for query in ("?top=0", "?top=-1", "?top=x", "?top=", "?top=%D9%A3"):
        status, error = await warm.send("POST", "/" + query, data=RED)
        assert (status, "whole number from 1 up" in error["error"]) == (400, True)


# -- what is refused ------------------------------------------------------------------------------------------------

CUT, CUT_TYPE = multipart.encode({"data": ("x.png", RED)})
REFUSED: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/", {"data": form(("data", b""))}, 400, "empty"),
    ("POST", "/", {}, 400, "empty"),
    ("PUT", "/x.jpg", {"data": b""}, 400, "empty"),
    ("POST", "/", {"data": form(("a", RED), ("b", RED))}, 400, "2 images"),
    ("POST", "/", {"data": form(("data", RED), ("data", RED))}, 400, "2 images"),
    ("POST", "/", {"data": CUT[:-9], "headers": {"Content-Type": CUT_TYPE}}, 400, "cut off"),
    ("POST", "/", {"data": CUT, "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    ("POST", "/", {"data": b"a=b"}, 415, "not an image"),
    ("POST", "/", {"data": RED[:60]}, 400, "broken image"),
    ("POST", "/", {"data": plain("red", (101, 100))}, 413, "101 x 100"),
    ("POST", "/", {"data": bytes(LIMIT + 1)}, 413, f"{LIMIT + 1} bytes; at most {LIMIT}"),
    ("POST", "/", {"data": bytes(LIMIT + 1), "chunked": True}, 413, f"more than {LIMIT} bytes"),
    ("POST", "/", {"data": plain("black")}, 500, "black has no colour"),
    ("POST", "/", {"data": plain("white")}, 500, "finite"),
    ("POST", "/elsewhere", {"data": RED}, 404, "nothing at /elsewhere: send an image with POST to /"),
    ("PUT", "/a/b.jpg", {"data": RED}, 404, "nothing at /a/b.jpg"),
    ("GET", "/favicon.ico", {}, 404, "nothing at /favicon.ico"),
    ("GET", "/", {}, 405, "GET will not do here: send an image with POST to /"),
    ("DELETE", "/", {}, 405, "DELETE will not do"),
    ("POST", "/healthz", {"data": RED}, 405, "POST will not do"),
]


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "text"),
    REFUSED,
    ids=[f"{r[3]} {r[4][:30]} {i}" for i, r in enumerate(REFUSED)],
)
async def test_bad_requests_get_a_clear_answer(
    warm: Door, method: str, path: str, more: dict[str, Any], status: int, text: str
) -> None:
    got, body = await warm.send(method, path, **more)
    assert list(body) == ["error"]
    assert (got, text in body["error"]) == (status, True), body
    await warm.is_well()


async def test_a_missing_field_is_named(warm: Door) -> None:
    data = aiohttp.FormData(default_to_multipart=True)
    data.add_field("note", "hello")
    assert await warm.send("POST", data=data) == (
        400,
        {"error": "no image in the upload: expected a field 'data', or one file; found note"},
    )


async def test_a_wrong_method_is_told_the_right_ones(warm: Door) -> None:
    reader, writer = await warm.raw(head("GET"))
    status, headers, _ = await answer(reader)
    assert (status, headers["allow"].replace(" ", "")) == (405, "POST,PUT")
    writer.close()


async def test_an_overloaded_worker_says_when_to_come_again(warm: Door) -> None:
    warm.model.gate.clear()
    held = asyncio.create_task(warm.send("POST", data=RED))
    assert await asyncio.to_thread(warm.model.entered.wait, PATIENCE)
    reader, writer = await warm.raw(head(Content_Length=len(RED)) + RED)
    status, headers, body = await answer(reader)
    assert (status, headers["retry-after"], list(body)) == (429, "1", ["error"])
    writer.close()
    assert (await warm.send("GET", "/healthz"))[0] == 200  # the loop is free while the model works
    warm.model.gate.set()
    assert (await held)[0] == 200
    await warm.is_well()
