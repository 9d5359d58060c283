"""What HTTP/1.1 asks of a proxy, seen from both sides as bytes: fields, Expect, versions, methods, addresses."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from fairway.registry.instance import Address

from .letter import Message, read_answers
from .recorder import Recorder, answers, final, problem, says_close, turns
from .stage import HOST, Worker, proxy_for, raw_worker, read_request, session_to, until

LAST = b"Connection: close\r\n\r\n"


async def passed(*fields: bytes, line: bytes = b"GET /x HTTP/1.1", body: bytes = b"", **settings: Any) -> Message:
    """The one request that the worker saw."""
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, **{"mode": "forward", **settings}) as proxy:
        sent = b"\r\n".join((line, *fields, LAST)) + body
        (answer,) = final(await answers(proxy, sent, methods=[line.split()[0]]))
        assert answer.status == 200, answer
    (message,) = recorder.requests
    assert not recorder.odd
    return message


async def given(answer: bytes, request: bytes = b"GET /x HTTP/1.1\r\nHost: h\r\n", ends: bool = False) -> Message:
    """The answer that the client gets to `request`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        if not ends:
            await reader.read()

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy:
        (found,) = final(await answers(proxy, request + LAST, methods=[request.split()[0]]))
        return found


# Where a request came from.


async def test_where_it_came_from_is_written_anew() -> None:
    lies = (
        b"X-Forwarded-For: 10.0.0.1",
        b"x-forwarded-proto: https",
        b"X-FORWARDED-HOST: bank",
        b"X-Real-IP: 10.0.0.2",
    )
    seen = await passed(b"Host: door:80", *lies, b"Forwarded: for=10.0.0.1;proto=https", b"Via: 1.0 before")
    assert seen.all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert seen.all(b"x-forwarded-proto") == [b"http"]
    assert seen.all(b"x-forwarded-host") == [b"door:80"]
    assert seen.all(b"host") == [b"door:80"]
    (forwarded,) = seen.all(b"forwarded")
    assert dict(part.strip().split(b"=", 1) for part in forwarded.lower().split(b";")) == {
        b"for": b"127.0.0.1", b"host": b'"door:80"', b"proto": b"http",
    }  # fmt: skip
    via = b", ".join(seen.all(b"via"))
    assert via.startswith(b"1.0 before")
    assert via.endswith(b"1.1 fairway")
    assert not [name for name, value in seen.fields if b"10.0.0" in value or b"bank" in value]


@pytest.mark.parametrize("listed", [b"X-Forwarded-For", b"x-forwarded-host, X-Forwarded-Proto", b"Forwarded, Via"])
async def test_who_lists_them_as_his_own_strips_nothing(listed: bytes) -> None:
    seen = await passed(b"Host: h", b"Connection: " + listed)
    for name in (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"via"):
        assert len(seen.all(name)) == 1, name


async def test_a_proxy_before_us_is_believed_if_it_is_trusted() -> None:
    before = b"X-Forwarded-For: 203.0.113.9, 10.0.0.1"
    seen = await passed(b"Host: h", before, trusted=("127.0.0.0/8",))
    assert b", ".join(seen.all(b"x-forwarded-for")) == b"203.0.113.9, 10.0.0.1, 127.0.0.1"
    assert b"203.0.113.9" in b", ".join(seen.all(b"forwarded"))
    seen = await passed(b"Host: h", before, trusted=("10.0.0.0/8",))
    assert seen.all(b"x-forwarded-for") == [b"127.0.0.1"]


@pytest.mark.parametrize("value", [b'1.2.3.4"', b"a;b=c", b"\xff", b"x" * 3000, b",,,", b'for="x', b"1.2.3.4\\"])
async def test_odd_words_of_a_trusted_proxy_do_not_break_what_we_write(value: bytes) -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward", trusted=("127.0.0.1",)) as proxy:
        (answer,) = await answers(proxy, b"GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: " + value + b"\r\n" + LAST)
        assert answer.status in (200, 400)
    assert not recorder.odd
    for seen in recorder.requests:
        (forwarded,) = seen.all(b"forwarded")
        assert forwarded.count(b'"') % 2 == 0
        assert seen.all(b"x-forwarded-for")[0].endswith(b"127.0.0.1")


