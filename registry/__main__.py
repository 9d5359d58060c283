"""`fairway registry`: run the hub; and seaport's other commands, `show query watch register`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module

from .config import RegistrySettings, state_store
from .options import add_options, read_options
from .process import allow_files, run
from .readers import lookup, services, watch

COMMANDS = {
    "listen": (".__main__:listen", "run the registry (also without this word)"),
    "show": (".readers:services", "list all that is registered"),
    "query": (".readers:query", "print what is registered as JSON"),
    "watch": (".readers:watch", "print every change, until interrupted"),
    "register": (".runner:register", "run a program and keep it registered"),
}


def registry(arguments: Sequence[str]) -> int:
    line = list(arguments)
    if not line or line[0] not in COMMANDS:
        return listen(line)
    module, _, name = COMMANDS[line[0]][0].partition(":")
    command = listen if name == "listen" else getattr(import_module(module, __package__), name)
    return int(command(line[1:], prog=f"fairway registry {line[0]}"))


def listen(arguments: Sequence[str], prog: str = "fairway registry") -> int:
    also = "; ".join(f"{name}: {about}" for name, (_, about) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Keeps the list of who serves what, and where. Workers stay on it for as long as they are connected.",
        epilog=f"Commands after `fairway registry`: {also}. "
        "Look into it: fairway services; curl http://127.0.0.1:12481/v1/catalog/services; "
        "dig @127.0.0.1 -p 12453 classify.service.fairway. SRV",
    )
    parser.add_argument("listen_port", nargs="?", metavar="PORT", help="as --port")
    add_options(parser, RegistrySettings)
    given = parser.parse_args(arguments)
    if given.listen_port is not None:
        given.port = given.listen_port

    async def main(stop: asyncio.Event) -> None:
        from .server import Hub  # the readers' commands do without it, and start faster

        settings = state_store(read_options(RegistrySettings, given))
        hub = Hub(replace(settings, max_connections=allow_files(settings.max_connections)))
        await hub.start()
        await stop.wait()
        await hub.close()

    return run(main)


__all__ = ["listen", "lookup", "registry", "services", "watch"]

if __name__ == "__main__":
    sys.exit(registry(sys.argv[1:]))
