"""Real sockets, asked by dig over UDP, TCP and TLS, and by hand where dig is too polite."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fairway.registry.catalog import Catalog
from fairway.registry.instance import Address, Instance
from fairway.registry.listeners import dns as listener_module
from fairway.registry.listeners.dns import MAX_STREAM_QUERY, DnsListener
from fairway.registry.tls import ServerTls

from .certificates import certificates
from .dns_answers import Message, parse, question

PATIENCE = 10.0
NETWORKS = ["10.0.0.0/8", "2001:db8::/32"]


def catalog(counts: dict[str, int]) -> Catalog:
    made = Catalog(NETWORKS, epoch=1)
    for service, count in counts.items():
        for n in range(count):
            address = Address(f"10.0.{n >> 8}.{n & 255}", 9000 + n % 1000)
            made.register("p", Instance(f"{service}-{n}", service, address, "1.2.3", tags=(f"n{n}",)), "127.0.0.1", 0.0)
    made.register("p", Instance("six", "six", Address("2001:db8::1", 80)), "127.0.0.1", 0.0)
    return made


@asynccontextmanager
async def listening(host: str = "127.0.0.1", allowed: bool = True, **counts: int) -> AsyncIterator[DnsListener]:
    listener = DnsListener(catalog(counts), allowed=lambda: allowed, rng=random.Random(5))
    await listener.start(host, 0)
    try:
        yield listener
    finally:
        await listener.close()


class Dug:
    """What dig printed: `status`, `flags`, and the records of each section as (name, type, data)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.status = self.flags = ""
        self.sections: dict[str, list[tuple[str, str, str]]] = {}
        section = ""
        for line in text.splitlines():
            if line.startswith(";; ->>HEADER<<-"):
                self.status = line.partition("status: ")[2].partition(",")[0]
            elif line.startswith(";; flags:"):
                self.flags = line.partition("flags: ")[2].partition(";")[0]
            elif line.startswith(";; ") and line.endswith(" SECTION:"):
                section = line[3:-9]
            elif line and not line.startswith(";"):
                name, _, _, type, data = line.split(None, 4)
                self.sections.setdefault(section, []).append((name, type, data))

    @property
    def answers(self) -> list[str]:
        return sorted(data for _, _, data in self.sections.get("ANSWER", []))


async def dig(port: int, *words: str, host: str = "127.0.0.1") -> Dug:
    if not shutil.which("dig"):
        pytest.skip("dig is not installed (Debian: bind9-dnsutils)")
    process = await asyncio.create_subprocess_exec(
        "dig", f"@{host}", "-p", str(port), "+tries=1", "+time=5", *words, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    text = out.decode()
    assert "Warning" not in text, text
    assert "malformed" not in text.lower(), text
    return Dug(text)


# -- dig ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (("classify.service.fairway", "A"), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]),
        (("n1.classify.service.fairway",), ["10.0.0.1"]),
        (("six.service.fairway", "AAAA"), ["2001:db8::1"]),
        (("_classify._n2.service.fairway", "SRV"), ["1 1 9002 0a000002.addr.fairway."]),
        (("n0.classify.service.fairway", "TXT"), ['"id=classify-0" "address=10.0.0.0:9000" "version=1.2.3" "tag=n0"']),
        (("10-0-0-2.node.fairway", "A"), ["10.0.0.2"]),
        (("0a000002.addr.fairway", "A"), ["10.0.0.2"]),
        (("six.service.fairway", "ANY"), ["1 1 80 20010db8000000000000000000000001.addr.fairway.", "2001:db8::1"]),
        (("fairway", "NS"), ["ns.fairway."]),
        (("ns.fairway", "A"), ["127.0.0.1"]),
    ],
)
async def test_dig(transport: str, words: tuple[str, ...], answers: list[str]) -> None:
    async with listening(classify=3) as listener:
        dug = await dig(listener.port, transport, *words)
        assert dug.status == "NOERROR"
        assert dug.flags == "qr aa rd"
        assert dug.answers == answers


async def test_services_with_their_addresses() -> None:
    async with listening(classify=3) as listener:
        dug = await dig(listener.port, "_classify._tcp.fairway", "SRV")
        assert dug.answers == [f"1 1 900{n} 0a00000{n}.addr.fairway." for n in range(3)]
        assert sorted(dug.sections["ADDITIONAL"]) == [
            (f"0a00000{n}.addr.fairway.", "A", f"10.0.0.{n}") for n in range(3)
        ]


