"""etcd and ZooKeeper beside the hub: started, joined, changed, looked up and watched, each over its own wire."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Self

from bench_registry_contenders import (
    BEAT_SECONDS,
    OTHERS,
    SERVICE,
    TTL,
    AskingOwner,
    Contender,
    Owner,
    Repeat,
    document,
    http,
    output,
)
from bench_registry_wires import Frames, Heard, Http, Wire


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Etcd(Contender):
    """Over the JSON gateway. A worker has a lease, a key and a connection; all requests are HTTP/1.1 POSTs."""

    name = "etcd"
    needs = ("etcd",)
    changers = ("put, delete",)
    lookups = ("range",)

    def command(self) -> list[str]:
        own, peer = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.second_port}"
        options = {
            "data-dir": self.folder / "data",
            "listen-client-urls": own,
            "advertise-client-urls": own,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "error",
        }
        return ["etcd", *(f"--{key}={value}" for key, value in options.items())]

    @classmethod
    def version(cls) -> str:
        return output("etcd", "--version").splitlines()[0].replace(" Version:", "")

    async def start(self) -> Self:
        await super().start()
        await asyncio.to_thread(until_healthy, self.port)
        return self

    async def _lease(self, wire: Wire) -> str:
        answer = await wire.ask(http("POST", "/v3/lease/grant", {"TTL": str(int(TTL))}))
        return str(json.loads(answer[answer.index(b"{") :])["ID"])

    def _keep(self, wire: Http, lease: str) -> None:
        request = http("POST", "/v3/lease/keepalive", {"ID": lease})

        def say() -> None:
            if not wire.busy:  # else the last one is not answered yet
                wire.ask(request).add_done_callback(heard)

        def heard(answer: asyncio.Future[bytes]) -> None:
            if answer.exception() or b'"TTL"' not in answer.result():
                wire.lost = True

        wire.beat(BEAT_SECONDS, say)

    def _put(self, service: str, lease: str, id: str) -> bytes:
        value = json.dumps(document(id, service, 9000), separators=(",", ":"))
        body = {"key": base64_of(f"/fairway/{service}/{id}"), "value": base64_of(value), "lease": lease}
        return http("POST", "/v3/kv/put", body)

    async def joined(self, number: int, service: str) -> Wire:
        """An etcd that has much to do answers 503 to some: they ask again."""
        wire = await Http(strict=False).open(self.port)
        while True:
            try:
                lease = await self._lease(wire)
            except (KeyError, ValueError):
                await asyncio.sleep(1)
                continue
            if (await wire.ask(self._put(service, lease, f"crowd-{number}"))).startswith(b"HTTP/1.1 200"):
                self._keep(wire, lease)
                return wire

    async def owners(self, count: int, way: str = "", service: str = SERVICE) -> list[Owner]:
        made: list[Owner] = []
        for _ in range(count):
            wire, keeper = await Http().open(self.port), await Http().open(self.port)
            self.others += [wire, keeper]
            lease = await self._lease(wire)
            self._keep(keeper, lease)
            made.append(AskingOwner(wire, partial(self._put, service, lease), partial(self._delete, service)))
        return made

    def _delete(self, service: str, id: str) -> bytes:
        return http("POST", "/v3/kv/deleterange", {"key": base64_of(f"/fairway/{service}/{id}")})

    def _below(self, service: str) -> dict[str, str]:
        return {"key": base64_of(f"/fairway/{service}/"), "range_end": base64_of(f"/fairway/{service}0")}

    async def watch(self, count: int, heard: Heard) -> None:
        created = [asyncio.Event() for _ in range(count)]

        def piece(number: int, data: bytes) -> None:
            if b'"created":true' in data:
                created[number].set()
            at = data.find(b'"key":"')
            if at >= 0 and b'"type":"DELETE"' not in data:
                heard(base64.b64decode(data[at + 7 : data.index(b'"', at + 7)]).decode().rpartition("/")[2])

        for number in range(count):
            wire = await Http(partial(piece, number)).open(self.port)
            self.others.append(wire)
            wire.transport.write(http("POST", "/v3/watch", {"create_request": self._below(SERVICE)}))
            await created[number].wait()

    async def readers(self, count: int, way: str, service: str, size: int) -> list[Repeat]:
        wires = [await Http().open(self.port) for _ in range(count)]
        self.others += wires
        request = http("POST", "/v3/kv/range", self._below(service))
        answer = await wires[0].ask(request)
        if answer.count(b'"key"') != size:
            raise RuntimeError(f"{size} were put; looked up: {answer[:300]!r}")
        return [partial(wire.repeat, request) for wire in wires]


class ZooKeeper(Contender):
    """A worker is a session with one ephemeral node; raw frames, so that ten thousand sessions fit into one process."""

    name = "ZooKeeper"
    JAR = "/usr/share/java/zookeeper.jar"
    needs = ("java", JAR)
    changers = ("create, delete",)
    lookups = ("children", "children and their data")

    def command(self) -> list[str]:
        (self.folder / "zoo.cfg").write_text(
            f"tickTime=2000\ndataDir={self.folder / 'data'}\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
            "maxClientCnxns=0\nclientPortListenBacklog=1024\nadmin.enableServer=false\n"
        )
        main = "org.apache.zookeeper.server.ZooKeeperServerMain"
        return ["java", "-Xmx512m", "-cp", self.JAR, main, str(self.folder / "zoo.cfg")]

    @classmethod
    def version(cls) -> str:
        jars = Path(cls.JAR).parent.glob("zookeeper-[0-9]*.jar")
        java = output("java", "--version").split()[1]
        return f"ZooKeeper {next((jar.stem.partition('-')[2] for jar in jars), '')} on Java {java}"

    async def start(self) -> Self:
        """It listens before it takes sessions, and drops, or forgets, who comes too early."""
        await super().start()
        for _ in range(20):
            wire = Frames()
            try:
                async with asyncio.timeout(2):
                    await self._furnish(await wire.begin(self.port, TTL))
                return self
            except (OSError, TimeoutError):
                await asyncio.sleep(0.1)
            finally:
                wire.close()
        raise RuntimeError("it takes no session")

    async def _furnish(self, wire: Frames) -> None:
        services = [SERVICE, *(f"other-{n:02}" for n in range(OTHERS)), "look-10", "look-100"]
        for path in ("/fairway", *(f"/fairway/{service}" for service in services)):
            await wire.ask(wire.create(path, lasting=True))

    async def joined(self, number: int, service: str) -> Wire:
        wire = await Frames().begin(self.port, TTL)
        await wire.ask(self._create(wire, service, f"crowd-{number}"))
        wire.beats(BEAT_SECONDS)
        return wire

    def _create(self, wire: Frames, service: str, id: str) -> bytes:
        data = json.dumps(document(id, service, 9000), separators=(",", ":")).encode()
        return wire.create(f"/fairway/{service}/{id}", data)

    def _delete(self, wire: Frames, service: str, id: str) -> bytes:
        return wire.delete(f"/fairway/{service}/{id}")

    async def owners(self, count: int, way: str = "", service: str = SERVICE) -> list[Owner]:
        wires = [await Frames().begin(self.port, TTL) for _ in range(count)]
        self.others += wires
        for wire in wires:
            wire.beats(BEAT_SECONDS)
        return [
            AskingOwner(wire, partial(self._create, wire, service), partial(self._delete, wire, service))
            for wire in wires
        ]

    async def watch(self, count: int, heard: Heard) -> None:
        """A watch fires once: whoever was told asks again, and so learns what there is."""

        async def one() -> None:
            wire = Frames(lambda: again())
            known: set[str] = set()

            def again() -> None:
                wire.ask(wire.children(f"/fairway/{SERVICE}", watch=True)).add_done_callback(told)

            def told(answer: asyncio.Future[bytes]) -> None:
                now = names_in(answer.result())
                for id in now - known:
                    heard(id)
                known.clear()
                known.update(now)

            await wire.begin(self.port, TTL)
            wire.beats(BEAT_SECONDS)
            self.others.append(wire)
            known.update(names_in(await wire.ask(wire.children(f"/fairway/{SERVICE}", watch=True))))

        for _ in range(count):
            await one()

    async def readers(self, count: int, way: str, service: str, size: int) -> list[Repeat]:
        wires = [await Frames().begin(self.port, TTL) for _ in range(count)]
        self.others += wires
        names = sorted(names_in(await wires[0].ask(wires[0].children(f"/fairway/{service}"))))
        if len(names) != size:
            raise RuntimeError(f"{size} were created; looked up: {names}")
        request = wires[0].children(f"/fairway/{service}")
        if way == "children and their data":
            request += b"".join(wires[0].get(f"/fairway/{service}/{name}") for name in names)
            for wire in wires:
                wire.expect(1 + size)
        for wire in wires:
            wire.beats(BEAT_SECONDS)
        return [partial(wire.repeat, request) for wire in wires]


def names_in(answer: bytes) -> set[str]:
    count = int.from_bytes(answer[:4], "big")
    names, at = set(), 4
    for _ in range(count):
        length = int.from_bytes(answer[at : at + 4], "big")
        names.add(answer[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return names


def until_healthy(port: int) -> None:
    """etcd listens before it can be written to."""
    command = ["curl", "-s", "-m", "2", f"http://127.0.0.1:{port}/health"]
    for _ in range(100):
        if b'"true"' in subprocess.run(command, capture_output=True, check=False).stdout:
            return
        time.sleep(0.1)
    raise RuntimeError("etcd is not healthy after ten seconds")
