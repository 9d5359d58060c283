"""TensorFlow's own models behind TensorFlow Serving's REST API: examples that they parse; the EMNIST article's model."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.config import WorkerSettings
from fairway.worker.loading import load_model
from fairway.worker.model import Model
from fairway.worker.wire import examples, tfserving

from .half_plus_two import Site, serving

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
v1 = tf.compat.v1

FLOATS = st.floats(allow_nan=False, width=32)
FEATURES = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.lists(FLOATS, max_size=4),
    st.lists(st.binary(max_size=300), max_size=4),
)


@given(st.dictionaries(st.text(max_size=5), FEATURES, max_size=4))
def test_examples_are_written_as_tensorflow_reads_them(example: dict[str, list[Any]]) -> None:
    found = tf.train.Example.FromString(examples.serialized(example)).features.feature
    assert found.keys() == example.keys()
    for name, values in example.items():
        kind = found[name].WhichOneof("kind")
        assert (list(getattr(found[name], kind).value) if kind else []) == values


def build(folder: Path) -> Path:
    """TensorFlow Serving's example, with signatures of the two kinds that take serialised examples."""
    with v1.Graph().as_default(), v1.Session() as session:
        serialised = v1.placeholder(tf.string, (None,), "examples")
        known = {
            "x": v1.FixedLenFeature((1,), tf.float32),
            "more": v1.FixedLenFeature((1,), tf.int64, [2]),
            "word": v1.FixedLenFeature((1,), tf.string, ""),
        }
        parsed = v1.parse_example(serialised, known)
        y = tf.identity(parsed["x"] / 2 + tf.cast(parsed["more"], tf.float32))
        info = v1.saved_model.build_tensor_info
        inputs = {"inputs": info(serialised)}
        signature = v1.saved_model.signature_def_utils.build_signature_def
        classify, regress = "tensorflow/serving/classify", "tensorflow/serving/regress"
        words = tf.concat([parsed["word"], tf.strings.upper(parsed["word"])], axis=1)
        scores = tf.concat([y, 2 * y], axis=1)
        signatures = {
            "serving_default": signature(inputs, {"outputs": info(y)}, regress),
            "scores": signature(inputs, {"scores": info(y)}, classify),
            "classes": signature(inputs, {"classes": info(words), "scores": info(scores)}, classify),
        }
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return folder


def loaded(name: str, path: Path, **settings: Any) -> Model:
    return load_model(name, 1, str(path), WorkerSettings(runtime="tensorflow", **settings), 1)


@pytest.fixture
async def parsing(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving([loaded("half", build(tmp_path / "half"))]) as site:
        yield site


async def test_examples_that_the_model_parses(parsing: Site) -> None:
    half = "/v1/models/half"
    asked = {"examples": [{"x": 80.0}, {"x": [2.0], "more": 3}]}
    assert await parsing.post(half + ":regress", asked) == {"results": [42, 4]}
    asked = {"context": {"more": 1}, "examples": [{"x": 2.0}, {"x": 4.0, "more": 7}]}  # type: ignore[dict-item]
    assert await parsing.post(half + ":regress", asked) == {"results": [2, 9]}
    named: dict[str, Any] = {"signature_name": "scores", "examples": [{"x": 20.0}]}
    assert await parsing.post(half + ":classify", named) == {"results": [[["", 12]]]}
    named = {"signature_name": "classes", "examples": [{"x": 2.0, "word": "ab"}, {"x": 0.0, "word": {"b64": "w6k="}}]}
    expected = {"results": [[["ab", 3], ["AB", 6]], [["é", 2], ["é", 4]]]}
    assert await parsing.post(half + ":classify", named) == expected
    serialised = examples.serialized({"x": [8.0]})
    inputs = {"inputs": np.array([serialised, None], object)[:1]}
    answered = await parsing.send("POST", half + ":predict", data=tfserving.encode_request(inputs))
    assert answered.json == {"outputs": [[6.0]]}


async def test_examples_that_the_model_does_not_take(parsing: Site) -> None:
    assert "Expected classification signature" in await parsing.refusal("/v1/models/half:classify", {"examples": [{}]})
    # What the model itself refuses is the model's failure, as far as anybody can tell; and it goes on.
    text = await parsing.refusal("/v1/models/half:regress", {"examples": [{"y": 1.0}]}, 500)
    assert "x" in text
    assert await parsing.post("/v1/models/half:regress", {"examples": [{"x": 2.0}]}) == {"results": [3]}


# -- the EMNIST article -----------------------------------------------------------------------------------------------


@pytest.fixture
def digits(shared_data: Path) -> tuple[Any, Any]:
    """(1000, 784) uint8, and what they show."""
    folder = shared_data / "emnist" / "mnist"
    images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    return np.frombuffer(images, np.uint8).reshape(-1, 784)[:1000], np.frombuffer(labels, np.uint8)[:1000]


async def test_the_emnist_model(shared_data: Path, digits: tuple[Any, Any]) -> None:
    folder = shared_data / "models" / "emnist_dl2prod"
    images, labels = digits[0][:128] / 255, digits[1][:128]
    async with serving([loaded("emnist", folder)]) as site:
        url = site.url + "/v1/models/emnist:predict"

        def predictions(rows: Any, **more: Any) -> Any:
            payload = json.dumps({"instances": rows.tolist(), **more})
            return np.array(requests.post(url, data=payload, timeout=60).json()["predictions"])

        def sent() -> tuple[Any, Any, Any]:
            together = predictions(images)
            named = predictions(images[:5], signature_name="predict_images")
            return together, named, np.concatenate([predictions(images[i : i + 1]) for i in range(5)])

        # Its batch is fixed at one: the engine sees to that.
        together, named, alone = await asyncio.to_thread(sent)
        assert together.shape == (128, 62)
        assert np.allclose(together.sum(axis=1), 1, atol=1e-5)
        assert np.allclose(together[:5], alone, atol=1e-6)
        assert np.allclose(named, alone, atol=1e-6)
        digit = together[:, :10].argmax(axis=1)  # the 62 classes begin with the digits
        assert (digit == labels).mean() > 0.75
        answered = await site.send("POST", "/v1/models/emnist:predict", data=b'{"instances": [[1, 2, 3]]}')
        assert answered.json == {"error": "input 'inputs' has shape [1, 3]; expected [n, 784]"}
        found = (await site.get("/v1/models/emnist/metadata"))["metadata"]["signature_def"]["signature_def"]
        assert found["serving_default"]["method_name"] == "tensorflow/serving/classify"
        sizes = found["predict_images"]["inputs"]["images"]["tensor_shape"]["dim"]
        assert [size["size"] for size in sizes] == ["1", "784"]


async def test_the_emnist_models_pictures(shared_data: Path) -> None:
    from PIL import Image

    scaling: dict[str, Any] = {
        "input_width": 28, "input_height": 28, "input_channels": "L", "input_mean": "0", "input_std": "255",
    }  # fmt: skip
    files = sorted((shared_data / "emnist" / "emnist_samples").glob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file).convert("L")).reshape(-1) for file in files]) / 255
    async with serving([loaded("emnist", shared_data / "models" / "emnist_dl2prod", **scaling)]) as site:
        asked = {"instances": pixels.tolist()}
        expected = np.array((await site.post("/v1/models/emnist:predict", asked))["predictions"])
        for file, scores in zip(files, expected, strict=True):
            answered = await site.send("POST", "/v1/models/emnist:predict", data=file.read_bytes())
            assert np.allclose(answered.json["predictions"], [scores], atol=1e-6)
