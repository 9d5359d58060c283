"""The EMNIST post's two measuring functions, by their names, arguments and definitions: its table can be repeated.

    eval_serving_performance(1000, 10, "http://127.0.0.1:5000/")
    eval_throughput(60, "http://127.0.0.1:8501/v1/models/emnist:predict", batch_size=128)

One sequential client. As in the post a request is JSON written and read by Python's own `json`, over a connection of its
own, unless `protocol` or `keep_alive` says otherwise. HTTP is http.client's, a little lighter than the post's `requests`.
Source: M. Kurovski, "From Exploration to Production" (2018), and the module emnist_dl2prod.utils that goes with it.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from ...worker.errors import ConfigurationError
from ...worker.tensor import Prediction
from ...worker.wire import answer
from ..errors import ClientError, Unreachable, WorkerFailed
from .endpoint import Input, as_items
from .forms import Binary, Form, Heard, Letter, Npy, Rows, Upload, only_scores
from .gallery import in_characters
from .labelled import Example, Pixels, emnist_names, read_pair, sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

Protocol = Literal["json", "tfserving", "npy", "openinference", "upload"]

TIMEOUT = 60.0  # seconds for one request
# Where the set may lie, the first that is there: NIST's own archive unpacked, and MNIST, which has the same form.
FILES = {
    "test": ("emnist-byclass-test-images-idx3-ubyte", "t10k-images-idx3-ubyte", "test-images-idx3-ubyte"),
    "train": ("emnist-byclass-train-images-idx3-ubyte", "train-images-idx3-ubyte", "train10k-images-idx3-ubyte"),
}


def eval_serving_performance(
    n_examples: int,
    n_print_examples: int,
    request_url: str,
    seed: int = 42,
    dataset: str = "test",
    use_graphpipe: bool = False,
    emnist_folder_path: str = "emnist_data/",
    *,
    protocol: Protocol = "json",
    keep_alive: bool = False,
) -> list[float]:
    """Sends `n_examples`, drawn without replacement, one by one -> milliseconds of each, to write, send, wait and read.

    Prints `Accuracy on N test images: P%`, and of the first `n_print_examples` picture, label and predicted label.

    protocol: json, the post's rows; tfserving, the same rows written and read by Fairway's own wire; npy, to a worker's
    `...:predict`; openinference, binary, to `.../v2/models/M/infer`; upload, a PNG as multipart, to a worker.
    Raises ConfigurationError for arguments or files that will not do, ClientError's children if an answer does not come.
    """
    _no_graphpipe(use_graphpipe)
    if n_examples < 1:
        raise ConfigurationError(f"n_examples {n_examples}: at least 1")
    data = load_emnist(emnist_folder_path, dataset)
    chosen = sample(data, n_examples, seed)
    if len(chosen) < n_examples:
        print(f"{n_examples} examples were asked for, and there are {len(chosen)}: all are taken")
    right, milliseconds = 0, []
    with _asking(request_url, protocol, keep_alive) as asking:
        for place, example in enumerate(chosen):
            began = time.perf_counter()
            heard = asking.ask([example])
            milliseconds.append((time.perf_counter() - began) * 1000)
            called = _called(heard, data)
            right += called == example.truth
            if place < n_print_examples:
                assert example.pixels is not None
                print(f"{in_characters(example.pixels)}\nLabel: {example.truth}\nPredicted Label: {called}")
    print(f"Accuracy on {len(chosen)} test images: {right / len(chosen):.2%}")
    return milliseconds


def eval_throughput(
    duration: float,
    request_url: str,
    batch_size: int = 1,
    dataset: str = "test",
    use_graphpipe: bool = False,
    emnist_folder_path: str = "emnist_data/",
    *,
    protocol: Protocol = "json",
    keep_alive: bool = False,
) -> tuple[int, float]:
    """Sends batches one after the other for `duration` seconds -> (examples sent, examples per second).

    Consecutive slices of the set, from its beginning again when it is over. Examples are counted, not requests, and their
    number is divided by the duration as given, although the last answer may come a little later: the post's definition.
    `protocol` and errors as in `eval_serving_performance`; an upload holds one picture, so that goes with batch_size=1.
    """
    _no_graphpipe(use_graphpipe)
    if duration <= 0 or batch_size < 1:
        raise ConfigurationError(f"duration {duration:g}, batch_size {batch_size}: more than 0, and at least 1")
    if protocol == "upload" and batch_size > 1:
        raise ConfigurationError("an upload is one picture: batch_size=1, or another protocol")
    data = load_emnist(emnist_folder_path, dataset)
    if batch_size > len(data):
        raise ConfigurationError(f"batch_size {batch_size}: the set has {len(data)} examples")
    num_reqs = at = 0
    with _asking(request_url, protocol, keep_alive) as asking:
        end = time.perf_counter() + duration
        while time.perf_counter() < end:
            if at + batch_size > len(data):
                at = 0
            heard = asking.ask([data[index] for index in range(at, at + batch_size)])
            if heard.scores is not None and len(heard.scores) != batch_size:
                raise WorkerFailed(f"{batch_size} examples were sent, and {len(heard.scores)} answers came back")
            at += batch_size
            num_reqs += batch_size
    reqs_per_second = num_reqs / duration
    print(
        f"Throughput Summary:\nURL: {request_url}\nDuration: {duration:g}\nTotal Requests: {num_reqs}\n"
        f"Requests/Second: {reqs_per_second:.2f}"
    )
    return num_reqs, reqs_per_second


def load_emnist(folder: str, dataset: str = "test") -> Pixels:
    """The set's idx files: EMNIST by class, or MNIST, gzipped or not, in the folder or in `gzip/` below it.

    EMNIST's files hold their pictures turned over the diagonal; they are turned back, as the post's loader did by
    order='A', so that all stand upright. Raises ConfigurationError.
    """
    if dataset not in FILES:
        raise ConfigurationError(f"dataset {dataset!r}: expected test or train")
    base = Path(folder)
    for place in (base, base / "gzip"):
        for name in FILES[dataset]:
            for path in (place / f"{name}.gz", place / name):
                if path.is_file():
                    images, labels = read_pair(path)
                    turned = images.transpose(0, 2, 1) if name.startswith("emnist") else images
                    names = emnist_names(name, int(labels.max()))
                    return Pixels(np.ascontiguousarray(turned), labels, names, dataset, str(path))
    matlab = "; emnist-byclass.mat is not read: take NIST's gzip.zip" if list(base.glob("*.mat")) else ""
    raise ConfigurationError(f"{folder}: no {FILES[dataset][0]}.gz in it, and no {FILES[dataset][1]}.gz{matlab}")


class _PostRows(Rows):
    """As the post writes and reads them: what Python's json takes is part of what it measured."""

    def of_pixels(self, batch: NDArray[Any]) -> Letter:
        return Letter(json.dumps({"instances": batch.tolist()}).encode(), {"Content-Type": "application/json"})

    def read(self, headers: Any, body: bytes) -> Heard:
        return Heard(only_scores({"": np.asarray(json.loads(body)["predictions"], np.float64)}))


