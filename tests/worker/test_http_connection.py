"""The HTTP door where connections break, stall, wait to be asked, or are about to be closed."""

from __future__ import annotations

import asyncio

import pytest

from fairway.worker.listeners.http import protocol as http
from fairway.worker.wire import multipart

from .door import LIMIT, PATIENCE, RED, Door, answer, head

BODY, TYPE = multipart.encode({"data": ("x.png", RED)})
UPLOAD = head(Content_Type=TYPE, Content_Length=len(BODY))


@pytest.mark.parametrize("abruptly", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize(
    "sent",
    [UPLOAD[:20], UPLOAD, UPLOAD + BODY[: len(BODY) // 2], head(Transfer_Encoding="chunked") + b"FF\r\nabc"],
    ids=["half a head", "no body", "half a body", "half a chunk"],
)
async def test_an_upload_cut_off_in_the_middle_leaves_nothing_behind(warm: Door, sent: bytes, abruptly: bool) -> None:
    _, writer = await warm.raw(sent)
    if sent != UPLOAD[:20]:  # otherwise there is no request yet
        await warm.until(lambda: warm.http.in_flight == 1)
    if abruptly:
        writer.transport.abort()
    else:
        writer.close()
        await writer.wait_closed()
    await warm.is_well()


async def test_a_client_who_leaves_while_the_model_works_leaves_nothing_behind(warm: Door) -> None:
    warm.model.gate.clear()
    _, writer = await warm.raw(UPLOAD + BODY)
    assert await asyncio.to_thread(warm.model.entered.wait, PATIENCE)
    assert (warm.http.in_flight, warm.engine.waiting) == (1, 1)
    writer.transport.abort()
    async with asyncio.timeout(PATIENCE):
        await warm.http.idle()
    assert warm.engine.waiting == 0
    warm.model.gate.set()
    await warm.is_well()


async def test_idle_waits_for_the_request_in_flight(warm: Door) -> None:
    warm.model.gate.clear()
    held = asyncio.create_task(warm.send("POST", data=RED))
    assert await asyncio.to_thread(warm.model.entered.wait, PATIENCE)
    idle = asyncio.create_task(warm.http.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    warm.model.gate.set()
    async with asyncio.timeout(PATIENCE):
        await idle
    assert (await held)[0] == 200


async def test_an_upload_that_stands_still_is_given_up(warm: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "STALL_SECONDS", 0.05)
    reader, writer = await warm.raw(UPLOAD + BODY[:10])
    async with asyncio.timeout(5):
        status, _, body = await answer(reader)
    assert (status, "stood still" in body["error"]) == (408, True)
    writer.close()
    await warm.is_well()


async def test_a_connection_serves_many_requests(warm: Door) -> None:
    reader, writer = await warm.raw(UPLOAD + BODY + head("GET", "/healthz") + UPLOAD + BODY)  # pipelined, even
    for expected in (200, 200, 200):
        status, headers, _ = await answer(reader)
        assert (status, headers.get("connection")) == (expected, None)
    writer.write(head("GET"))
    assert (await answer(reader))[0] == 405
    writer.write(UPLOAD + BODY)
    assert (await answer(reader))[2][0][0] == "red"
    writer.close()


async def test_what_is_too_large_is_refused_before_it_is_sent(warm: Door) -> None:
    reader, writer = await warm.raw(head(Content_Length=LIMIT + 1))
    status, _, body = await answer(reader)
    assert (status, body["error"]) == (413, f"the upload has {LIMIT + 1} bytes; at most {LIMIT} are accepted")
    writer.close()
    await warm.is_well()


async def test_what_turns_out_too_large_is_refused_before_its_end(warm: Door) -> None:
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    reader, writer = await warm.raw(head(Transfer_Encoding="chunked") + chunk * 4)  # no last chunk
    status, _, body = await answer(reader)
    assert (status, body["error"]) == (
        413,
        f"the upload has more than {LIMIT} bytes, which is all that is accepted",
    )
    writer.close()
    await warm.is_well()


# -- Expect: 100-continue: curl asks before it sends more than a megabyte ---------------------------------------------


async def test_a_client_who_asks_first_is_told_to_go_on(warm: Door) -> None:
    reader, writer = await warm.raw(head(Content_Type=TYPE, Content_Length=len(BODY), Expect="100-continue"))
    async with asyncio.timeout(PATIENCE):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    status, _, body = await answer(reader)
    assert (status, body[0][0]) == (200, "red")
    writer.close()


@pytest.mark.parametrize(
    ("request_head", "status", "text"),
    [
        (head(Content_Length=LIMIT + 1, Expect="100-continue"), 413, f"at most {LIMIT}"),
        (head("PUT", "/x.jpg", Content_Length=10**12, Expect="100-continue"), 413, f"at most {LIMIT}"),
        (head(Content_Length=5, Expect="a-miracle"), 417, "unknown Expect: a-miracle"),
    ],
    ids=["too large", "much too large", "unknown"],
)
async def test_a_client_who_asks_first_can_be_refused(warm: Door, request_head: bytes, status: int, text: str) -> None:
    reader, writer = await warm.raw(request_head)
    got, _, body = await answer(reader)  # the first thing that comes is the refusal, not a 100
    assert (got, text in body["error"], list(body)) == (status, True, ["error"])
    writer.close()
    await warm.is_well()


# -- ready, and not any more ------------------------------------------------------------------------------------------


async def test_health_and_readiness(door: Door) -> None:
    model = {"service": "colours", "model": "colours", "version": "1"}
    assert await door.send("GET", "/healthz") == (200, {"status": "ok"})
    assert await door.send("GET", "/readyz") == (503, {"status": "loading", **model})
    status, body = await door.send("POST", data=RED)
    assert (status, "it is loading" in body["error"]) == (503, True)

    await door.warm_up()
    assert await door.send("GET", "/readyz") == (200, {"status": "ready", **model})

    door.engine.draining = True
    assert await door.send("GET", "/healthz") == (200, {"status": "ok"})
    assert await door.send("GET", "/readyz") == (503, {"status": "draining", **model})


async def test_who_comes_too_early_is_told_when_to_come_again(door: Door) -> None:
    reader, writer = await door.raw(UPLOAD + BODY)
    status, headers, _ = await answer(reader)
    assert (status, headers["retry-after"]) == (503, "1")
    writer.close()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (UPLOAD + BODY, 200),
        (head("GET", "/healthz"), 200),
        (head("GET"), 405),
        (head(Content_Length=0), 400),
    ],
    ids=["upload", "healthz", "wrong method", "empty"],
)
async def test_while_draining_every_answer_closes_its_connection(warm: Door, request_: bytes, expected: int) -> None:
    warm.engine.draining = True
    reader, writer = await warm.raw(request_)
    status, headers, _ = await answer(reader)
    assert (status, headers.get("connection")) == (expected, "close")
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


async def test_uploads_beyond_the_limit_are_not_even_read(warm: Door) -> None:
    """One is held (`max_waiting` is 1): the next gets 429 from its head alone, with or without Expect."""
    _, held = await warm.raw(UPLOAD + BODY[:3])
    await warm.until(lambda: warm.http.in_flight == 1)
    warm.engine._per_answer = 6.3  # as if the last answers had come so slowly
    reader, second = await warm.raw(UPLOAD)
    status, headers, body = await answer(reader)
    assert (status, headers["retry-after"]) == (429, "7")
    assert body == {"error": "1 requests are waiting already; try again in 6 s, or elsewhere"}
    reader, third = await warm.raw(UPLOAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    async with asyncio.timeout(PATIENCE):
        said = await reader.readuntil(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 429 ")
    assert b"Connection: close" in said  # as the body may still come
    for writer in (held, second, third):
        writer.close()
        await writer.wait_closed()
    await warm.is_well()