async def test_over_ipv6() -> None:
    async with listening("::1", classify=1) as listener:
        assert (await dig(listener.port, "classify.service.fairway", host="::1")).answers == ["10.0.0.0"]
        assert (await dig(listener.port, "+tcp", "ns.fairway", "AAAA", host="::1")).answers == ["::1"]


async def test_case_is_echoed() -> None:
    async with listening(classify=1) as listener:
        dug = await dig(listener.port, "cLaSSify.SERVICE.fairWAY", "A", "+qr")
        assert dug.sections["ANSWER"] == [("cLaSSify.SERVICE.fairWAY.", "A", "10.0.0.0")]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("nobody.service.fairway", "SRV"), "NXDOMAIN"),
        (("classify.service.fairway", "AAAA"), "NOERROR"),
        (("example.com", "A"), "REFUSED"),
        ((".", "NS"), "REFUSED"),
        (("-c", "CH", "version.bind", "TXT"), "REFUSED"),
        (("fairway", "AXFR"), ""),
        (("+opcode=UPDATE", "fairway", "SOA"), "NOTIMP"),
        (("+edns=1", "+noednsnegotiation", "fairway", "SOA"), "BADVERS"),
        (("+header-only", "fairway"), "FORMERR"),
    ],
)
async def test_what_is_not_to_be_had(words: tuple[str, ...], status: str) -> None:
    async with listening(classify=1) as listener:
        dug = await dig(listener.port, *words)
        assert dug.status == status, dug.text
        assert dug.answers == []
        soa = [(name, type) for name, type, _ in dug.sections.get("AUTHORITY", [])]
        assert soa == ([("fairway.", "SOA")] if status in ("NXDOMAIN", "NOERROR") else [])
        assert status or "Transfer failed" in dug.text


async def test_who_may_not_read_is_refused() -> None:
    async with listening(allowed=False, classify=1) as listener:
        for transport in ("+notcp", "+tcp"):
            assert (await dig(listener.port, transport, "classify.service.fairway")).status == "REFUSED"
            assert (await dig(listener.port, transport, "fairway", "SOA")).status == "REFUSED"


async def test_truncated_then_over_tcp() -> None:
    async with listening(crowd=40) as listener:
        cut = await dig(listener.port, "+noedns", "+ignore", "crowd.service.fairway", "SRV")
        assert cut.flags == "qr aa tc rd"
        assert len(cut.answers) == len(cut.sections["ADDITIONAL"]) == 8
        again = await dig(listener.port, "+noedns", "crowd.service.fairway", "SRV")
        assert "Truncated, retrying in TCP mode" in again.text
        assert again.flags == "qr aa rd"
        assert len(again.answers) == 40


@pytest.mark.parametrize(("size", "least", "most"), [(512, 7, 8), (1232, 18, 21), (4096, 40, 40), (8192, 40, 40)])
async def test_edns_sizes(size: int, least: int, most: int) -> None:
    async with listening(crowd=40) as listener:
        dug = await dig(listener.port, "+ignore", f"+bufsize={size}", "crowd.service.fairway", "SRV")
        assert least <= len(dug.answers) <= most
        assert ("tc" in dug.flags) == (len(dug.answers) < 40)
        assert int(dug.text.partition("rcvd: ")[2].split()[0]) <= min(size, 4096)


async def test_as_many_as_64_kib_hold() -> None:
    async with listening(crowd=3000) as listener:
        dug = await dig(listener.port, "+tcp", "crowd.service.fairway", "SRV")
        assert dug.status == "NOERROR"
        assert 900 < len(dug.answers) < 3000
        assert len((await dig(listener.port, "+tcp", "crowd.service.fairway", "A")).answers) == 3000


async def test_order_differs_from_one_answer_to_the_next() -> None:
    async with listening(classify=5) as listener:
        firsts = set()
        for _ in range(40):
            message = await ask(listener.port, question("classify.service.fairway"))
            assert len(message.values) == 5
            firsts.add(message.values[0])
        assert len(firsts) == 5


