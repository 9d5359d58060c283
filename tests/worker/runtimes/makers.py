"""The same small models, made by every framework that a runtime reads models of.

shares  image (n, 4, 4, 3) float32 -> how much of each colour there is, (n, 3) float32
bytes   the same, of uint8
one     the same as shares, of exactly one picture
pair    a (n, 2) float32 and b (n, 2) int64 -> total = a + b, float32, and twice = 2 b, int64
scaled  x (n, 4) float32 -> x times a number that a model is made with
bulky   x (n, 2048) float32 -> x times a matrix of 16 MB
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BULK = 2048

Maker = Callable[[Path, str, float], str]
"""(folder, model, number) -> what --model takes."""


def matrix(number: float) -> Any:
    return np.random.default_rng(int(number)).random((BULK, BULK)).astype(np.float32)


# -- TensorFlow ---------------------------------------------------------------------------------------------------


def functions(number: float) -> dict[str, tuple[list[Any], Callable[..., dict[str, Any]]]]:
    """By model: specs of its inputs, and what it does."""
    tf = pytest.importorskip("tensorflow")

    def shares(image: Any) -> dict[str, Any]:
        amounts = tf.reduce_sum(tf.cast(image, tf.float32), axis=(1, 2))
        return {"scores": amounts / tf.reduce_sum(amounts, axis=1, keepdims=True)}

    def pair(a: Any, b: Any) -> dict[str, Any]:
        return {"total": a + tf.cast(b, tf.float32), "twice": b * tf.constant(2, tf.int64)}

    def spec(name: str, *shape: int | None, dtype: Any = tf.float32) -> Any:
        return tf.TensorSpec(shape, dtype, name=name)

    found: dict[str, tuple[list[Any], Callable[..., dict[str, Any]]]] = {
        "shares": ([spec("image", None, 4, 4, 3)], shares),
        "bytes": ([spec("image", None, 4, 4, 3, dtype=tf.uint8)], shares),
        "one": ([spec("image", 1, 4, 4, 3)], shares),
        "pair": ([spec("a", None, 2), spec("b", None, 2, dtype=tf.int64)], pair),
        "scaled": ([spec("x", None, 4)], lambda x: {"y": x * tf.constant(number)}),
        "text": ([spec("text", None, dtype=tf.string)], lambda text: {"louder": tf.strings.upper(text)}),
    }
    if number >= 100:
        weights = tf.Variable(matrix(number))
        found["bulky"] = ([spec("x", None, BULK)], lambda x: {"y": tf.matmul(x, weights)})
        shares.weights = weights  # type: ignore[attr-defined]
    return found


def saved_model(folder: Path, model: str, number: float) -> str:
    tf = pytest.importorskip("tensorflow")
    module = tf.Module()
    specs, function = functions(number)[model]
    module.kept = [cell.cell_contents for cell in function.__closure__ or () if model == "bulky"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        signature = tf.function(function, input_signature=specs)
        tf.saved_model.save(module, str(folder / model), signatures={"serving_default": signature})
    return str(folder / model)


def frozen(folder: Path, model: str, number: float) -> str:
    tf = pytest.importorskip("tensorflow")
    specs, function = functions(number)[model]
    if len(specs) > 1:
        pytest.skip("of frozen graphs one input and one output are served")
    graph = tf.Graph()
    with graph.as_default():
        fed = tf.compat.v1.placeholder(specs[0].dtype, specs[0].shape, name=specs[0].name)
        if model == "bulky":
            tf.matmul(fed, tf.constant(matrix(number)), name="y")
        else:
            (name, result), *_ = function(fed).items()
            tf.identity(result, name=name)
    (folder / f"{model}.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return str(folder / f"{model}.pb")


def keras_file(folder: Path, model: str, number: float) -> str:
    keras = pytest.importorskip("keras")
    last = keras.layers.Activation
    if model == "pair":
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b", dtype="int64")
        total = last("linear", name="total")(a + keras.ops.cast(b, "float32"))
        made = keras.Model([a, b], [total, last("linear", name="twice", dtype="int64")(b * 2)])
    elif model in ("shares", "bytes", "one"):
        kind = {"dtype": "uint8"} if model == "bytes" else {}
        image = keras.Input((4, 4, 3), name="image", batch_size=1 if model == "one" else None, **kind)
        amounts = keras.ops.sum(keras.ops.cast(image, "float32"), axis=(1, 2))
        made = keras.Model(image, last("linear", name="scores")(amounts / keras.ops.sum(amounts, 1, keepdims=True)))
    else:
        x = keras.Input((BULK if model == "bulky" else 4,), name="x")
        layer = keras.layers.Dense(BULK, use_bias=False, name="y") if model == "bulky" else None
        made = keras.Model(x, layer(x) if layer else last("linear", name="y")(x * number))
        if layer:
            layer.set_weights([matrix(number)])
    made.save(folder / f"{model}.keras")
    return str(folder / f"{model}.keras")


# -- LiteRT, ONNX, OpenVINO ---------------------------------------------------------------------------------------


def tflite(folder: Path, model: str, number: float) -> str:
    pytest.importorskip("ai_edge_litert")
    tf = pytest.importorskip("tensorflow")
    if model == "text":
        pytest.skip("there are no such operations")
    specs, function = functions(number)[model]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if model == "bulky":  # frozen, as the converter leaves variables behind otherwise
            weights = matrix(number)
            function = lambda x: {"y": tf.matmul(x, weights)}  # noqa: E731
        signature = tf.function(function, input_signature=specs)
        tf.saved_model.save(tf.Module(), str(folder / f"{model}-saved"), signatures={"serving_default": signature})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / f"{model}-saved"))
        (folder / f"{model}.tflite").write_bytes(converter.convert())
    return str(folder / f"{model}.tflite")


def onnx_file(folder: Path, model: str, number: float) -> str:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto as T
    from onnx import helper, numpy_helper

    def tensor(name: str, dtype: int, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, dtype, shape)

    def constant(name: str, value: Any) -> Any:
        return numpy_helper.from_array(np.asarray(value), name)

    node = helper.make_node
    if model in ("shares", "bytes", "one"):
        count: int | str = 1 if model == "one" else "n"
        inputs = [tensor("image", T.UINT8 if model == "bytes" else T.FLOAT, count, 4, 4, 3)]
        outputs = [tensor("scores", T.FLOAT, count, 3)]
        constants = [constant("places", [1, 2]), constant("colours", [1])]
        nodes = [
            node("Cast", ["image"], ["numbers"], to=T.FLOAT),
            node("ReduceSum", ["numbers", "places"], ["amounts"], keepdims=0),
            node("ReduceSum", ["amounts", "colours"], ["all"], keepdims=1),
            node("Div", ["amounts", "all"], ["scores"]),
        ]
    elif model == "pair":
        inputs = [tensor("a", T.FLOAT, "n", 2), tensor("b", T.INT64, "n", 2)]
        outputs = [tensor("total", T.FLOAT, "n", 2), tensor("twice", T.INT64, "n", 2)]
        constants = [constant("two", np.int64(2))]
        nodes = [
            node("Cast", ["b"], ["floating"], to=T.FLOAT),
            node("Add", ["a", "floating"], ["total"]),
            node("Mul", ["b", "two"], ["twice"]),
        ]
    elif model == "text":
        inputs, outputs = [tensor("text", T.STRING, "n")], [tensor("louder", T.STRING, "n")]
        constants = []
        nodes = [node("StringNormalizer", ["text"], ["louder"], case_change_action="UPPER", locale="C")]
    else:
        width = BULK if model == "bulky" else 4
        inputs, outputs = [tensor("x", T.FLOAT, "n", width)], [tensor("y", T.FLOAT, "n", width)]
        constants = [constant("w", matrix(number) if model == "bulky" else np.float32(number))]
        nodes = [node("MatMul" if model == "bulky" else "Mul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, model, inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, folder / f"{model}.onnx")
    return str(folder / f"{model}.onnx")


def ir(folder: Path, model: str, number: float) -> str:
    pytest.importorskip("openvino")
    if model == "text":
        pytest.skip("there are no such operations")
    from fairway.worker.runtimes.openvino import write_ir

    write_ir(Path(onnx_file(folder, model, number)), folder / f"{model}.xml")
    return str(folder / f"{model}.xml")


# -- PyTorch, Python ----------------------------------------------------------------------------------------------


def torch_module(model: str, number: float) -> tuple[Any, tuple[Any, ...]]:
    """The module, and what it may be called with."""
    torch = pytest.importorskip("torch")
    if model == "text":
        pytest.skip("there are no such tensors")

    class Shares(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, image: Any) -> Any:
            amounts = image.float().sum((1, 2))
            return amounts / amounts.sum(1, keepdim=True)

    class Pair(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, a: Any, b: Any) -> Any:
            return a + b, b * 2

    class Scaled(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            weights = torch.from_numpy(matrix(number)) if model == "bulky" else torch.tensor(number)
            self.w = torch.nn.Parameter(weights, requires_grad=False)

        def forward(self, x: Any) -> Any:
            return x @ self.w if model == "bulky" else x * self.w

    if model in ("shares", "bytes", "one"):
        image = torch.ones(1 if model == "one" else 2, 4, 4, 3)
        return Shares(), (image.byte() if model == "bytes" else image,)
    if model == "pair":
        return Pair(), (torch.ones(2, 2), torch.ones(2, 2, dtype=torch.int64))
    return Scaled(), (torch.ones(2, BULK if model == "bulky" else 4),)


def torch_script(folder: Path, model: str, number: float) -> str:
    module, example = torch_module(model, number)
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, example).save(folder / f"{model}.pt")
    return str(folder / f"{model}.pt")


def torch_export(folder: Path, model: str, number: float) -> str:
    module, example = torch_module(model, number)
    import torch

    count = torch.export.Dim("n")
    free = None if model == "one" else tuple({0: count} for _ in example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, example, dynamic_shapes=free), folder / f"{model}.pt2")
    return str(folder / f"{model}.pt2")


PYTHON = """
import numpy as np