async def test_the_authority_of_an_absolute_target_wins_over_host() -> None:
    seen = await passed(b"Host: other", line=b"GET http://named:81/x?y HTTP/1.1")
    assert seen.line[1] == b"/x?y"
    assert seen.all(b"host") == seen.all(b"x-forwarded-host") == [b"named:81"]
    assert not [value for _, value in seen.fields if b"other" in value]


# Fields that end here, and fields that do not.


async def test_hop_by_hop_fields_end_here() -> None:
    hop = (
        b"Connection: X-Mine, keep-alive, TE", b"X-Mine: 1", b"Keep-Alive: timeout=5", b"TE: trailers", b"Trailer: X-Sum",
        b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic eA==", b"Upgrade: h2c", b"HTTP2-Settings: AA",
    )  # fmt: skip
    seen = await passed(b"Host: h", *hop, b"X-Kept: 2", b"Authorization: Bearer t", b"Cookie: a=b")
    names = {name.lower() for name, _ in seen.fields}
    assert not names & {
        b"connection", b"x-mine", b"keep-alive", b"te", b"trailer", b"proxy-connection", b"proxy-authorization", b"upgrade",
    }  # fmt: skip
    assert {b"x-kept", b"authorization", b"cookie"} <= names


async def test_the_rest_stays_in_its_order_and_case() -> None:
    rest = [(b"Accept", b"a"), (b"X-B", b"2"), (b"accept", b"b"), (b"CONTENT-type", b"a/b; c=d"), (b"X-E", b"")]
    seen = await passed(b"Host: h", *(b"%s: %s" % field for field in rest))
    assert [field for field in seen.fields if field in rest] == rest
    said = [(b"Set-Cookie", b"a=1"), (b"ETag", b'"x"'), (b"Set-Cookie", b"b=2"), (b"x-odd", b"\xe9")]
    head = b"HTTP/1.1 201 Made\r\n" + b"".join(b"%s: %s\r\n" % field for field in said)
    answer = await given(head + b"Content-Length: 2\r\n\r\nok")
    assert (answer.line, answer.body) == ((b"HTTP/1.1", b"201", b"Made"), b"ok")
    assert [field for field in answer.fields if field in said] == said


async def test_what_a_worker_lists_ends_here_but_for_what_the_client_needs() -> None:
    answer = await given(
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Mine, Content-Length, Content-Type\r\nX-Mine: 1\r\n"
        b"Keep-Alive: timeout=9\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok"
    )
    assert answer.all(b"content-type") == [b"a/b"]
    assert answer.all(b"content-length") == [b"2"]
    assert not answer.all(b"x-mine") + answer.all(b"keep-alive")


# Framing.


