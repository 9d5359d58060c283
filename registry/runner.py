"""`fairway registry register NAME@VERSION -- COMMAND…`: any program becomes a worker, as with `seaport register`.

A free port is found and appended to the command (or stands where `{port}` stands, and in $PORT); the program is started
again when it ends; the registration is told only once the port answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .credentials import StoreSettings
from .errors import ConfigurationError, StoreRefused, StoreUnavailable
from .instance import Address, Instance
from .options import add_options, option, read_options
from .ports import free_port
from .process import run
from .store import new_id, open_store

RESTART_SECONDS = 1.0  # as seaport
LOOK_SECONDS = 0.1  # between two looks whether the port answers
PATIENCE_SECONDS = 10.0  # after which a word is said about a port that does not answer
END_SECONDS = 10.0  # how long the program may take to end before it is killed


@dataclass(frozen=True)
class RunnerSettings(StoreSettings):
    host: str = option("127.0.0.1", "address under which the program listens, and is advertised")
    port: int = option(0, "its port; 0 finds a free one", env="FAIRWAY_RUNNER_PORT")


def register(arguments: Sequence[str], prog: str = "fairway registry register") -> int:
    line = list(arguments)
    at = line.index("--") if "--" in line else len(line)
    command = line[at + 1 :]
    said, line = _take_meta(line[:at])
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [options] [HOST:PORT] NAME[@VERSION] [--meta.KEY=VALUE …] -- COMMAND …",
        description="Runs COMMAND with a port of its own, and keeps it registered for as long as it answers there.",
        epilog="The port stands where COMMAND says {port}, else at its end, and in $PORT. "
        "--meta.KEY=VALUE: more words about it; VALUE is JSON if it can be read as such; dots go deeper",
    )
    parser.add_argument("words", nargs="+", metavar="[HOST:PORT] NAME[@VERSION]")
    add_options(parser, RunnerSettings)
    given = parser.parse_args(line)
    if len(given.words) > 2 or not command:
        parser.error("expected [HOST:PORT] NAME[@VERSION] -- COMMAND …")
    if len(given.words) == 2:
        given.registry = given.words[0]

    async def main(stop: asyncio.Event) -> int:
        settings = read_options(RunnerSettings, given)
        service, _, version = given.words[-1].partition("@")
        port = settings.port or free_port(settings.host)
        instance = Instance(
            new_id(), service, Address(settings.host, port), version, meta={"pid": os.getpid(), **_nested(said)}
        )
        instance = Instance.from_meta(instance.id, instance.as_meta(), settings.host)  # judged as the hub will judge it
        words = [word.replace("{port}", str(port)) for word in command]
        return await _keep(settings, instance, words if words != command else [*words, str(port)], stop)

    return run(main)


async def _keep(settings: RunnerSettings, instance: Instance, command: list[str], stop: asyncio.Event) -> int:
    store = open_store(settings.registry, credentials=settings.credentials(), services=())
    await store.start()
    stopped = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            print(f"fairway: starting {' '.join(command)}", file=sys.stderr)
            environment = {**os.environ, "PORT": str(instance.address.port)}
            try:
                process = await asyncio.create_subprocess_exec(*command, env=environment)
            except OSError as error:
                raise ConfigurationError(f"{command[0]}: {error.strerror}") from error
            announced = asyncio.create_task(_announce(store.announce, instance))
            ended = asyncio.create_task(process.wait())
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            announced.cancel()
            with contextlib.suppress(StoreUnavailable):
                await store.withdraw(instance.id)
            if stop.is_set():
                await _end(process)
                break
            print(f"fairway: it ended with status {await ended}; starting it again", file=sys.stderr)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(stopped), RESTART_SECONDS)
    finally:
        stopped.cancel()
        await store.close()
    return 0


async def _announce(announce: Any, instance: Instance) -> None:
    loop = asyncio.get_running_loop()
    patience: float | None = loop.time() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(instance.address.host, instance.address.port)
            writer.transport.abort()
            break
        if patience is not None and loop.time() > patience:
            print(f"fairway: nobody listens at {instance.address} yet: it is not registered", file=sys.stderr)
            patience = None
        await asyncio.sleep(LOOK_SECONDS)
    try:
        await announce(instance)
        print(f"fairway: registered {instance.role} at {instance.address}", file=sys.stderr)
    except (StoreUnavailable, StoreRefused) as error:
        print(f"fairway: {error}", file=sys.stderr)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _take_meta(line: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """`--meta.KEY=VALUE` and `--meta.KEY VALUE` -> keys and values, and the rest of the line."""
    said: list[tuple[str, str]] = []
    rest: list[str] = []
    words = iter(line)
    for word in words:
        if word.startswith("--meta."):
            key, equals, text = word.removeprefix("--meta.").partition("=")
            said.append((key, text if equals else next(words, "")))
        else:
            rest.append(word)
    return said, rest


def _nested(said: list[tuple[str, str]]) -> dict[str, Any]:
    """`a.b=1` -> `{"a": {"b": 1}}`. Raises ConfigurationError for a word that is both a value and a folder of them."""
    meta: dict[str, Any] = {}
    for key, text in said:
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        place = meta
        *outer, last = key.split(".")
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigurationError(f"--meta.{key}: {name} has a value already")
        place[last] = value
    return meta
