"""One role as a process: signals, the log, exit codes. Used by every `__main__`, and understood by the supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from .errors import ConfigurationError, InvalidInstance, RegistryError

EXIT_CONFIGURATION = 78  # sysexits.h EX_CONFIG: no restart will cure it
EXIT_USAGE = 2  # argparse: a command line that is none
SPARE_FILES = 256  # beside the connections of others: logs, the engine, what we dial and check
SUPERVISED = "FAIRWAY_SUPERVISED"  # set by the supervisor: when its end of our stdin closes, we stop too

Main = Callable[[asyncio.Event], Awaitable[int | None]]


def run(main: Main, verbose: bool = True) -> int:
    """Runs `main(stop)` on uvloop until it returns; SIGTERM and SIGINT set `stop`, a second one ends it at once.

    Returns the exit status; an error we know is one line on stderr, never a traceback.
    """
    logging.basicConfig(
        level=os.environ.get("FAIRWAY_LOG_LEVEL", "INFO" if verbose else "WARNING").upper(),
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("aiohttp.server").addFilter(_one_line)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_supervised(main)) or 0
    except (ConfigurationError, InvalidInstance) as error:  # an address that is none is a setting, too
        print(f"fairway: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_CONFIGURATION
    except RegistryError as error:
        print(f"fairway: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def allow_files(wanted: int) -> int:
    """Raises this process's limit of open files as far as it may -> how many of `wanted` connections it can hold."""
    try:
        import resource
    except ImportError:  # not on this platform
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < need:
        logging.getLogger("fairway").warning(
            "at most %d connections: this process may open %d files (ulimit -n)", soft - SPARE_FILES, soft
        )
    return max(1, min(wanted, soft - SPARE_FILES))


def _one_line(record: logging.LogRecord) -> bool:
    """A stranger's malformed request is worth a line, not a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and type(error).__module__ == "aiohttp.http_exceptions":  # not imported: not all roles have it
        record.msg, record.args, record.exc_info = f"malformed request: {' '.join(str(error).split())[:200]}", (), None
    return True


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # it has no build for this platform
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _supervised(main: Main) -> int | None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def request_stop(name: str) -> None:
        if stop.is_set():
            logging.getLogger("fairway").warning("%s again: stopping at once", name)
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, request_stop, number.name)
    if os.environ.get(SUPERVISED):
        # The supervisor holds the other end of our stdin. Its end means that it died without saying so.
        await loop.connect_read_pipe(lambda: _Orphaned(stop), os.fdopen(os.dup(0), "rb", buffering=0))
    return await main(stop)


class _Orphaned(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, error: Exception | None) -> None:
        self._stop.set()