@pytest.mark.parametrize("replay_bytes", [1 << 20, 1])
async def test_trailers_are_dropped(replay_bytes: int) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nHost: other\r\n\r\n"
    fields = (b"Host: h", b"Transfer-Encoding: chunked", b"Trailer: X-Sum")
    seen = await passed(*fields, line=b"POST /x HTTP/1.1", body=body, replay_bytes=replay_bytes)
    assert (seen.body, seen.all(b"host"), seen.all(b"x-sum")) == (b"abc", [b"h"], [])
    answer = await given(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n")
    assert (answer.body, answer.all(b"x-sum")) == (b"ok", [])


async def test_bad_chunks_in_a_streamed_upload_break_it_off_at_the_worker() -> None:
    """The head has gone to the worker already; it must not take what came so far for the whole."""
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward", replay_bytes=1) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await until(lambda: recorder.open == 1)
        writer.write(b"0x3\r\nabc\r\n0\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await until(lambda: not recorder.open)
        assert not recorder.requests
        assert not recorder.odd
        assert not any(proxy.resolver.services()["classify"].upstreams[0].failures.values())


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"])
async def test_methods(method: bytes) -> None:
    seen = await passed(b"Host: h", line=method + b" /x HTTP/1.1")
    assert seen.request == (method + b" /x", b"")
    # RFC 9110 8.6: who means a body by his method says that there is none.
    lengths = seen.all(b"content-length")
    assert lengths == ([b"0"] if method in (b"POST", b"PUT", b"PATCH") else []) or lengths == [b"0"]


async def test_trace_is_not_reflected() -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward") as proxy:
        secret = b"Cookie: secret"
        (answer,) = await answers(proxy, b"TRACE /x HTTP/1.1\r\nHost: h\r\n" + secret + b"\r\n" + LAST)
        assert secret not in answer.body  # whether it is passed on or refused


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
async def test_errors_of_ours_to_head_have_no_body(method: bytes) -> None:
    async with proxy_for(wait_seconds=0.05, mode="forward") as proxy:
        line = method + b" /x HTTP/1.1\r\nHost: h\r\n"
        (answer,) = await answers(proxy, line + LAST, methods=[method])
        assert answer.status == 503
        assert answer.one(b"retry-after")
        assert method == b"HEAD" or problem(answer)


async def test_204_and_304_and_head_have_no_body_and_keep_the_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            target = head.split()[1]
            if target == b"/204":
                writer.write(b"HTTP/1.1 204 None\r\n\r\n")
            elif target == b"/304":
                writer.write(b'HTTP/1.1 304 Same\r\nETag: "x"\r\nContent-Length: 7\r\n\r\n')
            else:
                body = b"" if head.startswith(b"HEAD") else b"7 bytes"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n" + body)

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy:
        methods = [b"GET", b"GET", b"HEAD", b"GET"]
        targets = [b"/204", b"/304", b"/200", b"/200"]
        sent = [b"%s %s HTTP/1.1\r\nHost: h\r\n" % pair for pair in zip(methods, targets, strict=True)]
        found = await answers(proxy, b"\r\n".join(sent) + LAST, methods=methods)
        assert [(answer.status, answer.body) for answer in found] == [
            (204, b""), (304, b""), (200, b""), (200, b"7 bytes"),
        ]  # fmt: skip
        assert found[1].all(b"etag") == [b'"x"']
        assert found[2].all(b"content-length") == [b"7"]


# Expect.


ASK = b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 60000\r\n"


async def begins(proxy: Any, sent: bytes) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
    """The first line that comes back."""
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    writer.write(sent)
    async with asyncio.timeout(5):
        return await reader.readuntil(b"\r\n"), reader, writer


@pytest.mark.parametrize("replay_bytes", [1 << 20, 1])
async def test_the_body_is_asked_for_when_there_is_a_worker(replay_bytes: int) -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward", replay_bytes=replay_bytes) as proxy:
        line, reader, writer = await begins(proxy, ASK + b"\r\n")
        assert line == b"HTTP/1.1 100 Continue\r\n"
        assert await reader.readuntil(b"\r\n") == b"\r\n"
        writer.write(bytes(60_000))
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert recorder.seen == [(b"POST /x", bytes(60_000))]
        assert not recorder.odd  # `Expect` ended here


@pytest.mark.parametrize(
    ("settings", "change", "status"),
    [
        ({"max_body": 1000}, (b"", b""), b"413"),
        ({"mode": "redirect"}, (b"", b""), b"307"),
        ({}, (b"100-continue", b"200-ok"), b"417"),
        ({}, (b"Host: h", b"Host: h\r\nHost: h"), b"400"),
        ({}, (b"/x ", b"/-/nothing "), b"404"),
        ({}, (b"Host: h", b"Host: h\r\nConnection: content-length"), b"400"),
        ({"wait_seconds": 0.05}, (b"", b""), b"503"),
    ],
)
async def test_the_body_is_never_asked_for_in_vain(
    settings: dict[str, Any], change: tuple[bytes, bytes], status: bytes
) -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address:
        workers = () if status == b"503" else (address,)
        async with proxy_for(*workers, **{"mode": "forward", **settings}) as proxy:
            line, reader, writer = await begins(proxy, ASK.replace(*change) + b"\r\n")
            assert line.split()[1] == status
            head = await reader.readuntil(b"\r\n\r\n")
            # Whether the body comes is not known: only a connection that ends cannot take it for a request.
            assert b"\r\nConnection: close\r\n" in b"\r\n" + head
            writer.transport.abort()
            writer.close()
        assert not recorder.bytes_in


async def test_a_body_that_was_asked_for_and_does_not_come() -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward", stall_seconds=0.3) as proxy:
        line, reader, writer = await begins(proxy, ASK + b"\r\n")
        assert b" 100 " in line
        async with asyncio.timeout(3):
            found, rest = read_answers((await reader.read())[2:])
        writer.close()
        assert (rest, found[0].status, says_close(found[0])) == (b"", 408, True)
        assert not recorder.requests


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("framing", [b"Content-Length: 4000000", b"Transfer-Encoding: chunked"])
async def test_an_early_answer_reaches_who_reads_only_after_sending_all(framing: bytes, keeps: bool) -> None:
    """The worker has heard enough; the rest of the upload is read to no purpose but that its sender gets to the answer."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Enough\r\nContent-Length: 6\r\n\r\nenough")
        if keeps:
            await asyncio.Event().wait()  # and reads nothing more

    body = bytes(4_000_000) if b"Length" in framing else b"3d0900\r\n" + bytes(4_000_000) + b"\r\n0\r\n\r\n"

    async with raw_worker(script) as address, proxy_for(address, mode="forward") as proxy:

        def blocking() -> bytes:
            with socket.create_connection((HOST, proxy.port), timeout=10) as sock:
                sock.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n" + LAST)
                sock.sendall(body)
                came = b""
                while piece := sock.recv(65_536):
                    came += piece
                return came

        (answer,), rest = read_answers(await asyncio.to_thread(blocking))
        assert (answer.status, answer.body, rest) == (413, b"enough", b"")
        assert says_close(answer)
        await until(lambda: not proxy.in_flight)


# HTTP/1.0.


async def test_http_1_0_keeps_the_connection_only_if_asked_to() -> None:
    recorder = Recorder()
    async with raw_worker(recorder) as address, proxy_for(address, mode="forward") as proxy:
        kept = b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        last = b"GET /b HTTP/1.0\r\n\r\n"
        found = await answers(proxy, kept + last + b"GET /c HTTP/1.0\r\n\r\n")
        assert [answer.body for answer in found] in ([b"1 GET /a", b"2 GET /b"], [b"1 GET /a"])
        if len(found) == 2:  # then it must have been said
            assert found[0].all(b"connection") == [b"keep-alive"]


async def test_http_1_0_and_an_answer_of_unknown_length() -> None:
    for wire, ends in (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nabcde", True),
    ):
        answer = await given(wire, b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n", ends)
        assert (answer.body, answer.closed) == (b"abcde", True)
        assert not answer.all(b"transfer-encoding")
        assert says_close(answer)


# Where we listen.


async def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no ::1")
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(script, "::1", 0)
    worker = Address("::1", server.sockets[0].getsockname()[1])
    async with proxy_for(worker, host="::1", mode="forward") as proxy:
        reader, writer = await asyncio.open_connection("::1", proxy.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: [::1]:%d\r\nContent-Length: 2\r\n" % proxy.port + LAST + b"hi")
        async with asyncio.timeout(5):
            (answer,), rest = read_answers(await reader.read())
        writer.close()
        assert (answer.body, rest) == (b"ok", b"")
        assert b"\r\nX-Forwarded-For: ::1\r\n" in heads[0]
        assert b'for="[::1]"' in heads[0]
    server.close()
    await server.wait_closed()
    await turns()


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "door"
    async with Worker() as worker:
        for _ in range(2):  # the file of one that has ended is no obstacle
            async with proxy_for(worker.address, host=f"unix:{path}", mode="forward"):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n" + LAST + b"hi")
                async with asyncio.timeout(5):
                    (answer,), rest = read_answers(await reader.read())
                writer.close()
                assert (answer.status, rest) == (200, b"")
        assert [seen.body for seen in worker.requests] == [b"hi"] * 2
        assert "for=unknown" in worker.requests[0].headers["Forwarded"].lower()


async def test_grpc_is_told_where_to_go() -> None:
    async with Worker() as worker, proxy_for(worker.address) as proxy, session_to(proxy) as session:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
        (answer,) = await answers(proxy, preface)
        assert (answer.status, says_close(answer)) in ((505, True), (400, True))
        assert "address" in problem(answer)
        async with session.get("/") as said:
            assert said.status == 200