class _Asking:
    """One sequential client of one URL."""

    def __init__(self, url: str, form: Form, keep_alive: bool) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname:
            raise ConfigurationError(f"{url!r} is no address; expected http://HOST:PORT/...")
        self._url, self._form = url, form
        self._connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=TIMEOUT)
        self._target = (parts.path or "/") + (form.query or (f"?{parts.query}" if parts.query else ""))
        self._closing = {} if keep_alive else {"Connection": "close"}

    def ask(self, examples: list[Example]) -> Heard:
        if isinstance(self._form, Upload):
            letter = self._form.of_picture(examples[0].picture())
        else:
            images = np.stack([example.pixels for example in examples if example.pixels is not None])
            letter = self._form.of_pixels(as_items(images, Input()))
        try:
            self._connection.request("POST", self._target, letter.body, letter.headers | self._closing)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"no answer from {self._url}: {error}") from error
        if self._closing:
            self._connection.close()
        if response.status != 200:
            raise WorkerFailed(f"{self._url} answered {response.status}: {answer.decode_error(body)}")
        try:
            return self._form.read(response.headers, body)
        except (ValueError, KeyError, TypeError) as error:
            raise WorkerFailed(f"{self._url} answered 200, but not with scores: {error}") from error

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _asking(url: str, protocol: Protocol, keep_alive: bool) -> Iterator[_Asking]:
    forms: dict[str, Callable[[], Form]] = {
        "json": _PostRows, "tfserving": Rows, "npy": Npy, "openinference": lambda: Binary(_only_input(url)),
        "upload": Upload,
    }  # fmt: skip
    if protocol not in forms:
        raise ConfigurationError(f"protocol {protocol!r}: expected {', '.join(forms)}")
    asking = _Asking(url, forms[protocol](), keep_alive)
    try:
        yield asking
    finally:
        asking.close()


def _only_input(url: str) -> str:
    """The name of the input of the model at `.../v2/models/M/infer`; asked before the time runs."""
    model, _, verb = url.rpartition("/")
    try:
        with urllib.request.urlopen(model if "://" in model else f"http://{model}", timeout=TIMEOUT) as said:
            names = [tensor["name"] for tensor in json.load(said)["inputs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{url}: expected http://HOST:PORT/v2/models/NAME/infer ({error})") from error
    if verb != "infer" or len(names) != 1:
        raise ConfigurationError(f"{url}: expected the address .../infer of a model of one input; it has {names}")
    return str(names[0])


def _called(heard: Heard, data: Pixels) -> str:
    """The best class's name: of EMNIST's alphabet by its number, or as a worker says it."""
    if heard.scores is None:
        prediction: Prediction | None = heard.prediction
        assert prediction is not None
        return prediction.label
    count = heard.scores.shape[1]
    names = emnist_names(Path(data.of).name, max(count - 1, len(data.classes) - 1))
    best = int(heard.scores[0].argmax())
    return names[best] if best < len(names) else str(best)


def _no_graphpipe(use_graphpipe: bool) -> None:
    if use_graphpipe:
        raise ConfigurationError(
            "use_graphpipe: GraphPipe is not spoken here, and its servers are no longer kept; for a binary form say "
            "protocol='npy' or protocol='openinference'"
        )


__all__ = ["ClientError", "ConfigurationError", "eval_serving_performance", "eval_throughput", "load_emnist"]
