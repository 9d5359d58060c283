"""One set of tests that every runtime passes, with every kind of model it reads, and with those converted for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.errors import ConfigurationError
from fairway.worker.runtimes import RUNTIMES, Converted, Opened, Options, open_converted, open_source, reads
from fairway.worker.source import Source, find_source

from . import makers

THREADS = 2

MAKERS: dict[str, makers.Maker] = {
    "savedmodel": makers.saved_model,
    "frozen": makers.frozen,
    "keras": makers.keras_file,
    "tflite": makers.tflite,
    "onnx": makers.onnx_file,
    "ir": makers.ir,
    "torchscript": makers.torch_script,
    "torchexport": makers.torch_export,
    "python": makers.python_module,
}
CONVERTED = ["litert", "onnx", "openvino"]
CASES = [
    *((runtime, kind, False) for kind in MAKERS for runtime in reads(kind)),  # type: ignore[arg-type]
    *((runtime, kind, True) for runtime in CONVERTED for kind in ("savedmodel", "keras")),
]

Open = Callable[..., Opened]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}{'-converted' if case[2] else ''}")
def case(request: pytest.FixtureRequest) -> tuple[str, str, bool]:
    runtime, kind, converted = request.param
    pytest.importorskip(RUNTIMES[runtime][0] or "sys")
    if converted and runtime == "onnx":
        pytest.importorskip("tf2onnx")
    return runtime, kind, converted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, float], Source]:
    """(kind, model, number) -> that model, made once."""

    @cache
    def make(kind: str, model: str, number: float) -> Source:
        folder = tmp_path_factory.mktemp(f"{kind}-{model}-{number:g}")
        return find_source(MAKERS[kind](folder, model, number), WorkerSettings())

    return make


@pytest.fixture(scope="module")
def converted(made: Callable[..., Source], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Converted]:
    """(runtime, kind, model, number) -> that model for that runtime, converted once."""

    @cache
    def make(runtime: str, kind: str, model: str, number: float) -> Converted:
        from fairway.worker.runtimes import conversion, tensorflow_graphs

        graphs = tensorflow_graphs.read(made(kind, model, number), Options(THREADS))
        files = conversion.convert(graphs, runtime, tmp_path_factory.mktemp(f"{runtime}-{kind}-{model}-{number:g}"))
        signatures = {name: function.signature for name, function in graphs.functions.items()}
        return Converted(files, signatures, graphs.default)

    return make


@pytest.fixture
def opened(
    case: tuple[str, str, bool], made: Callable[..., Source], converted: Callable[..., Converted]
) -> Iterator[Open]:
    """Opens one of the models of makers.py."""
    runtime, kind, conversion = case
    models: list[Opened] = []

    def make(model: str, number: float = 3.0, keep: bool = True) -> Opened:
        if conversion:
            loaded = open_converted(runtime, converted(runtime, kind, model, number), Options(THREADS))
        else:
            loaded = open_source(runtime, made(kind, model, number), Options(THREADS))
        if keep:
            models.append(loaded)
        return loaded

    yield make
    for loaded in models:
        loaded.close()


def pictures(count: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(count).integers(1, 256, (count, 4, 4, 3)).astype(dtype)


def shares(images: Any) -> Any:
    amounts = images.astype(np.float32).sum((1, 2))
    return amounts / amounts.sum(1, keepdims=True)


def run(loaded: Opened, *arrays: Any, wide: bool = False) -> list[Any]:
    """Inputs in the order of the signature, outputs by the order of their names."""
    inputs = dict(zip(named_inputs(loaded), arrays, strict=True))
    results = loaded.run(inputs, loaded.default, wide)
    signature = loaded.signatures[loaded.default]
    assert set(results) == {spec.name for spec in signature.outputs}
    return [results[name] for name in sorted(results)]


def named_inputs(loaded: Opened) -> list[str]:
    return sorted(spec.name for spec in loaded.signatures[loaded.default].inputs)


def test_right_answers_of_any_number_of_items(opened: Open) -> None:
    loaded = opened("shares")
    assert loaded.signatures[loaded.default].batch == 0
    for count in (1, 7, 2, 33, 1):
        images = pictures(count)
        (scores,) = run(loaded, images)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, shares(images), atol=1e-6)


def test_signatures_say_names_dtypes_and_shapes(opened: Open, case: tuple[str, str, bool]) -> None:
    loaded = opened("shares")
    signature = loaded.signatures[loaded.default]
    ((image,), (scores,)) = signature.inputs, signature.outputs
    assert (signature.name, loaded.default, signature.method) == ("serving_default", "serving_default", "predict")
    assert (image.dtype, scores.dtype) == ("float32", "float32")
    if case[1] == "torchscript":  # tells neither shapes nor what its outputs are called
        assert (image.name, image.shape, scores.name, scores.shape) == ("image", None, "output", None)
        return
    assert image.shape == (None, 4, 4, 3)
    assert scores.shape in ((None, 3), (None, None))
    if case not in (("openvino", "frozen", False), ("openvino", "tflite", False)):  # it has names of its own for them
        assert (image.name, scores.name) == ("image", "output" if case[0] == "torch" else "scores")


def test_several_threads_at_once(opened: Open) -> None:
    """As many as there are streams; each sees its own answers."""
    loaded = opened("shares")
    assert loaded.streams >= 1
    wrong: list[str] = []

    def work(number: int) -> None:
        try:
            for turn in range(40):
                images = pictures(1 + (turn + number) % 3) + number
                if not np.allclose(run(loaded, images)[0], shares(images), atol=1e-6):
                    wrong.append(f"thread {number}, turn {turn}")
        except Exception as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(loaded.streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_answers_outlive_the_next_call(opened: Open) -> None:
    loaded = opened("shares")
    first = run(loaded, pictures(2))[0]
    run(loaded, pictures(2) * 0 + 1)
    np.testing.assert_allclose(first, shares(pictures(2)), atol=1e-6)


def test_wide_calls_answer_the_same(opened: Open) -> None:
    loaded = opened("shares")
    images = pictures(5)
    np.testing.assert_allclose(run(loaded, images, wide=True)[0], shares(images), atol=1e-6)
    np.testing.assert_allclose(run(loaded, images)[0], shares(images), atol=1e-6)


def test_bytes_of_pixels(opened: Open, case: tuple[str, str, bool]) -> None:
    loaded = opened("bytes")
    images = pictures(3, "uint8")
    if case[1] != "torchscript":
        assert loaded.signatures[loaded.default].inputs[0].dtype == "uint8"
    np.testing.assert_allclose(run(loaded, images)[0], shares(images), atol=1e-6)


def test_several_inputs_and_outputs(opened: Open, case: tuple[str, str, bool]) -> None:
    loaded = opened("pair")
    large = 2**30 - 1 if case[0] == "openvino" else 2**40
    a, b = np.array([[1.5, 2], [3, 4]], np.float32), np.array([[10, large], [-3, 40]], np.int64)
    total, twice = run(loaded, a, b)
    np.testing.assert_allclose(total, a + b, rtol=1e-6)
    np.testing.assert_array_equal(twice, 2 * b)
    assert (total.dtype, twice.dtype) == (np.float32, np.int64)
    if case[0] == "openvino":  # counts in 32 bits: it must say so
        with pytest.raises(ValueError, match="cannot count with"):
            run(loaded, a, b + 2**31)
    signature = loaded.signatures[loaded.default]
    assert signature.batch == 0
    if case == ("openvino", "tflite", False):
        return  # it has names of its own for them
    assert {spec.name for spec in signature.inputs} == {"a", "b"}
    if case[0] != "torch":
        assert {spec.name: spec.dtype for spec in signature.outputs} == {"total": "float32", "twice": "int64"}


def test_exactly_one_picture(opened: Open, case: tuple[str, str, bool]) -> None:
    loaded = opened("one")
    if case[1] != "torchscript":
        assert loaded.signatures[loaded.default].batch == 1
    np.testing.assert_allclose(run(loaded, pictures(1))[0], shares(pictures(1)), atol=1e-6)


def test_texts(opened: Open, case: tuple[str, str, bool]) -> None:
    if case[0] not in ("tensorflow", "onnx", "python") or case[2] or case[1] == "keras":
        pytest.skip("it has no such tensors")
    loaded = opened("text")
    assert loaded.signatures[loaded.default].inputs[0].dtype == "bytes"
    texts = np.array([b"daisy", b"", "Gänse".encode()], object)
    assert run(loaded, texts)[0].tolist()[:2] == [b"DAISY", b""]


def test_two_models_of_one_kind(opened: Open) -> None:
    """Their tensors have the same names."""
    two, five = opened("scaled", 2.0), opened("scaled", 5.0)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    for _ in range(3):
        np.testing.assert_allclose(run(two, x)[0], 2 * x)
        np.testing.assert_allclose(run(five, x)[0], 5 * x)


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 4, 4), (0, 3)])
def test_other_shapes_are_refused(opened: Open, case: tuple[str, str, bool], shape: tuple[int, ...]) -> None:
    if case[0] in ("torch", "python") and shape == (2, 5, 4, 3):
        pytest.skip("it sums whatever comes")
    loaded = opened("shares")
    with pytest.raises(Exception):  # noqa: B017, PT011  (whatever the runtime raises)
        run(loaded, np.ones(shape, np.float32))
    np.testing.assert_allclose(run(loaded, pictures(1))[0], shares(pictures(1)), atol=1e-6)


def resident() -> float:
    """MB of this process that are not files'."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell what a process holds")
