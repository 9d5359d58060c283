"""One frozen dataclass of settings per role; the command line and the environment are both read from it.

A field is written once, with its default, its unit in its name, and its help:

    port: int = option(12481, "TCP port to listen on")

gives `--port`, and `FAIRWAY_PORT` for when the flag is not there. The command line wins over the environment, and the
environment over the default. A flag shared by two roles means the same thing in both.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .errors import ConfigurationError

T = TypeVar("T")


def option(default: Any, help: str, env: str = "") -> Any:
    """A field of a settings class. `env`: another environment name than FAIRWAY_ + the field's."""
    return field(default=default, metadata={"help": help, "env": env})


def add_options(parser: argparse.ArgumentParser, settings: type) -> None:
    """One flag a field. Types are read from the annotations: int, float, bool, str, Path, Literal, tuple[str, ...]."""
    hints = get_type_hints(settings)
    for f in fields(settings):
        if "help" not in f.metadata:
            continue
        kind, flag = hints[f.name], "--" + f.name.replace("_", "-")
        default = ",".join(f.default) if isinstance(f.default, tuple) else f.default
        shown = "none" if default in ("", None) else default
        text = f"{f.metadata['help']} (default: {shown}; {environment_name(f)})".replace("%", "%%")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            metavar = "|".join(get_args(kind)) if get_origin(kind) is Literal else f.name.rpartition("_")[2].upper()
            parser.add_argument(flag, default=None, help=text, metavar=metavar)


def read_options(settings: type[T], given: argparse.Namespace, environment: Mapping[str, str] | None = None) -> T:
    """Command line, else environment, else default. Raises ConfigurationError naming the option at fault."""
    environment = os.environ if environment is None else environment
    hints = get_type_hints(settings)
    values: dict[str, Any] = {}
    for f in fields(settings):  # type: ignore[arg-type]
        raw = getattr(given, f.name, None)
        source = "--" + f.name.replace("_", "-")
        if raw is None and "help" in f.metadata and environment_name(f) in environment:
            source = environment_name(f)
            raw = environment[source]
        if raw is not None:
            values[f.name] = _convert(raw, hints[f.name], source)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ConfigurationError(f"{source} is required")
    return settings(**values)


def environment_name(f: Any) -> str:
    return str(f.metadata["env"] or "FAIRWAY_" + f.name.upper())


def _convert(raw: Any, kind: Any, source: str) -> Any:
    if not isinstance(raw, str):
        return raw
    if get_origin(kind) is UnionType:  # `int | None`: what is given is the int
        kind = next(part for part in get_args(kind) if part is not type(None))
    try:
        if get_origin(kind) is Literal:
            if raw not in get_args(kind):
                raise ValueError(f"one of {', '.join(get_args(kind))}")
            return raw
        if get_origin(kind) is tuple:
            return tuple(part.strip() for part in raw.split(",") if part.strip())
        if kind is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}[
                raw.lower()
            ]
        if kind in (int, float):
            number = kind(raw)
            if not 0 <= number < math.inf:  # counts, sizes, seconds: none of ours is negative or endless
                raise ValueError(raw)
            return number
        return Path(raw) if kind is Path else raw
    except (ValueError, KeyError) as error:
        wanted = {int: "a whole number from 0 up", float: "a number from 0 up", bool: "yes or no"}.get(kind, str(error))
        raise ConfigurationError(f"{source}: {raw!r} will not do: {wanted} is needed") from error
