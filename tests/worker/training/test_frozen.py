"""The article's graph: fed by its names as label_image.py does, equal to the network, and served by a worker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
keras = tf.keras

from fairway.worker.card import InputSpec  # noqa: E402
from fairway.worker.config import WorkerSettings  # noqa: E402
from fairway.worker.errors import ConfigurationError  # noqa: E402
from fairway.worker.image import decode, to_array, to_item  # noqa: E402
from fairway.worker.loading import load_model  # noqa: E402
from fairway.worker.training.frozen import write_output_graph  # noqa: E402

from ...conftest import picture  # noqa: E402

SPEC = InputSpec(width=32, height=24, resize="crop", resize_to=28, mean=(127.5,), std=(127.5,))
SPECS = {
    "crop": SPEC,
    "squash": replace(SPEC, resize="squash", channels="BGR", mean=(103.939, 116.779, 123.68), std=(1.0,)),
    "pad": replace(SPEC, resize="pad", filter="bicubic"),
    "tf": replace(SPEC, filter="tf-bilinear", mean=(0.0,), std=(1.0,)),
}
CLASSES = 4


@pytest.fixture(scope="module")
def network() -> Any:
    keras.utils.set_random_seed(1)
    image = keras.Input((24, 32, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(image)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(image, keras.layers.Dense(CLASSES)(x))


def label_image(path: Path, data: bytes) -> Any:
    """load_graph and run_graph of image_retraining/label_image.py (r1.4), as they are there."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        graph_def = v1.GraphDef()
        graph_def.ParseFromString(path.read_bytes())
        tf.import_graph_def(graph_def, name="")
        softmax_tensor = session.graph.get_tensor_by_name("final_result:0")
        (predictions,) = session.run(softmax_tensor, {"DecodeJpeg/contents:0": data})
    return predictions


def expected(network: Any, data: bytes, spec: InputSpec) -> Any:
    return tf.nn.softmax(network(to_array(decode(data), spec)[None])).numpy()[0]


@pytest.mark.parametrize("name", SPECS)
def test_label_image_gets_what_the_network_gives(network: Any, tmp_path: Path, name: str) -> None:
    spec = SPECS[name]
    write_output_graph(network, spec, tmp_path / "new" / "output_graph.pb")
    for seed, size in ((0, (320, 240)), (1, (50, 200))):
        predictions = label_image(tmp_path / "new" / "output_graph.pb", picture(seed, size))
        assert predictions.shape == (CLASSES,)
        np.testing.assert_allclose(predictions, expected(network, picture(seed, size), spec), atol=0.02)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["output_graph.pb"]


def test_it_is_a_graph_without_variables_and_functions(network: Any, tmp_path: Path) -> None:
    write_output_graph(network, SPEC, tmp_path / "output_graph.pb")
    graph_def = tf.compat.v1.GraphDef.FromString((tmp_path / "output_graph.pb").read_bytes())
    nodes = {node.name: node for node in graph_def.node}
    assert (nodes["DecodeJpeg/contents"].op, nodes["DecodeJpeg"].op) == ("Placeholder", "DecodeJpeg")
    assert nodes["final_result"].op == "Softmax"
    assert nodes["final_result"].attr["T"].type == tf.float32.as_datatype_enum
    assert not graph_def.library.function
    assert not [node.op for node in graph_def.node if "Var" in node.op or "Call" in node.op]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_worker_serves_it(network: Any, tmp_path: Path, format: str) -> None:
    """Fed behind its decoder, so that it takes every format; its labels lie beside it."""
    write_output_graph(network, SPEC, tmp_path / "output_graph.pb")
    (tmp_path / "output_labels.txt").write_text("a\nb\nc\nd\n")
    model = load_model("", 0, str(tmp_path / "output_graph.pb"), WorkerSettings(runtime="tensorflow"), 1)
    assert model.card is not None, model.reason
    assert model.card.labels == ("a", "b", "c", "d")
    data = picture(2, format=format)
    scores = model.loaded.run({model.image_input: to_item(data, model.card.input)}, model.loaded.default)[model.scores]
    np.testing.assert_allclose(scores.reshape(-1), expected(network, data, SPEC), atol=0.02)


def test_a_card_that_lies_there_is_another_models(network: Any, tmp_path: Path) -> None:
    (tmp_path / "model_card.json").write_text('{"input": {"width": 9, "height": 9, "std": 255}}')
    write_output_graph(network, SPEC, tmp_path / "output_graph.pb")
    model = load_model("", 0, str(tmp_path / "output_graph.pb"), WorkerSettings(runtime="tensorflow"), 1)
    assert model.card is not None
    assert (model.card.input.resize, model.card.input.dtype) == ("none", "uint8")


def test_real_photos_differ_little(network: Any, tmp_path: Path, shared_data: Path) -> None:
    """The pixels that reach the network, in the graph against the worker's: a rounding apart, never a class."""
    write_output_graph(network, SPEC, tmp_path / "output_graph.pb")
    paths = sorted((shared_data / "flowers").glob("*/*.jpg"))[::25]
    assert len(paths) > 15
    for path in paths:
        data = path.read_bytes()
        np.testing.assert_allclose(
            label_image(tmp_path / "output_graph.pb", data), expected(network, data, SPEC), atol=0.005
        )


def test_what_cannot_be_is_said(network: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot write the graph to .*output_graph\.pb"):
        write_output_graph(network, SPEC, tmp_path / "file" / "output_graph.pb")
    with pytest.raises(ConfigurationError, match="takes encoded uploads"):
        write_output_graph(network, InputSpec(kind="encoded"), tmp_path / "output_graph.pb")
