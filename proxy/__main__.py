"""`fairway proxy`: one door in front of many workers."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from ..registry.options import add_options, read_options
from ..registry.process import run
from .config import ProxySettings
from .processes import SIBLINGS, Processes
from .server import Proxy, quiet_collector, resolver_of


def proxy(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway proxy",
        description="Forwards uploads to workers in turn, or hands out a worker's address, or redirects to one.",
        epilog="The article's own: fairway proxy --mode address --address-format port; "
        "fairway proxy --static 9001,9002,9003",
    )
    add_options(parser, ProxySettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        settings = read_options(ProxySettings, given)
        if settings.processes > 1 and not os.environ.get(SIBLINGS):
            await Processes(settings, arguments).run(stop)
            return
        door = Proxy(settings, resolver_of(settings))
        await door.start()
        quiet_collector()
        await stop.wait()
        await door.close()

    return run(main)


if __name__ == "__main__":
    sys.exit(proxy(sys.argv[1:]))