def test_closing_gives_memory_back(opened: Open) -> None:
    """Weights of 16 MB. Libraries keep the last few models' memory for the next ones, some more and some less of it: that
    does not grow with their number.
    """
    x = np.ones((1, makers.BULK), np.float32)
    held = []
    for closed in range(1, 41):
        loaded = opened("bulky", 100.0, keep=False)
        run(loaded, x)
        run(loaded, x, wide=True)
        loaded.close()
        del loaded
        held.append(resident())
        since = closed - 3  # the first ones bring what a library keeps once for all
        if since >= 7 and held[-1] - held[2] < since * 16 / 2:
            return
    pytest.fail(f"MB held after each of them: {[round(mb) for mb in held]}")


def test_what_is_no_model_is_named(case: tuple[str, str, bool], tmp_path: Path) -> None:
    runtime, kind, converted = case
    if converted:
        pytest.skip("there is nothing to convert")
    if kind == "python":
        wanted = "python:json:nowhere"
    else:
        suffix = {"savedmodel": "broken/saved_model.pb", "ir": "broken.xml", "torchscript": "broken.pt"}
        suffix |= {"torchexport": "broken.pt2", "frozen": "broken.pb"}
        path = tmp_path / suffix.get(kind, f"broken.{kind}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x0a\xff\xff\xff\xff\xff\xff\xff")
        wanted = str(path)
    source = find_source(wanted, WorkerSettings())
    with pytest.raises(ConfigurationError, match=r"broken|json:nowhere"):
        open_source(runtime, source, Options(THREADS))


def test_every_engine_is_tested() -> None:
    assert {runtime for runtime, _, _ in CASES} == set(RUNTIMES)
