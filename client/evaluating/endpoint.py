"""Who is asked, in which form: an address and what it says of itself -> an endpoint that examples can be put to.

A proxy, a worker, TensorFlow Serving, a server of the Open Inference Protocol, or a web service as the EMNIST post has it:
what is not said on the command line, the endpoint is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import numpy as np

from ...worker.errors import ConfigurationError
from ..client import Client
from ..config import Via
from ..courier import Parcel
from .config import EvaluateSettings
from .forms import Binary, Form, Heard, Npy, Rows, Upload
from .inquiry import Inquiry
from .labelled import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
Kind = Literal["photos", "pixels"]

SERVING = re.compile(r"(?P<base>.*?)/?(?P<path>v1/models/[^/:]+(?:/(?:versions|labels)/[^/:]+)?):(?P<verb>\w+)")
INFERENCE = re.compile(r"(?P<base>.*?)/?(?P<path>v2/models/[^/]+(?:/versions/[^/]+)?)/infer")
# What TensorFlow Serving and the Open Inference Protocol call dtypes -> NumPy's; the rest is no number we send.
DTYPES = {
    "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_HALF": "float16", "DT_UINT8": "uint8", "DT_INT8": "int8",
    "DT_INT16": "int16", "DT_INT32": "int32", "DT_INT64": "int64", "DT_STRING": "bytes",
    "FP32": "float32", "FP64": "float64", "FP16": "float16", "UINT8": "uint8", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "BYTES": "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class Input:
    """What a model takes: `shape` of one item, with None for a size that is open; None as a whole: it is not known."""

    name: str = ""
    dtype: str = "float32"
    shape: tuple[int | None, ...] | None = None


class Bearer(Client):
    """A client that carries any parcel, in its manner and with its patience."""

    async def carry(self, parcel: Parcel[T]) -> T:
        return await self._deliver(parcel)


Prepared = bytes | np.ndarray[Any, Any]  # a picture file, or (1, rows, columns[, channels]) of pixels


class Endpoint:
    """A context manager. `path`: below the server's root; `what`: the manner and the form, in words.

    `input`: what the model takes, where pixels are sent as numbers; None where picture files are.
    """

    def __init__(
        self, base: str, path: str, via: Via, form: Form, input: Input | None, settings: EvaluateSettings, what: str
    ) -> None:
        self.base, self.path, self.via, self.what = base, path, via, what
        self._form, self._input, self._range, self._resize = form, input, settings.pixels, settings.item_shape
        self._client = Bearer(base, via=via, service=settings.service, timeout=settings.timeout_seconds)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def prepare(self, example: Example) -> Prepared:
        """What does not belong to a request: the file is read, and resized if the endpoint takes none. Raises OSError."""
        if self._input is None:
            return example.picture()
        if example.pixels is not None:
            return example.pixels[None]
        return example.resized(*as_photo(self._resize))[None]

    async def ask(self, prepared: Prepared) -> Heard:
        """Raises ClientError's children, and ConfigurationError."""
        if isinstance(prepared, bytes):
            letter = self._form.of_picture(prepared)
        else:
            assert self._input is not None
            letter = self._form.of_pixels(as_items(prepared, self._input, self._range))
        path = self.path + self._form.query
        return await self._client.carry(Parcel(path, letter.body, letter.headers, self._form.read, "scores"))


def as_photo(shape: tuple[int, ...] | None) -> tuple[int, int, int]:
    """Rows, columns and channels of --shape, for photos. Raises ConfigurationError."""
    match shape:
        case (int(rows), int(columns)):
            return rows, columns, 1
        case (int(rows), int(columns), 1 | 3 as channels):
            return rows, columns, channels
    raise ConfigurationError("--shape, with photos: ROWSxCOLUMNSx3 or ROWSxCOLUMNSx1 is needed")


def as_items(images: NDArray[np.uint8], wanted: Input, range: str = "0..1") -> NDArray[Any]:
    """(n, rows, columns) of pixels -> (n, ...) as the model takes them. Raises ConfigurationError if they do not fit.

    Scaled to `range` for models that take floats; others get 0..255.
    """
    count, have = len(images), images.shape[1:]
    shape = _closed(wanted.shape or (None,), have)
    if prod(shape) != prod(have):
        takes, has = ("x".join(map(str, sizes)) for sizes in (shape, have))
        raise ConfigurationError(
            f"the model takes {takes}, and the pictures are {has}; --protocol fairway uploads them as pictures, "
            "--shape says better what it takes"
        )
    dtype = np.dtype(wanted.dtype)
    pixels = np.ascontiguousarray(images).reshape(count, *shape)
    if dtype.kind != "f" or range == "0..255":
        return pixels.astype(dtype)
    scaled = pixels.astype(np.float32) / np.float32(255)
    return (scaled * 2 - 1 if range == "-1..1" else scaled).astype(dtype, copy=False)