def shares(image):
    amounts = image.astype(np.float32).sum((1, 2))
    return amounts / amounts.sum(1, keepdims=True)


class Model:
    threads = 2
    inputs = {inputs}
    outputs = {outputs}

    def __init__(self):
        self.w = {weights}

    def __call__(self, {arguments}):
        return {result}
"""


def python_module(folder: Path, model: str, number: float) -> str:
    count = 1 if model == "one" else None
    picture = ("image", "uint8" if model == "bytes" else "float32", (count, 4, 4, 3))
    width = BULK if model == "bulky" else 4
    inputs, outputs, arguments, result, weights = {
        "pair": (
            [("a", "float32", (None, 2)), ("b", "int64", (None, 2))],
            [("total", "float32", (None, 2)), ("twice", "int64", (None, 2))],
            "a, b", "{'twice': 2 * b, 'total': a + b}", "None",
        ),
        "text": ([("text", "bytes", (None,))], [("louder", "bytes", (None,))], "t", "[b.upper() for b in t]", "None"),
        "bulky": ([("x", "float32", (None, width))], [("y", "float32", (None, width))], "x", "x @ self.w",
                  f"np.random.default_rng({int(number)}).random(({BULK}, {BULK})).astype(np.float32)"),
        "scaled": ([("x", "float32", (None, width))], [("y", "float32", (None, width))], "x", "x * self.w",
                   f"np.float32({number})"),
    }.get(model, ([picture], [("scores", "float32", (count, 3))], "image", "shares(image)", "None"))  # fmt: skip
    name = f"made_{model}_{abs(hash((str(folder), number)))}"
    source = PYTHON.format(inputs=inputs, outputs=outputs, arguments=arguments, result=result, weights=weights)
    (folder / f"{name}.py").write_text(source)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return f"python:{name}:Model"
