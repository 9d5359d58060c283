"""The commands that look into a registry: `services` (seaport's `show`), `lookup`, `query`, `watch`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .changes import Change, Gone, Put
from .credentials import StoreSettings
from .errors import ConfigurationError, RegistryUnreachable, StoreRefused
from .instance import Instance, Query, is_range
from .link import AUTO
from .lookup import rows
from .options import add_options, option, read_options
from .process import run
from .store import OnChange, Store, open_store


@dataclass(frozen=True)
class ReaderSettings(StoreSettings):
    wait_seconds: float = option(2.0, "how long to wait for the registry, and for a match")
    json: bool = option(False, "one JSON object a line")


def services(arguments: Sequence[str], prog: str = "fairway services") -> int:
    parser = _parser(prog, "Lists every registered instance.")
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        settings = _settings(given)
        async with opened(settings) as store:
            found = sorted(store.instances(), key=lambda instance: (instance.service, instance.address))
            for instance in found:
                print(_line(instance, settings.json))
            if not found and not settings.json:
                print("nobody is registered", file=sys.stderr)

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

        def found() -> list[Instance]:
            serving = [instance for instance in store.query(query) if instance.serving]
            return sorted(serving, key=lambda instance: instance.suspect)

        async with opened(settings) as store:
            try:
                await store.wait_for(lambda: bool(found()), settings.wait_seconds)
            except TimeoutError:
                print(f"fairway: nobody serves {given.name}", file=sys.stderr)
                return 1
            for instance in found():
                print(_line(instance, True) if settings.json else instance.address)
        return 0

    return run(main, verbose=False)


def query(arguments: Sequence[str], prog: str = "fairway registry query") -> int:
    parser = _parser(prog, "Prints what is registered as a JSON array, as seaport rows say it.")
    parser.add_argument("pattern", nargs="?", default="", help="service, or service@range; nothing: all")
    parser.add_argument("key", nargs="*", help="words into each row: only what stands there is printed")
    given = parser.parse_args(arguments)
    if given.where and not _is_place(given.where):  # the place was left out: what stands there is the pattern
        given.key = [given.pattern, *given.key] if given.pattern else given.key
        given.where, given.pattern = None, given.where

    async def main(stop: asyncio.Event) -> None:
        async with opened(_settings(given)) as store:
            found: list[object] = [i.as_meta() for i in store.query(Query.parse(given.pattern))]
            for word in given.key:
                found = [row.get(word) if isinstance(row, dict) else None for row in found]
            print(json.dumps(found, indent=2, ensure_ascii=False))

    return run(main, verbose=False)


def watch(arguments: Sequence[str], prog: str = "fairway watch") -> int:
    parser = _parser(prog, "Prints who is there, then every change, until interrupted.")
    parser.add_argument("-v", "--verbose", action="store_true", help="the metadata as well")
    given = parser.parse_args(arguments)

    async def main(stop: asyncio.Event) -> None:
        settings = _settings(given)

        def show(changes: Sequence[Change]) -> None:
            try:
                for change in changes:
                    match change:
                        case Put(instance):
                            print(_line(instance, settings.json, verbose=given.verbose), flush=True)
                        case Gone(instance):
                            print(_line(instance, settings.json, "gone", given.verbose), flush=True)
            except BrokenPipeError:  # `fairway watch | head`: the reader has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                stop.set()

        async with opened(settings, show):
            await stop.wait()

    return run(main, verbose=False)


@asynccontextmanager
async def opened(settings: ReaderSettings, on_change: OnChange = lambda _: None) -> AsyncIterator[Store]:
    """A store whose copy is complete. Raises RegistryUnreachable if it is not within `wait_seconds`."""
    store = open_store(settings.registry, on_change, settings.credentials())
    try:
        await store.start()
        try:
            await store.wait_for(lambda: store.synced, settings.wait_seconds)
        except TimeoutError as error:
            raise RegistryUnreachable(_nobody(settings.registry)) from error
        if store.refusal:
            raise StoreRefused(store.refusal)
        yield store
    finally:
        await store.close()


def _nobody(registry: str) -> str:
    scheme, engine, rest = registry.partition("://")
    if engine:  # its login is nobody's business
        return f"{scheme}://{rest.rpartition('@')[2]} does not answer, or not to us: see the lines above"
    where = "127.0.0.1:12481, nor on the local network" if registry == AUTO else registry
    return f"no registry answers at {where}; start one with `fairway registry`"


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("where", nargs="?", metavar="HOST:PORT", help="the registry; as --registry")
    add_options(parser, ReaderSettings)
    return parser


def _settings(given: argparse.Namespace) -> ReaderSettings:
    if given.where:
        if not _is_place(given.where):
            raise ConfigurationError(f"{given.where!r} is no registry: expected PORT, HOST:PORT, or an engine's URL")
        given.registry = given.where
    return read_options(ReaderSettings, given)


def _is_place(text: str) -> bool:
    return "://" in text or text.isdigit() or text.rpartition(":")[2].isdigit()


def _line(instance: Instance, as_json: bool, state: str = "", verbose: bool = False) -> str:
    shown = state or ("disabled" if not instance.enabled else "suspect" if instance.suspect else instance.state)
    if as_json:
        more = {"meta": instance.as_meta()} if verbose else {}
        return json.dumps({"state": shown, "service": instance.service} | rows([instance])[0] | more)
    line = f"{shown:9} {instance.role:24} {instance.address!s:21} [{instance.id}]"
    return f"{line} {json.dumps(instance.as_meta(), ensure_ascii=False)}" if verbose else line