def _closed(shape: tuple[int | None, ...], have: tuple[int, ...]) -> tuple[int, ...]:
    """Open sizes filled in: one of them takes what is left, several those of the pictures, in order."""
    known = prod(size for size in shape if size is not None)
    if shape.count(None) == 1:
        return tuple(max(prod(have) // known, 1) if size is None else size for size in shape)
    sizes = [*have, *[1] * len(shape)]
    return tuple(sizes[place] if size is None else size for place, size in enumerate(shape))


async def find_endpoint(settings: EvaluateSettings, kind: Kind) -> Endpoint:
    """Reads the address, and asks there for what nobody said. Raises ConfigurationError: nobody there, no such model."""
    url = settings.url if "://" in settings.url else f"http://{settings.url}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigurationError(f"--url: {settings.url!r} is no address; expected http://HOST:PORT, or a model's own")
    async with Inquiry(settings) as inquiry:
        return await _Finder(settings, kind, inquiry).find(url.rstrip("/"))


class _Finder:
    def __init__(self, settings: EvaluateSettings, kind: Kind, inquiry: Inquiry) -> None:
        self._settings, self._kind, self._inquiry = settings, kind, inquiry

    @property
    def _as_files(self) -> bool:
        """Whether picture files are sent; else pixels."""
        if self._kind == "photos" and self._settings.item_shape:
            as_photo(self._settings.item_shape)
            return False
        return self._kind == "photos"

    async def find(self, url: str) -> Endpoint:
        settings = self._settings
        if match := SERVING.fullmatch(url):
            return await self._own_address(url, match["base"], match["path"], match["verb"])
        if match := INFERENCE.fullmatch(url):
            self._agree("openinference")
            self._inquiry.base = match["base"]
            return await self._openinference(match["base"], match["path"], "forward")
        base, _, path = url.partition("://")[2].partition("/")
        base = f"{url.partition('://')[0]}://{base}"
        if path:  # a service of its own kind, taken at its word
            if settings.via in ("address", "redirect"):
                raise ConfigurationError(f"--via {settings.via} is for a proxy's address, without a path; it is {url}")
            return self._plain(base, path, "forward")
        via = await self._inquiry.manner(base)
        protocol = settings.protocol
        if protocol == "auto" and self._as_files:
            protocol = "fairway"
        if protocol == "fairway":
            path = f"v1/models/{quote(settings.model, safe='')}:image" if settings.model else ""
            return self._endpoint(base, path, via, Upload(), None, "uploads")
        name = settings.model or await self._only_model()
        if not name and protocol == "auto":
            return self._plain(base, "", via)
        if not name:
            raise ConfigurationError(f"{base} does not tell which models it has; say --model NAME")
        if protocol == "openinference":
            return await self._openinference(base, f"v2/models/{quote(name, safe='')}", via)
        return await self._serving(base, f"v1/models/{quote(name, safe='')}", via)

    async def _own_address(self, url: str, base: str, path: str, verb: str) -> Endpoint:
        if self._settings.via in ("address", "redirect"):
            raise ConfigurationError(f"--via {self._settings.via} is for a proxy's address: --url {base} --model NAME")
        self._inquiry.base = base
        if verb == "image":
            self._agree("fairway")
            return self._endpoint(base, f"{path}:image", "forward", Upload(), None, "uploads")
        if verb != "predict":
            raise ConfigurationError(f"{url}: accuracy is measured by predict: {base}/{path}:predict")
        self._agree("tfserving", "npy")
        return await self._serving(base, path, "forward")

    async def _serving(self, base: str, path: str, via: Via) -> Endpoint:
        name = self._settings.signature
        npy = self._settings.protocol == "npy"
        form: Form = Npy(name) if npy else Rows(name)
        what = ".npy" if npy else "TensorFlow Serving's JSON"
        wanted = None if self._as_files else await self._of_metadata(path, name)
        return self._endpoint(base, f"{path}:predict", via, form, wanted, what)

    async def _of_metadata(self, path: str, name: str) -> Input | None:
        """What a signature takes; None if that is picture files."""
        said = await self._inquiry.json(f"{path}/metadata")
        if said is None:
            return Input(shape=self._settings.item_shape)  # a service that answers as TensorFlow Serving, and no more
        try:
            signatures = said["metadata"]["signature_def"]["signature_def"]
            wanted = name or ("serving_default" if "serving_default" in signatures else min(signatures))
            if wanted not in signatures:
                raise ConfigurationError(
                    f"--signature: there is no {wanted!r}; there is {', '.join(sorted(signatures))}"
                )
            inputs = signatures[wanted]["inputs"]
            shapes = {key: value.get("tensor_shape", {}) for key, value in inputs.items()}
            sizes = {
                key: None if shape.get("unknown_rank") else [int(dim["size"]) for dim in shape.get("dim", ())]
                for key, shape in shapes.items()
            }
            return self._input({key: (value["dtype"], sizes[key]) for key, value in inputs.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"{self._inquiry.base}/{path}/metadata is not TensorFlow Serving's") from error

    async def _openinference(self, base: str, path: str, via: Via) -> Endpoint:
        said = await self._inquiry.json(path)
        if said is None:
            raise ConfigurationError(f"{self._inquiry.base}/{path} tells nothing of a model's inputs")
        try:
            inputs = {
                tensor["name"]: (tensor["datatype"], list(map(int, tensor["shape"]))) for tensor in said["inputs"]
            }
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{self._inquiry.base}/{path} is not the Open Inference Protocol's") from error
        what = "the Open Inference Protocol, binary"
        if self._as_files:
            files = [name for name, (datatype, _) in inputs.items() if datatype == "BYTES"]
            name = files[0] if len(files) == 1 else next(iter(inputs)) if len(inputs) == 1 else "image"
            return self._endpoint(base, f"{path}/infer", via, Binary(name), None, what)
        wanted = self._input(inputs)
        name = wanted.name if wanted else next(iter(inputs))
        return self._endpoint(base, f"{path}/infer", via, Binary(name), wanted, what)

    def _plain(self, base: str, path: str, via: Via) -> Endpoint:
        if self._as_files and self._settings.protocol in ("auto", "fairway"):
            return self._endpoint(base, path, via, Upload(), None, "uploads")
        if self._settings.protocol not in ("auto", "tfserving"):
            raise ConfigurationError(
                f"--protocol {self._settings.protocol} needs a model's address; {base}/{path} is none"
            )
        wanted = None if self._as_files else Input(shape=self._settings.item_shape)
        form = Rows(self._settings.signature)
        return self._endpoint(base, path, via, form, wanted, "TensorFlow Serving's JSON, as the EMNIST post sends it")

    def _endpoint(self, base: str, path: str, via: Via, form: Form, input: Input | None, what: str) -> Endpoint:
        manners = {"address": "by address", "forward": "straight", "redirect": "by redirect"}
        through = "through the proxy" if via == "forward" and self._inquiry.behind_proxy else manners[via]
        return Endpoint(base, path, via, form, input, self._settings, f"{through}; {what}")

    def _input(self, inputs: Mapping[str, tuple[str, Sequence[int] | None]]) -> Input | None:
        """The only one there is. None: it takes picture files."""
        if len(inputs) != 1:
            raise ConfigurationError(f"the model has {len(inputs)} inputs ({', '.join(inputs)}); pictures go to one")
        ((name, (datatype, sizes)),) = inputs.items()
        dtype = DTYPES.get(datatype)
        if dtype is None:
            raise ConfigurationError(f"the model's input {name!r} is {datatype}; pictures are numbers or files")
        if dtype == "bytes":
            return None
        item = (
            tuple(size if size > 0 else None for size in sizes[1:]) if sizes else ()
        )  # the first dimension counts items
        said = (
            self._settings.item_shape
        )  # of photos it is the size they are made, and not yet the form they are sent in
        return Input(name, dtype, (item or said if self._kind == "photos" else said or item) or None)

    async def _only_model(self) -> str:
        """The name of the only model that a server of ours has; empty if it does not tell."""
        said = await self._inquiry.json("v1/models")
        models = said.get("models") if said else None
        if not isinstance(models, list) or not all(
            isinstance(m, dict) and isinstance(m.get("name"), str) for m in models
        ):
            return ""
        names = [model["name"] for model in models]
        if len(names) > 1:
            raise ConfigurationError(f"it serves {', '.join(names)}: which one? Say --model NAME")
        return "".join(names)

    def _agree(self, *protocols: str) -> None:
        if self._settings.protocol not in ("auto", *protocols):
            raise ConfigurationError(
                f"--protocol {self._settings.protocol} is not what that address speaks: {protocols[0]}"
            )
