"""One model, written in another form.

All in 8 bits (`litert-int8`): weights, what is computed with them, input and output. The latter are uint8: the Edge TPU's
compiler wants whole numbers and one picture a call, Coral's own recipe asks for uint8, and a camera's bytes can then be
fed as they are. The model card says how a pixel becomes such a number; our LiteRT runtime gives the outputs as the scores
that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from ..card import InputSpec
from ..errors import ConfigurationError
from ..image import to_array
from ..runtimes import conversion
from ..runtimes.tensorflow_graphs import Function, quiet, tf
from ..tensor import TensorSpec
from ..wire.examples import CLASSIFY
from .original import Original
from .savedmodel import classify, save

Progress = Callable[[list[NDArray[Any]]], Iterator[NDArray[Any]]]

LEFT_OUT = "bytes"  # tensors of this dtype: no engine but TensorFlow has operations for them


def write(
    original: Original, to: str, path: Path, items: list[NDArray[Any]], progress: Progress = iter
) -> tuple[InputSpec | None, list[str]]:
    """`path`: the file, or the folder of the SavedModel, to be. `items`: as the model's card makes them; they calibrate
    litert-int8, and `progress` is told of each.

    -> how pictures are fed to the new form, None if they are not, and the names of signatures it does without. Raises
    ConfigurationError.
    """
    card = original.use.card
    spec = card.input if card else None
    default = original.opened.default
    functions = dict(original.functions)
    if to == "savedmodel":
        if spec is not None and default != CLASSIFY:
            functions.pop(CLASSIFY, None)
    elif to in ("onnx", "litert-int8"):
        functions = {default: functions[default]}
    else:
        functions = {
            name: one
            for name, one in functions.items()
            if name == default or not _holds_bytes((*one.signature.inputs, *one.signature.outputs))
        }
    if to != "savedmodel":
        if _holds_bytes(functions[default].signature.inputs):
            raise ConfigurationError(
                f"{original.source} decodes pictures by itself, for which {to} has no operations; --to savedmodel can do it"
            )
        functions[default] = sized(functions[default], spec, 1 if to == "litert-int8" else None)
    try:
        with quiet():
            plain = _without_variables(functions, default)
            functions = {name: functions[name] for name in plain}
            if to == "savedmodel":
                _saved_model(original, functions, plain, path)
            elif to == "onnx":
                model = conversion.onnx_model(plain[default], functions[default], conversion.named)
                path.write_bytes(model.SerializeToString())
            else:
                settle = {"litert": None, "litert-dynamic": conversion.lightened}.get(
                    to, _integers(items, spec, progress)
                )
                signatures = {name: _serving(plain[name], one) for name, one in functions.items()}
                path.write_bytes(conversion.lite(signatures, settle))
    except ConfigurationError as error:
        raise ConfigurationError(f"{original.source}: {error}") from error
    except Exception as error:  # converters raise whatever they like
        said = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise ConfigurationError(f"{original.source} cannot be converted to {to}: {said}") from error
    if to == "litert-int8" and spec is not None:
        spec = quantised(spec, *_quantisation(path))
    return spec, [name for name in original.functions if name not in functions and name != CLASSIFY]


def sized(function: Function, spec: InputSpec | None, batch: int | None) -> Function:
    """The same with the size of its pictures in its signature, as far as the card tells it, and of `batch` items a call."""
    signature = function.signature
    shape = signature.inputs[0].shape
    if len(signature.inputs) != 1 or shape is None:
        return function
    if batch is not None and signature.batch == 0:
        shape = (batch, *shape[1:])
    if spec is not None and spec.kind == "pixels" and not spec.flatten and spec.resize != "none":
        size = (spec.height, spec.width)
        places = (1, 2) if spec.layout == "hwc" else (2, 3)
        if signature.batch is None:
            places = (places[0] - 1, places[1] - 1)
        at = dict(zip(places, size, strict=True))
        shape = tuple(at.get(i, n) if n is None else n for i, n in enumerate(shape))
    return replace(function, signature=replace(signature, inputs=(replace(signature.inputs[0], shape=shape),)))


def quantised(spec: InputSpec, scale: float, zero: int) -> InputSpec:
    """The card's input for a model that takes whole numbers q, which stand for `scale` * (q - `zero`).

    From x = (pixel - mean) / std and q = x / scale + zero: mean - zero * std * scale, and std * scale.
    """
    if not scale:  # it took whole numbers before
        return spec
    depth = 1 if spec.channels == "L" else 3
    mean, std = (
        (*values, *values, *values)[:depth] if len(values) == 1 else values for values in (spec.mean, spec.std)
    )
    new_std = [s * scale for s in std]
    new_mean = [m - zero * s for m, s in zip(mean, new_std, strict=True)]
    ends = [(pixel, (pixel - m) / s) for m, s in zip(new_mean, new_std, strict=True) for pixel in (0, 255)]
    if all(
        abs(pixel - number) < 0.51 for pixel, number in ends
    ):  # the pixel itself is as near as a whole number can be
        return replace(spec, mean=(0.0,), std=(1.0,), dtype="uint8")
    return replace(spec, mean=tuple(new_mean), std=tuple(new_std), dtype="uint8")


def with_both_ends(item: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """`item` with one black and one white pixel in a corner: the input's range is then that of all pictures, and a pixel
    itself the whole number that is fed, while hardly anything else is changed.
    """
    height, width = (spec.height, spec.width) if spec.resize != "none" else (1, 1)
    changed = item.copy()
    for place, colour in enumerate(((0, 0, 0), (255, 255, 255))):
        one = to_array(Image.new("RGB", (width, height), colour), replace(spec, resize="none", reduced=False))
        if spec.flatten:
            depth = 1 if spec.channels == "L" else 3
            changed[place * depth : (place + 1) * depth] = one[:depth]
        elif spec.layout == "chw":
            changed[:, 0, place] = one[:, 0, 0]
        else:
            changed[0, place] = one[0, 0]
    return changed


def _saved_model(original: Original, functions: dict[str, Function], plain: dict[str, Any], path: Path) -> None:
    signatures = {name: _serving(plain[name], one) for name, one in functions.items()}
    default, card = original.opened.default, original.use.card
    if card is not None and default != CLASSIFY and original.signature.batch == 0:
        scores = signatures[default]
        name = original.use.scores
        signatures[CLASSIFY] = classify(lambda items: scores(items)[name], card.input, card.labels, card.activation)
    save(signatures, path, {name: one.signature.method for name, one in functions.items()})


def _serving(plain: Any, function: Function) -> Any:
    return conversion.serving(plain, function, conversion.named)


def _without_variables(functions: dict[str, Function], default: str) -> dict[str, Any]:
    """Signature -> its graph; signatures but the default that cannot be frozen are not among them."""
    found = {}
    for name, function in functions.items():
        try:
            found[name] = conversion.without_variables(function)
        except ConfigurationError:
            if name == default:
                raise
    return found


def _integers(items: list[NDArray[Any]], spec: InputSpec | None, progress: Progress) -> Callable[[Any], None]:
    def settle(converter: Any) -> None:
        conversion.lightened(converter)
        shown = [with_both_ends(items[0], spec), *items[1:]] if spec and spec.kind == "pixels" else items
        converter.representative_dataset = lambda: ([item[None]] for item in progress(shown))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8

    return settle


def _quantisation(path: Path) -> tuple[float, int]:
    from ai_edge_litert.interpreter import Interpreter

    (detail,) = Interpreter(model_path=str(path)).get_input_details()
    scale, zero = detail["quantization"]
    return float(scale), int(zero)


def _holds_bytes(specs: tuple[TensorSpec, ...]) -> bool:
    return any(spec.dtype == LEFT_OUT for spec in specs)
