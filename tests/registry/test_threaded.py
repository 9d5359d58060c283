"""A store in its own thread: everything comes through, and a busy caller is no dead worker."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import fairway
from fairway.registry.changes import Change, Gone, Put
from fairway.registry.errors import ConfigurationError, StoreRefused, StoreUnavailable
from fairway.registry.instance import Address, Instance
from fairway.registry.link import Link
from fairway.registry.ports import free_port
from fairway.registry.store import TTL_SECONDS, open_store
from fairway.registry.stores.embedded import EmbeddedStore
from fairway.registry.threaded import ThreadedStore

from .directories import kept, row

PATIENCE = 30.0
INSTANCE = Instance("A", "classify", Address("127.0.0.1", 9001))


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "fairway-store"]


async def test_what_is_said_is_written(tmp_path: Path) -> None:
    made_in: list[threading.Thread] = []

    def make() -> EmbeddedStore:
        made_in.append(threading.current_thread())
        return EmbeddedStore(str(tmp_path))

    store = ThreadedStore(make)
    assert not store.connected
    await store.start()
    assert made_in[0] is not threading.current_thread()
    assert store.connected
    assert "EmbeddedStore [up" in repr(store)
    await asyncio.gather(*(store.announce(row(f"A{n}").instance) for n in range(100)))
    await store.withdraw("A7")
    await store.write([row("B", principal="alice")])
    await store.close()
    assert threads() == []
    assert len(kept(tmp_path)) == 100
    assert row("A7") not in kept(tmp_path)


@pytest.mark.parametrize("url", ["nonsense://x", "embedded:/proc/nowhere"])
async def test_what_no_retry_can_cure_comes_through(url: str) -> None:
    store = ThreadedStore(lambda: open_store(url))
    with pytest.raises(ConfigurationError, match=r"nonsense|/proc/nowhere"):
        await store.start()
    assert threads() == []
    await store.close()


async def test_a_refusal_comes_through_and_ends_nothing(tmp_path: Path) -> None:
    store = ThreadedStore(lambda: EmbeddedStore(str(tmp_path)))
    await store.start()
    with pytest.raises(StoreRefused, match="cannot be kept"):
        await store.announce(row("A", meta={"x": "y" * 70_000}).instance)
    await store.announce(INSTANCE)
    await store.close()
    await store.close()
    assert kept(tmp_path) == [Put(INSTANCE)]


async def test_it_is_open_between_start_and_close(tmp_path: Path) -> None:
    store = ThreadedStore(lambda: EmbeddedStore(str(tmp_path)))
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.announce(INSTANCE)
    await store.start()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.withdraw("A")


async def test_who_waits_while_it_is_closed_is_told() -> None:
    store = ThreadedStore(lambda: Link(Address("127.0.0.1", free_port("127.0.0.1"))))
    await store.start()
    waiting = asyncio.create_task(store.announce(INSTANCE))  # there is no hub
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed meanwhile"):
        await waiting


async def test_who_gives_up_is_let_go() -> None:
    store = ThreadedStore(lambda: Link(Address("127.0.0.1", free_port("127.0.0.1"))))
    await store.start()
    waiting = asyncio.create_task(store.announce(INSTANCE))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await store.close()


class Stuck(EmbeddedStore):
    """`where` it stays until it is let go: in an await that can be cancelled, or in one call that cannot."""

    def __init__(self, where: str, go: threading.Event) -> None:
        super().__init__("")
        self.where, self.go = where, go

    async def start(self) -> None:
        if self.where == "start":
            await asyncio.to_thread(self.go.wait)
        await super().start()

    async def close(self) -> None:
        if self.where == "await":
            await asyncio.Event().wait()
        if self.where == "call":
            self.go.wait(PATIENCE)


@pytest.mark.parametrize("where", ["await", "call"])
async def test_closing_does_not_wait_for_ever(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fairway.registry.threaded.CLOSE_SECONDS", 0.1)
    go = threading.Event()
    store = ThreadedStore(lambda: Stuck(where, go))
    await store.start()
    thread = store._thread
    assert thread
    async with asyncio.timeout(PATIENCE):
        await store.close()
    assert {"await": "was not closed in 0.1 s", "call": "does not close: leaving it"}[where] in caplog.text
    go.set()
    await asyncio.to_thread(thread.join, PATIENCE)
    assert not thread.is_alive()


async def test_closed_while_it_starts() -> None:
    go = threading.Event()
    store = ThreadedStore(lambda: Stuck("start", go))
    starting = asyncio.create_task(store.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    go.set()
    await store.close()
    assert threads() == []


# -- the real thing ----------------------------------------------------------------------------------------------------

# A worker whose one event loop does nothing but compute, a few milliseconds of it at a time without letting anybody in.
BUSY = """
import asyncio, sys, time
from fairway.registry.instance import Address, Instance
from fairway.registry.store import open_store
from fairway.registry.threaded import ThreadedStore

async def main(kind, hub, port, seconds):
    make = lambda: open_store(hub, services=())
    store = make() if kind == "plain" else ThreadedStore(make)
    await store.start()
    await store.announce(Instance(kind, "classify", Address("127.0.0.1", int(port))))
    print("announced", flush=True)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        sum(range(200_000))
    print("done", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(Path(fairway.__file__).parents[1])}
    with subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


async def heard(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return await asyncio.to_thread(child.stdout.readline)


async def test_a_busy_worker_keeps_its_row() -> None:
    """Beside it one that does the same with a plain store, and loses it: so much is asked of both."""
    at = f"127.0.0.1:{free_port('127.0.0.1')}"
    told: list[Change] = []
    children: dict[str, subprocess.Popen[str]] = {}

    def follow(changes: Sequence[Change]) -> None:
        told.extend(changes)

    with ExitStack() as stack:
        stack.enter_context(
            process("-m", "fairway", "registry", "--port", at.rpartition(":")[2], "--store", "embedded:", "--no-dns")
        )
        link = Link(at, on_change=follow)
        await link.start()
        await link.wait_for(lambda: link.synced, PATIENCE)
        for kind in ("threaded", "plain"):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # the hub dials what it serves
            port, seconds = str(listener.getsockname()[1]), str(TTL_SECONDS + 3)
            child = children[kind] = stack.enter_context(process("-c", BUSY, kind, at, port, seconds))
            assert await heard(child) == "announced\n"
        await link.wait_for(lambda: len(link.instances()) == 2, PATIENCE)

        def lost(id: str) -> bool:
            return any(isinstance(change, Gone) and change.instance.id == id for change in told)

        await link.wait_for(lambda: lost("plain"), PATIENCE)
        assert await heard(children["threaded"]) == "done\n"
        said = [c.instance.state for c in told if isinstance(c, Put) and c.instance.id == "threaded"]
        assert said == ["passing"], "never silent for so long that the hub doubted it"
        assert not lost("threaded")
        assert ("threaded", True) in [(i.id, i.serving) for i in link.instances()]
        await link.close()
