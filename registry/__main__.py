"""`fairway registry | services | lookup | watch`: run the hub, and look into one."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .config import RegistrySettings
from .errors import ConfigurationError
from .instance import Address, Instance, Query, is_range
from .link import Link
from .lookup import rows
from .options import add_options, option, read_options
from .process import run
from .server import Hub


@dataclass(frozen=True)
class ReaderSettings:
    registry: str = option("127.0.0.1:12481", "the registry to ask, HOST:PORT")
    wait_seconds: float = option(2.0, "how long to wait for the registry, and for a match")
    json: bool = option(False, "one JSON object a line")


def registry(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway registry",
        description="Keeps the list of who serves what, and where. Workers stay on it for as long as they are connected.",
        epilog="Look into it: fairway services; fairway watch; curl http://127.0.0.1:12481/v1/catalog/services",
    )
    add_options(parser, RegistrySettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        hub = Hub(read_options(RegistrySettings, given))
        await hub.start()
        await stop.wait()
        await hub.close()

    return run(main)


def services(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="fairway services", description="Lists every registered instance.")
    add_options(parser, ReaderSettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        settings = read_options(ReaderSettings, given)
        link = Link(Address.parse(settings.registry))
        await link.start(settings.wait_seconds)
        found = sorted(link.query(), key=lambda instance: (instance.service, instance.address))
        for instance in found:
            print(_line(instance, settings.json))
        if not found and not settings.json:
            print("nobody is registered", file=sys.stderr)
        await link.close()

    return run(main, verbose=False)


def lookup(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway lookup",
        description="Prints the addresses of a service's instances, one a line; exit status 1 if there is none.",
        epilog="NAME may carry a version range as npm writes them: fairway lookup 'classify@^1.2'",
    )
    parser.add_argument("name", nargs="?", default="classify", help="service, or service@range (default: classify)")
    add_options(parser, ReaderSettings)
    given = parser.parse_args(arguments)
    query = Query.parse(given.name)

    async def main(stop: asyncio.Event) -> int:
        settings = read_options(ReaderSettings, given)
        if not is_range(query.range):
            raise ConfigurationError(f"{query.range!r} is no range of versions: write e.g. ^1.2, 1.2.x, or >=1 <2")
        link = Link(Address.parse(settings.registry))
        await link.start(settings.wait_seconds)

        def found() -> list[Instance]:
            return [instance for instance in link.query(query) if instance.state == "passing"]

        try:
            await link.wait_for(lambda: bool(found()), settings.wait_seconds)
        except TimeoutError:
            print(f"fairway: nobody serves {given.name}", file=sys.stderr)
            return 1
        finally:
            await link.close()
        for instance in found():
            print(_line(instance, True) if settings.json else instance.address)
        return 0

    return run(main, verbose=False)


def watch(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway watch", description="Prints who is there, then every change, until interrupted."
    )
    add_options(parser, ReaderSettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        settings = read_options(ReaderSettings, given)
        known: dict[str, Instance] = {}

        def show() -> None:
            try:
                show_changes()
            except BrokenPipeError:  # `fairway watch | head`: the reader has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                stop.set()

        def show_changes() -> None:
            now = {instance.id: instance for instance in link.query()}
            for id in known.keys() - now.keys():
                print(_line(known[id], settings.json, "gone"), flush=True)
            for id, instance in now.items():
                if known.get(id) != instance:
                    print(_line(instance, settings.json), flush=True)
            known.clear()
            known.update(now)

        link = Link(Address.parse(settings.registry), on_change=show)
        await link.start(settings.wait_seconds)
        await stop.wait()
        await link.close()

    return run(main, verbose=False)


def _line(instance: Instance, as_json: bool, state: str = "") -> str:
    if as_json:
        return json.dumps({"state": state or instance.state, "service": instance.service} | rows([instance])[0])
    return f"{state or instance.state:9} {instance.role:24} {instance.address!s:21} [{instance.id}]"


if __name__ == "__main__":
    sys.exit(registry(sys.argv[1:]))