async def test_over_tls() -> None:
    made = certificates()
    tls = ServerTls(made.server_cert, made.server_key)
    async with listening(crowd=40) as listener:
        await listener.start_tls("127.0.0.1", 0, tls.context)
        dug = await dig(
            listener.tls_port, f"+tls-ca={made.ca}", "+tls-hostname=localhost", "crowd.service.fairway", "SRV"
        )
        assert len(dug.answers) == 40
        assert "(TLS)" in dug.text
        strange = await dig(listener.tls_port, f"+tls-ca={made.stranger.pem}", "crowd.service.fairway", "SRV")
        assert strange.answers == []
        assert "certificate verification" in strange.text
        plain = await dig(listener.tls_port, "+tcp", "crowd.service.fairway", "SRV")
        assert plain.answers == []


# -- by hand -----------------------------------------------------------------------------------------------------------


async def ask(port: int, packet: bytes) -> Message:
    return parse(await exchange(port, packet))


async def exchange(port: int, *packets: bytes) -> bytes:
    """The first datagram that comes back."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        for packet in packets:
            await loop.sock_sendall(sock, packet)
        return await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE)


def framed(*packets: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(packet)) + packet for packet in packets)


async def frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), PATIENCE))
    return await asyncio.wait_for(reader.readexactly(size), PATIENCE)


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), PATIENCE) == b""
    except ConnectionResetError:
        return True


async def test_rubbish_is_survived() -> None:
    async with listening(classify=1) as listener:
        noise = random.Random(9)
        rubbish = [noise.randbytes(noise.randrange(40)) for _ in range(50)]
        answers = [b"\0\1\x81\x80\0\1\0\0\0\0\0\0", b"", *(b"\0\1\x80" + junk for junk in rubbish)]
        answer = await exchange(listener.port, *answers, question("classify.service.fairway", id=99))
        assert parse(answer).id == 99, "what is no query has no answer"
        answer = await exchange(listener.port, b"\x12\x34" + b"\0" * 10)
        assert answer[:4] == b"\x12\x34\x80\x01"


async def test_many_questions_in_one_stream_are_answered_in_order() -> None:
    async with listening(classify=3) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        data = framed(*(question("classify.service.fairway", "SRV", id=n) for n in range(300)))
        writer.write(data[:1000])
        await writer.drain()
        assert parse(await frame(reader)).id == 0
        for at in range(1000, len(data), 777):
            writer.write(data[at : at + 777])
        assert [parse(await frame(reader)).id for _ in range(299)] == list(range(1, 300))
        writer.write(framed(question("classify.service.fairway", id=5))[:1])
        await asyncio.sleep(0)
        writer.write(framed(question("classify.service.fairway", id=5))[1:])
        assert parse(await frame(reader)).id == 5
        writer.write(
            framed(b"", b"short", question("classify.service.fairway", flags=0x8000), question("fairway", id=6))
        )
        assert parse(await frame(reader)).id == 6, "what is no query has no answer here either"
        writer.close()
        await writer.wait_closed()


async def test_who_does_not_read_is_not_answered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its questions wait with it: what we hold for it is bounded. And at last it is let go."""
    monkeypatch.setattr(listener_module, "IDLE_SECONDS", 1.0)
    async with listening(crowd=1500) as listener:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", listener.port))
            sending = asyncio.create_task(
                loop.sock_sendall(sock, framed(question("crowd.service.fairway", "SRV")) * 60_000)
            )
            stream = await stream_of(listener)
            await stream.closed
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            answered = listener.counters["NOERROR"]
            assert 1 < answered < 500, "1,000 answers of 64 KiB are 64 MB"
            assert len(stream._rest) < 1_000_000, "of 2.5 MB of questions"
        assert not listener.streams


async def stream_of(listener: DnsListener) -> listener_module._Stream:
    async with asyncio.timeout(PATIENCE):
        while not listener.streams:  # noqa: ASYNC110 - a connection is accepted in the loop's own time
            await asyncio.sleep(0.01)
    return next(iter(listener.streams))


async def test_who_reads_late_has_all_answers() -> None:
    async with listening(crowd=1500) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
        writer.write(framed(*(question("crowd.service.fairway", "SRV", id=n) for n in range(60))))
        await asyncio.wait_for(writer.drain(), PATIENCE)
        for n in range(60):
            answer = await frame(reader)
            assert answer[:2] == struct.pack("!H", n)
            assert len(answer) > 60_000
        writer.close()
        await writer.wait_closed()


