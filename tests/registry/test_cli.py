"""`fairway registry | services | lookup | watch` as the processes people start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fairway.registry import Address, Hub, Instance, Link
from fairway.registry.ports import free_port

from .peers import running_hub

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0  # seconds; a busy machine starts processes slowly


@asynccontextmanager
async def started(*arguments: str, stdin: int = DEVNULL, **environment: str) -> AsyncIterator[Process]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FAIRWAY_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fairway", *arguments,
        env=clean | {"PYTHONPATH": str(ROOT / "src")} | environment,
        stdin=stdin, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def fairway(*arguments: str, **environment: str) -> tuple[int | None, str, str]:
    """Runs it to its end -> exit status, stdout, stderr."""
    async with asyncio.timeout(PATIENCE), started(*arguments, stdin=DEVNULL, **environment) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


async def line(stream: asyncio.StreamReader | None) -> str:
    assert stream is not None
    async with asyncio.timeout(PATIENCE):
        return (await stream.readline()).decode().rstrip()


async def stopped(process: Process, number: signal.Signals) -> int:
    process.send_signal(number)
    async with asyncio.timeout(PATIENCE):
        return await process.wait()


@asynccontextmanager
async def announced(hub: Hub, *instances: Instance) -> AsyncIterator[Link]:
    worker, witness = Link(Address("127.0.0.1", hub.port)), Link(Address("127.0.0.1", hub.port))
    try:
        await worker.start(PATIENCE)
        await witness.start(PATIENCE)
        for instance in instances:
            await worker.announce(instance)
        await witness.wait_for(lambda: len(witness.query()) == len(instances), PATIENCE)
        yield worker
    finally:
        await worker.close()
        await witness.close()


ONE = Instance("A1", "classify", Address("127.0.0.1", 9001), "1.2.3")
TWO = Instance("B2", "classify", Address("127.0.0.1", 9002), "2.0.0", "draining")
OTHER = Instance("C3", "astyle", Address("127.0.0.1", 9003))


async def test_a_registry_from_start_to_sigterm() -> None:
    async with started("registry", "--port", "0") as process:
        said = await line(process.stderr)
        found = re.search(r"registry listening on 127\.0\.0\.1:(\d+) \(seaport rows and HTTP\)$", said)
        assert found, said
        link = Link(Address("127.0.0.1", int(found[1])))
        await link.start(PATIENCE)
        await link.close()
        assert await stopped(process, signal.SIGTERM) == 0


async def test_few_files_mean_few_connections_and_a_word_about_it() -> None:
    command = f"ulimit -Sn 512; ulimit -Hn 1000; exec {sys.executable} -m fairway registry --port 0"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdin=DEVNULL, stderr=PIPE
    )
    try:
        assert "at most 744 connections: this process may open 1000 files" in await line(process.stderr)
        assert "listening" in await line(process.stderr)
        limits = await asyncio.to_thread(Path(f"/proc/{process.pid}/limits").read_text)
        assert "Max open files            1000                 1000" in limits
        assert await stopped(process, signal.SIGTERM) == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_supervised_registry_ends_with_its_supervisor() -> None:
    async with started("registry", stdin=PIPE, FAIRWAY_REGISTRY_PORT="0", FAIRWAY_SUPERVISED="1") as process:
        assert "listening" in await line(process.stderr)
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0


async def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        status, out, err = await fairway("registry", "--port", str(port))
    assert (status, out) == (78, "")
    assert err.startswith(f"fairway: the registry cannot listen on 127.0.0.1:{port}: ")
    assert "address already in use" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "environment", "text"),
    [
        ("registry --port 99999", {}, "--port 99999: expected 0 (any free port) to 65535"),
        ("registry --port 0 --allow bogus", {}, "--allow: 'bogus' is not a network: expected e.g. 10.0.0.0/8"),
        ("registry --host 0.0.0.0", {}, "--host 0.0.0.0: anybody who reaches this address could use it; "),
        (
            "services",
            {"FAIRWAY_WAIT_SECONDS": "s"},
            "FAIRWAY_WAIT_SECONDS: 's' will not do: a number from 0 up is needed",
        ),
        ("lookup --wait-seconds s", {}, "--wait-seconds: 's' will not do: a number from 0 up is needed"),
        ("watch", {"FAIRWAY_JSON": "maybe"}, "FAIRWAY_JSON: 'maybe' will not do: yes or no is needed"),
    ],
)
async def test_what_no_restart_can_cure(command: str, environment: dict[str, str], text: str) -> None:
    status, out, err = await fairway(*command.split(), **environment)
    assert (status, out, err.count("\n")) == (78, "", 1)
    assert err.startswith(f"fairway: {text}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("register 127.0.0.1:1 bad!name -- true", "is not a service name"),
        ("register name --port 99999 -- true", "is not a port"),
        ("register name --meta.a=1 --meta.a.b=2 -- true", "--meta.a.b: a has a value already"),
        ("show foo:bar", "is no registry"),
        ("show --registry foo:bar", "is not an address"),
    ],
)
async def test_a_wrong_word_is_one_clear_line(words: str, says: str) -> None:
    status, out, err = await fairway("registry", *words.split())
    assert (status, out, err.count("\n")) == (78, "", 1)
    assert err.startswith("fairway: ")
    assert says in err


async def test_what_may_not_be_read_is_not_shown_as_empty(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-to-read-with-it  read\n")
    async with running_hub(token_file=tokens) as hub:
        status, out, err = await fairway("services", "--registry", f"127.0.0.1:{hub.port}")
    assert (status, out) == (1, "")
    assert "anonymous may not read: show a token that may" in err.splitlines()[-1]


async def test_an_engines_login_is_not_shown() -> None:
    port = free_port()
    url = f"etcd://root:secret@127.0.0.1:{port}/fairway"
    status, _, err = await fairway("services", "--registry", url, "--wait-seconds", "0.3")
    assert status == 1
    assert "secret" not in err
    assert err.splitlines()[-1].startswith(f"fairway: etcd://127.0.0.1:{port}/fairway does not answer")


async def test_services(hub: Hub) -> None:
    door = f"127.0.0.1:{hub.port}"
    assert await fairway("services", "--registry", door) == (0, "", "nobody is registered\n")
    async with announced(hub, TWO, ONE, OTHER):
        (status, out, err), (_, rows, _) = await asyncio.gather(
            fairway("services", FAIRWAY_REGISTRY=door), fairway("services", "--registry", door, "--json")
        )
    assert (status, err) == (0, "")
    assert [text.split() for text in out.splitlines()] == [
        ["passing", "astyle", "127.0.0.1:9003", "[C3]"],
        ["passing", "classify@1.2.3", "127.0.0.1:9001", "[A1]"],
        ["draining", "classify@2.0.0", "127.0.0.1:9002", "[B2]"],
    ]
    assert [json.loads(text)["id"] for text in rows.splitlines()] == ["C3", "A1", "B2"]
    assert json.loads(rows.splitlines()[1]) == {
        "state": "passing", "service": "classify", "id": "A1", "version": "1.2.3",
        "host": "127.0.0.1", "port": 9001, "url": "http://127.0.0.1:9001/",
    }  # fmt: skip


async def test_lookup(hub: Hub) -> None:
    door = ("--registry", f"127.0.0.1:{hub.port}")
    async with announced(hub, ONE, replace(TWO, state="passing"), OTHER):
        both, one, none = await asyncio.gather(
            fairway("lookup", *door),
            fairway("lookup", "classify@^1.2", *door),
            fairway("lookup", "nobody", *door, "--wait-seconds", "0.5"),
        )
    assert both == (0, "127.0.0.1:9001\n127.0.0.1:9002\n", "")
    assert one == (0, "127.0.0.1:9001\n", "")
    assert none == (1, "", "fairway: nobody serves nobody\n")


async def test_no_registry_there() -> None:
    port = free_port()
    status, out, err = await fairway("services", "--registry", f"127.0.0.1:{port}", "--wait-seconds", "0.3")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == (
        f"fairway: no registry answers at 127.0.0.1:{port}; start one with `fairway registry`"
    )
    assert "Traceback" not in err


async def test_watch(hub: Hub) -> None:
    async with announced(hub, OTHER) as worker, started("watch", "--registry", f"127.0.0.1:{hub.port}") as process:
        assert (await line(process.stdout)).split() == ["passing", "astyle", "127.0.0.1:9003", "[C3]"]
        await worker.announce(ONE)
        assert (await line(process.stdout)).split() == ["passing", "classify@1.2.3", "127.0.0.1:9001", "[A1]"]
        await worker.announce(replace(ONE, state="draining"))
        assert (await line(process.stdout)).split()[:2] == ["draining", "classify@1.2.3"]
        await worker.withdraw("A1")
        assert (await line(process.stdout)).split() == ["gone", "classify@1.2.3", "127.0.0.1:9001", "[A1]"]
        assert await stopped(process, signal.SIGINT) == 0
        assert await process.communicate() == (b"", b"")


async def test_watch_ends_when_nobody_reads_it_any_more(hub: Hub) -> None:
    reading, writing = os.pipe()
    async with announced(hub, OTHER) as worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fairway", "watch", "--registry", f"127.0.0.1:{hub.port}",
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, stdin=DEVNULL, stdout=writing, stderr=PIPE,
        )  # fmt: skip
        os.close(writing)
        try:
            assert await asyncio.to_thread(os.read, reading, 1) == b"p", "it has begun to print"
            os.close(reading)
            await worker.announce(ONE)
            async with asyncio.timeout(PATIENCE):
                _, err = await process.communicate()
            assert (process.returncode, err) == (0, b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
