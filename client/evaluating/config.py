"""Settings of `fairway evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...registry.errors import ConfigurationError
from ...registry.options import option

Manner = Literal["auto", "address", "forward", "redirect"]
Protocol = Literal["auto", "fairway", "tfserving", "npy", "openinference"]
Pixels = Literal["0..1", "-1..1", "0..255"]


@dataclass(frozen=True)
class EvaluateSettings:
    """Names that mean something else to other commands (`model`, `labels`, `json`) have environment names of their own."""

    data: str = option(
        "",
        "a folder with one sub-folder a class, or of MNIST's files; or IMAGES[,LABELS], two idx files, gzipped or not",
        env="FAIRWAY_EVALUATE_DATA",
    )
    url: str = option(
        "http://127.0.0.1:12480",
        "a proxy, a worker, or the address a model answers at: http://HOST:PORT/v1/models/NAME:predict",
    )
    via: Manner = option(
        "auto",
        "address, forward or redirect, through a proxy; auto: by address where a proxy hands them out, else straight",
        env="FAIRWAY_EVALUATE_VIA",
    )
    protocol: Protocol = option(
        "auto",
        "fairway (uploads of pictures), tfserving (JSON), npy, openinference (binary); auto: by the address and the data",
        env="FAIRWAY_EVALUATE_PROTOCOL",
    )
    model: str = option("", "which model, where there are several", env="FAIRWAY_EVALUATE_MODEL")
    service: str = option("", "service to ask for; empty: the proxy's default")
    signature: str = option("", "signature to call; empty: the default one", env="FAIRWAY_EVALUATE_SIGNATURE")
    part: str = option(
        "", "train, val or all of the set; empty: val, or all where nothing says which is which", env="FAIRWAY_PART"
    )
    n: int = option(1000, "how many examples, drawn without replacement; all, if there are fewer", env="FAIRWAY_N")
    seed: int = option(42, "of the sample: the same seed and data, the same examples", env="FAIRWAY_EVALUATE_SEED")
    show: int = option(10, "how many examples are shown with their label and prediction", env="FAIRWAY_SHOW")
    concurrency: int = option(1, "requests under way at once", env="FAIRWAY_EVALUATE_CONCURRENCY")
    labels: str = option(
        "",
        "what the endpoint's class numbers mean: a file, one name a line; empty: the data's classes in order, or EMNIST's",
        env="FAIRWAY_EVALUATE_LABELS",
    )
    data_labels: str = option("", "what the numbers in an idx file of labels mean: a file, one name a line")
    shape: str = option(
        "",
        "what the model takes, e.g. 784, 28x28 or 28x28x1; empty: the endpoint is asked. With photos: they are resized to "
        "it here, rows x columns x channels, for endpoints that take no picture files",
    )
    pixels: Pixels = option(
        "0..1", "the range pixels are scaled to here, for models that take floats (--pixels=-1..1, with =)"
    )
    transpose: bool = option(False, "idx pictures are turned over their diagonal; EMNIST's own files lie so")
    picture: str = option("", "PNG to draw the shown examples to", env="FAIRWAY_EVALUATE_PICTURE")
    confusion: str = option("", "PNG to draw the confusion matrix to", env="FAIRWAY_EVALUATE_CONFUSION")
    json: str = option("", "file for all facts and every answer, as JSON", env="FAIRWAY_EVALUATE_JSON")
    timeout_seconds: float = option(30.0, "for one example, all attempts included")

    def __post_init__(self) -> None:
        if not self.data:
            raise ConfigurationError(
                "--data is required: a folder with one sub-folder a class, or an idx file of images"
            )
        if self.n < 1 or self.concurrency < 1:
            raise ConfigurationError("--n and --concurrency: at least 1")
        if not 0 <= self.seed < 2**32:
            raise ConfigurationError(f"--seed: {self.seed} will not do: a whole number below 2^32 is needed")
        _ = self.item_shape

    @property
    def item_shape(self) -> tuple[int, ...] | None:
        """`28x28x1` -> (28, 28, 1); None if nothing was said."""
        if not self.shape:
            return None
        sizes = self.shape.lower().split("x")
        if not all(size.isascii() and size.isdigit() and int(size[:9]) > 0 for size in sizes):
            raise ConfigurationError(f"--shape: {self.shape!r} will not do: sizes with x between them, e.g. 28x28x1")
        return tuple(int(size[:9]) for size in sizes)