async def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "IDLE_SECONDS", 0.3)
    async with listening(classify=1) as listener:
        silent, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        slow, trickle = await asyncio.open_connection("127.0.0.1", listener.port)
        trickle.write(framed(question("classify.service.fairway"))[:20])
        assert await ended(silent)
        assert await ended(slow), "half a question is no sign of life"
        for each in (writer, trickle):
            each.close()


async def test_a_question_that_is_too_long_ends_the_connection() -> None:
    async with listening(classify=1) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(struct.pack("!H", MAX_STREAM_QUERY + 1))
        assert await ended(reader)
        writer.close()


async def test_connections_are_bounded_and_the_idlest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "MAX_STREAMS", 3)
    async with listening(classify=1) as listener:
        first, second, third = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(3)]
        first[1].write(framed(question("classify.service.fairway", id=1)))
        assert parse(await frame(first[0])).id == 1
        fourth = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await ended(second[0]), "the first has asked something since"
        for n, (reader, writer) in enumerate((first, third, fourth)):
            writer.write(framed(question("classify.service.fairway", id=n)))
            assert parse(await frame(reader)).id == n
        assert len(listener.streams) == 3
        assert repr(listener).startswith(f"<DnsListener [:{listener.port} | 3 streams | 0 sources] <Nameserver ")
        for _, writer in (first, second, third, fourth):
            writer.close()


async def test_a_taken_port_is_said() -> None:
    async with listening() as listener:
        other = DnsListener(catalog({}), allowed=lambda: True)
        with pytest.raises(OSError, match="in use"):
            await other.start("127.0.0.1", listener.port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(OSError, match="in use"):
                await other.start("127.0.0.1", taken.getsockname()[1])
        await other.close()


async def test_close_lets_everybody_go_and_may_be_said_twice() -> None:
    async with listening(classify=1) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(framed(question("fairway", "SOA")))
        await frame(reader)
        await listener.close()
        assert await ended(reader)
        await listener.close()
        writer.close()
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", listener.port)


# -- beyond loopback ---------------------------------------------------------------------------------------------------

FLOOD = """
import asyncio, random, socket, sys
from fairway.registry.listeners import dns
from tests.registry.dns_answers import parse, question
from tests.registry.test_dns_listener import catalog

async def main():
    listener = dns.DnsListener(catalog({"crowd": 60}), allowed=lambda: True, rng=random.Random(5))
    await listener.start("10.99.0.1", 0)
    loop = asyncio.get_running_loop()
    sent = received = cut = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("10.99.0.1", listener.port))
        for _ in range(600):
            packet = question("crowd.service.fairway", "SRV", edns=4096)
            await loop.sock_sendall(sock, packet)
            answer = await asyncio.wait_for(loop.sock_recv(sock, 65536), 10)
            sent, received = sent + len(packet), received + len(answer)
            cut += parse(answer).tc
    reader, writer = await asyncio.open_connection("10.99.0.1", listener.port)
    writer.write(len(packet).to_bytes(2, "big") + packet)
    over_tcp = int.from_bytes(await reader.readexactly(2), "big")
    writer.close()
    await listener.close()
    print(sent, received, cut, over_tcp, listener.counters["limited"])

asyncio.run(main())
"""


def test_a_source_beyond_loopback_is_sent_only_so_much(tmp_path: Path) -> None:
    """In a network of its own, where 10.99.0.1 is us: past the bound an answer is no larger than its question."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare (util-linux) or ip (iproute2) is not installed")
    namespace = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    up = "ip link set lo up && ip addr add 10.99.0.1/32 dev lo"
    if subprocess.run([*namespace, "sh", "-c", up], capture_output=True).returncode:
        pytest.skip("this machine allows no network namespaces")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*namespace, "sh", "-c", f'{up} && exec "$0" -c "$1"', sys.executable, FLOOD],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        env=os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
    )
    assert done.returncode == 0, done.stderr
    sent, received, cut, over_tcp, limited = map(int, done.stdout.split())
    assert limited == cut > 200
    assert over_tcp > 3000, "who is real has its answer over TCP"
    assert received - sent < 1_300_000, f"{received} bytes for {sent}"
