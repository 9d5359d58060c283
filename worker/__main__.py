"""`fairway worker`: load a model, serve it, and say so at the registry once it really answers."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from ..registry.options import add_options, read_options
from ..registry.process import run
from .config import WorkerSettings
from .errors import ConfigurationError


def worker(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="fairway worker",
        description="Serves one image model over HTTP and registers itself once it is loaded, warmed up and listening.",
        epilog="Try it: fairway worker --registry none --port 9001, then curl -F data=@daisy.jpg http://127.0.0.1:9001/",
    )
    add_options(parser, WorkerSettings)
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        settings = read_options(WorkerSettings, given)
        try:
            from .server import serve  # its libraries are not part of the light installation
        except ImportError as error:
            raise ConfigurationError(
                f"a worker needs more than the light installation ({error.name} is missing): "
                "pip install 'fairway[tensorflow]'"
            ) from error
        await serve(settings, stop)

    return run(main)


if __name__ == "__main__":
    sys.exit(worker(sys.argv[1:]))
