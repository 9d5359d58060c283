"""Settings of `fairway bench load`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ...registry.errors import ConfigurationError
from ...registry.options import option
from ..config import Via
from .demand import SWEEP, Demand, closed, opened

PICTURES = (".svg", ".png")
AUTO = "auto"


@dataclass(frozen=True)
class LoadSettings:
    url: tuple[str, ...] = option(("http://127.0.0.1:12480",), "the proxy, or a worker; of several, each is measured")
    images: Path | None = option(None, "folder of pictures to upload; sub-folders are looked into")
    via: tuple[str, ...] = option(
        ("address",), "address, forward, redirect; several, comma separated, take turns in one run"
    )
    service: str = option("", "service to ask for; empty: the proxy's default")
    model: str = option("", "model to ask for; empty: a worker's only or default one", env="FAIRWAY_BENCH_MODEL")
    concurrency: tuple[str, ...] = option(
        (),
        "closed loop: numbers of clients, each waits for its answer; usually 1,2,4,8,16,32; none where --rate has numbers",
        env="FAIRWAY_BENCH_CONCURRENCY",
    )
    rate: tuple[str, ...] = option(
        (),
        "open loop: requests a second, at random (Poisson); auto: a quarter, a half, 75 and 90 % of the closed loop's peak",
        env="FAIRWAY_BENCH_RATE",
    )
    seconds: float = option(10.0, "of a window", env="FAIRWAY_BENCH_SECONDS")
    warm_up: float = option(
        2.0, "seconds that are not counted before a level's first window", env="FAIRWAY_BENCH_WARM_UP"
    )
    repeat_until_stable: bool = option(
        False, "windows until the last 3 agree within 5 %, at most 10; these 3 are reported together"
    )
    timeout_seconds: float = option(30.0, "for one image")
    max_in_flight: int = option(
        1000, "open loop: requests under way at once; one above it is an error", env="FAIRWAY_BENCH_MAX_IN_FLIGHT"
    )
    sample: int = option(200, "pictures, chosen at random if there are more; 0: all", env="FAIRWAY_BENCH_SAMPLE")
    seed: int = option(42, "of the choice and order of pictures, and of the arrivals", env="FAIRWAY_BENCH_SEED")
    json: Path | None = option(None, "write all figures to this file", env="FAIRWAY_BENCH_JSON")
    csv: Path | None = option(None, "write a line for each level to this file", env="FAIRWAY_BENCH_CSV")
    plot: Path | None = option(
        None, "draw latency against throughput to this file, .svg or .png", env="FAIRWAY_BENCH_PLOT"
    )

    def __post_init__(self) -> None:
        unknown = [via for via in self.via if via not in get_args(Via)]
        if unknown or not self.via:
            raise ConfigurationError(f"--via: {', '.join(unknown) or 'none'} will not do: address, forward, redirect")
        if not self.url:
            raise ConfigurationError("--url: the address of a proxy or a worker is needed")
        if self.images is None:
            raise ConfigurationError("--images: a folder of pictures to upload is needed")
        if not self.images.is_dir():
            raise ConfigurationError(f"--images: there is no folder {self.images}")
        if self.seconds <= 0 or self.timeout_seconds <= 0 or self.max_in_flight < 1:
            raise ConfigurationError("--seconds, --timeout-seconds and --max-in-flight: more than 0")
        for file in (self.json, self.csv, self.plot):  # not only after minutes of measuring
            if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
                raise ConfigurationError(f"{file} cannot be written: a file in a folder that exists is needed")
        if self.plot is not None and self.plot.suffix.lower() not in PICTURES:
            raise ConfigurationError(f"--plot: {self.plot} will not do: a name that ends with .svg or .png")
        if not self.clients and not self.rates:
            raise ConfigurationError("--concurrency none: then --rate must name rates")

    @property
    def clients(self) -> tuple[Demand, ...]:
        """The closed loop's levels. Raises ConfigurationError."""
        if self.concurrency == ("none",) or (not self.concurrency and self.rates):
            return ()
        return closed(_whole(text) for text in self.concurrency) if self.concurrency else closed(SWEEP)

    @property
    def rates(self) -> tuple[Demand, ...]:
        """The open loop's levels that are given as numbers. Raises ConfigurationError."""
        return () if self.to_peak else opened(_number(text) for text in self.rate)

    @property
    def to_peak(self) -> bool:
        """Whether the open loop's rates follow from what the closed loop finds."""
        return self.rate == (AUTO,)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:7]) <= 100_000):
        raise ConfigurationError(f"--concurrency: {text!r} will not do: whole numbers from 1 up, or none")
    return int(text)


def _number(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e6:
        raise ConfigurationError(f"--rate: {text!r} will not do: numbers above 0, or auto alone")
    return rate
