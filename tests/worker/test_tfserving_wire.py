"""TensorFlow Serving's JSON: what is read as what, what is refused in which words, and what is written."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.worker.errors import BadRequest
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.versions import VersionStatus
from fairway.worker.wire import examples, npy, tfserving, tfserving_models


def signatures(**dtypes: str) -> dict[str, Signature]:
    inputs = tuple(TensorSpec(name, dtype, None) for name, dtype in dtypes.items())
    return {"serving_default": Signature("serving_default", inputs, (TensorSpec("y", "float32", (None, 2)),))}


FLOATS, INTS, TEXTS = signatures(x="float32"), signatures(x="int32"), signatures(x="bytes")
BOTH = signatures(a="int32", b="bytes")


def decode(document: Any, known: dict[str, Signature], image_input: str = "") -> tfserving.Predict:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return tfserving.decode_request(body, known, "serving_default", image_input)


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


# -- requests that are taken ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "known", "expected"),
    [
        ({"instances": [[1, 2], [3, 4], [5, 6]]}, INTS, {"x": [[1, 2], [3, 4], [5, 6]]}),
        ({"instances": [1, 2.0, 5.003]}, FLOATS, {"x": [1, 2, 5.003]}),
        ({"instances": [{"x": 1}, {"x": 2}]}, INTS, {"x": [1, 2]}),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, FLOATS, {"x": [[1, 2], [3, 4]]}),
        ({"instances": [{"a": [1], "b": "p"}, {"a": [2], "b": "q"}]}, BOTH, {"a": [[1], [2]], "b": [b"p", b"q"]}),
        ({"instances": ["foo", "bär"]}, TEXTS, {"x": [b"foo", "bär".encode()]}),
        ({"instances": [b64(b"\xff\0"), b64(b"")]}, TEXTS, {"x": [b"\xff\0", b""]}),
        ({"instances": [[b64(b"p")], [b64(b"q")]]}, TEXTS, {"x": [[b"p"], [b"q"]]}),
        ({"instances": [{"x": b64(b"p")}]}, TEXTS, {"x": [b"p"]}),
        ({"instances": [[], []]}, FLOATS, {"x": [[], []]}),
        ({"inputs": [[1, 2]]}, INTS, {"x": [[1, 2]]}),
        ({"inputs": {"x": [[1, 2]]}}, INTS, {"x": [[1, 2]]}),
        ({"inputs": 7}, INTS, {"x": 7}),
        ({"inputs": {"a": [1], "b": b64(b"p"), "more": 1}}, BOTH, {"a": [1], "b": b"p"}),
        ({"inputs": {"a": [1], "b": ["p"]}, "signature_name": ""}, BOTH, {"a": [1], "b": [b"p"]}),
        ({"instances": [True, False]}, signatures(x="bool"), {"x": [True, False]}),
        ({"instances": [2**64 - 1]}, signatures(x="uint64"), {"x": [2**64 - 1]}),
        ({"instances": [-(2**63)]}, signatures(x="int64"), {"x": [-(2**63)]}),
        ({"instances": [16777217.0]}, FLOATS, {"x": [16777216]}),  # with a point, it is no whole number to be lost
        (b'{"instances": [1]} and so on', INTS, {"x": [1]}),
    ],
)
def test_requests(document: Any, known: dict[str, Signature], expected: dict[str, Any]) -> None:
    found = decode(document, known)
    dtypes = {spec.name: spec.dtype.replace("bytes", "object") for spec in known["serving_default"].inputs}
    assert {name: array.dtype.name for name, array in found.inputs.items()} == dtypes
    for name, values in expected.items():
        wanted = np.array(values, dtypes[name])
        assert found.inputs[name].shape == wanted.shape
        assert np.array_equal(found.inputs[name], wanted)
    assert (found.rows, found.signature) == (b"instances" in json.dumps(str(document)).encode(), "serving_default")


def test_numbers_that_are_none() -> None:
    found = decode(b'{"instances": [NaN, Infinity, -Infinity, 1]}', FLOATS).inputs["x"].tolist()
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf, 1]


def test_another_signature() -> None:
    known = INTS | {"other": Signature("other", (TensorSpec("z", "float64", None),), ())}
    found = decode({"signature_name": "other", "instances": [1]}, known)
    assert found.signature == "other"
    assert found.inputs["z"].dtype == np.float64


def test_pictures_for_a_model_of_pixels() -> None:
    pixels = {"instances": [[[1, 2]]]}
    assert decode(pixels, FLOATS, "x").inputs["x"].tolist() == [[[1, 2]]]
    for value in ([b64(b"one"), b64(b"two")], [{"x": b64(b"one")}, b64(b"two")]):
        for key in ("instances", "inputs"):
            found = decode({key: value}, FLOATS, "x")
            assert (found.images, found.inputs, found.rows) == ((b"one", b"two"), {}, key == "instances")
    assert decode({"inputs": {"x": b64(b"one")}}, FLOATS, "x").images == (b"one",)
    assert decode({"instances": [b64(b"one")]}, TEXTS, "x").images == ()  # it takes the bytes as they are
    with pytest.raises(BadRequest, match="Type: Object is not of expected type: float"):
        decode({"instances": [b64(b"one")]}, FLOATS)
    with pytest.raises(BadRequest, match="not of expected type: float"):
        decode({"instances": [b64(b"one"), "two"]}, FLOATS, "x")
    with pytest.raises(BadRequest, match="element: 1 of 'instances' list"):
        decode({"instances": [b64(b"one"), {"b64": "?"}]}, FLOATS, "x")


@pytest.mark.parametrize("text", ["aGk=", "aGk", " aG\nk= "])
def test_base64_with_and_without_padding(text: str) -> None:
    assert decode({"instances": [{"b64": text}]}, TEXTS).inputs["x"].tolist() == [b"hi"]


# -- requests that are refused ----------------------------------------------------------------------------------------

AT_1 = "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
AT_0 = AT_1.replace("1", "0", 1)


@pytest.mark.parametrize(
    ("document", "known", "text"),
    [
        ({}, INTS, "Missing 'inputs' or 'instances' key"),
        ({"signature_name": 5, "instances": [1]}, INTS, "'signature_name' key must be a string value."),
        ({"signature_name": "s", "inputs": 1}, INTS, 'Serving signature name: "s" not found in signature def'),
        (
            {"instances": [[1]], "inputs": [[1]]},
            INTS,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        ),
        ({"instances": 5}, INTS, "} Expecting 'instances' to be an list/array"),
        ({"instances": []}, INTS, "} No values in 'instances' array"),
        ({"instances": [1]}, {"serving_default": Signature("serving_default", (), ())}, "Failed to get input map"),
        ({"instances": [[1, 2], [3, 4], [5, 6, 7]]}, INTS, "Expecting tensor size: 2 but got: 3"),
        ({"instances": [[1, 2], [[3, 4]]]}, INTS, AT_1 + "Expecting shape [2] but got: [1,2]"),
        ({"instances": [{"x": [1, 2]}, {"x": [1, 2, 3]}]}, INTS, "Expecting tensor size: 2 but got: 3"),
        ({"instances": [{"x": [1, 2]}, {"x": [[1, 2]]}]}, INTS, "Expecting shape [2] but got: [1,2]"),
        ({"instances": [{"x": 1}, {"x": [1]}]}, INTS, "Expecting shape [] but got: [1]"),
        ({"instances": [1, [1]]}, INTS, AT_1 + "Expecting shape [] but got: [1]"),
        (
            {"instances": [[1, 2], ["a", "b"]]},
            INTS,
            AT_1 + 'JSON Value: "a" Type: String is not of expected type: int32',
        ),
        ({"instances": ["x"]}, FLOATS, AT_0 + 'JSON Value: "x" Type: String is not of expected type: float'),
        ({"instances": [1.0]}, INTS, AT_0 + "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ({"instances": [2**31]}, INTS, "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ({"instances": [256]}, signatures(x="uint8"), "JSON Value: 256 Type: Number is not of expected type: uint8"),
        ({"instances": [True]}, FLOATS, "JSON Value: true Type: True is not of expected type: float"),
        ({"instances": [None]}, FLOATS, "JSON Value: null Type: Null is not of expected type: float"),
        ({"instances": [1]}, signatures(x="bool"), "JSON Value: 1 Type: Number is not of expected type: bool"),
        ({"instances": [1]}, TEXTS, "JSON Value: 1 Type: Number is not of expected type: string"),
        ({"instances": [1e39]}, FLOATS, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ({"instances": [16777217]}, FLOATS, "Cannot convert JSON value: 16777217 to float without loss of precision."),
        ({"instances": [2**53 + 1]}, signatures(x="float64"), "to double without loss of precision."),
        ({"instances": [{"b64": "?"}]}, TEXTS, AT_0 + "Unable to base64 decode"),
        ({"instances": [{"b64": "é"}]}, TEXTS, AT_0 + "Unable to base64 decode"),
        (
            {"instances": [{"b64": 1}]},
            TEXTS,
            "key: b64 of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does",
        ),
        ({"inputs": {"x": {"c": 1}}}, TEXTS, "not formatted correctly for base64 data"),
        ({"instances": [{"y": 1}]}, INTS, "Failed to process element: 0 key: y of 'instances' list. Error: "),
        ({"instances": [{"y": 1}]}, INTS, "JSON object: does not have named input: y"),
        ({"instances": [{"a": 1}]}, BOTH, " must only have keys: a,b"),
        (
            {"instances": [1]},
            BOTH,
            "instances is a plain list, but expecting list of objects as multiple input tensors",
        ),
        ({"instances": [{"x": 1}, [2]]}, INTS, "Expecting object but got list at item 1 of input list"),
        ({"instances": [["p"], {"x": ["q"]}]}, TEXTS, "Expecting value/list but got object at item 1 of input list"),
        ({"inputs": [1]}, BOTH, "inputs is a plain value/list, but expecting an object as multiple input tensors"),
        ({"inputs": {"a": 1}}, BOTH, "Missing named input: b in 'inputs' object."),
        ({"inputs": [[1], 2]}, INTS, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ({"inputs": [1, [2]]}, INTS, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": [[1], [2, 3]]}, INTS, "Encountered list at unexpected size: 2 at level: 1 expected size: 1"),
        (b'{"inputs": [NaN]}', INTS, "JSON Value: NaN Type: Number is not of expected type: int32"),
        (b'{"inputs": "\\ud800"}', TEXTS, "The surrogate pair in string is invalid."),
        (b'{"inputs": ' + b"[" * 200 + b"]" * 200 + b"}", INTS, "Lists are nested in more than 32 levels"),
        (b'{"inputs": ' + b"[" * 10_000, INTS, "JSON Parse error: Nested too deeply."),
        (b"", INTS, "JSON Parse error: The document is empty"),
        (b"[1]", INTS, "Is not object"),
    ],
)
def test_refusals(document: Any, known: dict[str, Signature], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(document, known)
    assert text in str(caught.value)


@pytest.mark.parametrize("depth", [500, 800, 900, 960, 990, 1000, 1024])
def test_no_depth_ends_in_a_crash(depth: int) -> None:
    for middle in (b"", b"1", b'{"b64": 1}'):
        with pytest.raises(BadRequest):
            decode(b'{"inputs": ' + b"[" * depth + middle + b"]" * depth + b"}", TEXTS)
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    with pytest.raises(BadRequest):
        decode(b'{"instances": [' + nested + b"]}", TEXTS)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_answers_in_rows() -> None:
    one = {"y": np.array([[1, 2], [3, 4]], np.float32)}
    assert tfserving.encode_response(one, True) == b'{"predictions": [[1.0,2.0],[3.0,4.0]]}'
    several = {
        "b": np.array([[1], [2]], np.int32),
        "a": np.array([0.5, math.nan]),
        "c_bytes": np.array([b"p", b"q"], object),
    }
    found = json.loads(tfserving.encode_response(several, True))["predictions"]
    assert found[0] == {"a": 0.5, "b": [1], "c_bytes": b64(b"p")}
    assert math.isnan(found[1]["a"])
    assert tfserving.encode_response({"y": np.empty((0, 2)), "z": np.empty((0,))}, True) == b'{"predictions": []}'


def test_answers_in_columns() -> None:
    assert json.loads(tfserving.encode_response({"y": np.array(3)}, False)) == {"outputs": 3}
    several = {"b": np.array([True]), "a": np.array([["p"], ["é"]], object)}
    assert json.loads(tfserving.encode_response(several, False)) == {"outputs": {"a": [["p"], ["é"]], "b": [True]}}


def test_bytes_that_are_no_text() -> None:
    outputs = {"y": np.array([b"caf\xc3\xa9", b"\xff"], object)}
    assert json.loads(tfserving.encode_response(outputs, True)) == {"predictions": ["café", b64(b"\xff")]}


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({}, "Cannot convert empty tensor map to JSON"),
        ({"y": np.array(1)}, "Tensor name: y has no shape information "),
        ({"y": np.zeros(2), "z": np.zeros(3)}, "Tensor name: z has inconsistent batch size: 3 expecting: 2"),
        ({"y": np.zeros(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_answers_that_cannot_be(outputs: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        tfserving.encode_response(outputs, True)
    assert str(caught.value) == text


# -- both directions --------------------------------------------------------------------------------------------------

SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)
arrays = st.one_of(
    hnp.arrays(np.int64, SHAPES),
    hnp.arrays(np.float64, SHAPES, elements=st.floats(width=32)),
    hnp.arrays(np.bool_, SHAPES),
    hnp.arrays(object, SHAPES, elements=st.binary(max_size=5)),
)


@given(st.dictionaries(st.text(min_size=1, max_size=3), arrays, min_size=1, max_size=3))
def test_a_request_is_read_as_it_was_meant(inputs: dict[str, Any]) -> None:
    dtypes = {name: "bytes" if array.dtype == object else array.dtype.name for name, array in inputs.items()}
    known = {"s": Signature("s", tuple(TensorSpec(name, dtype, None) for name, dtype in dtypes.items()), ())}
    found = tfserving.decode_request(tfserving.encode_request(inputs, "s"), known, "other")
    assert found.inputs.keys() == inputs.keys()
    for name, array in inputs.items():
        assert np.array_equal(found.inputs[name], array, equal_nan=array.dtype.kind == "f")


@given(st.dictionaries(st.text(min_size=1, max_size=3), arrays, min_size=1, max_size=3), st.booleans())
def test_an_answer_is_read_as_it_was_meant(outputs: dict[str, Any], rows: bool) -> None:
    size = min(len(array) for array in outputs.values())
    outputs = {name + "_bytes": array[:size] for name, array in outputs.items()}
    found = tfserving.decode_response(tfserving.encode_response(outputs, rows))
    if len(outputs) == 1:
        outputs = {"": next(iter(outputs.values()))}
    assert found.keys() == outputs.keys()
    for name, array in outputs.items():
        assert np.array_equal(found[name], array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("body", "dtype", "value"),
    [
        (b'{"outputs": 3}', "int64", 3),
        (b'{"outputs": 3.5}', "float64", 3.5),
        (b'{"outputs": 9223372036854775808}', "uint64", 2**63),
        (b'{"outputs": [1, 9223372036854775808]}', "uint64", [1, 2**63]),
        (b'{"outputs": [1.5, 9223372036854775808]}', "float64", [1.5, 2.0**63]),
        (b'{"outputs": {"b64": "aGk="}}', "object", b"hi"),
        (b'{"outputs": true}', "bool", True),
        (b'{"predictions": []}', "float64", []),
        (b'{"predictions": [1, 2.5]}', "float64", [1, 2.5]),
    ],
)
def test_small_answers(body: bytes, dtype: str, value: Any) -> None:
    found = tfserving.decode_response(body)[""]
    assert (found.dtype.name, found.tolist()) == (dtype, value)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"predictions": null}', b'{"predictions": [null]}', b'{"error": "x"}']
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError, match="not TensorFlow Serving's answer"):
        tfserving.decode_response(body)


# -- classify and regress ---------------------------------------------------------------------------------------------


def read_examples(document: Any) -> examples.Examples:
    return examples.decode(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "When method is classify, key 'examples' is expected and was not found"),
        ({"examples": {}}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [], "signature_name": 1}, "'signature_name' key must be a string value."),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{}], "context": []}, "Example must be JSON object but got JSON Array"),
        ({"examples": [{"x": None}]}, "Feature: x has element with unexpected JSON type: Null"),
        ({"examples": [{"x": [[1]]}]}, "Feature: x has element with unexpected JSON type: Array"),
        ({"examples": [{"x": [{"c": 1}]}]}, "Feature: x has element with unexpected JSON type: Object"),
        ({"examples": [{"x": [1, 2.5]}]}, "Unexpected element type in feature: x expecting type: int64"),
        ({"examples": [{"x": [1.5, "a"]}]}, "Unexpected element type in feature: x expecting type: float"),
        ({"examples": [{"x": ["a", 1]}]}, "Unexpected element type in feature: x expecting type: bytes"),
        ({"examples": [{"x": 2**63}]}, "Feature: x has uint64 element. Only int64 is supported."),
        ({"examples": [{"x": 1e39}]}, "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        ({"examples": [{"x": {"b64": "?"}}]}, "Unable to base64 decode"),
    ],
)
def test_examples_that_are_refused(document: Any, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_examples(document)
    assert text in str(caught.value)


def test_examples_of_pictures() -> None:
    pictures = read_examples({"examples": [{"image": b64(b"p")}, {"x": [b64(b"q")]}]}).pictures("m", "image")
    assert pictures == [b"p", b"q"]
    several = {"examples": [{"image": b64(b"p"), "name": "q", "size": 3}], "context": {"name": "r"}}
    assert read_examples(several).pictures("m", "image") == [b"p"]
    assert read_examples({"examples": [{"size": 3}], "context": {"image": b64(b"p")}}).pictures("m", "image") == [b"p"]
    others: list[dict[str, Any]] = [{"x": 1}, {"x": []}, {}, {"x": "p", "y": "q"}, {"x": ["p", "q"]}]
    for other in others:
        with pytest.raises(BadRequest, match="m classifies pictures, and example 1 has none"):
            read_examples({"examples": [{"image": "p"}, other]}).pictures("m", "image")


def test_results() -> None:
    labels = np.array([[b"a", 'b"'], [b"\xff", ""]], object)
    scores = np.array([[0.25, math.nan], [1, 0.1]], np.float32)
    body = examples.encode_classes(labels, scores)
    assert body.decode() == '{"results": [[["a",0.25], ["b\\"",NaN]], [["\N{REPLACEMENT CHARACTER}",1.0], ["",0.1]]]}'
    assert examples.encode_classes(None, scores[:1, :1]) == b'{"results": [[["",0.25]]]}'
    assert examples.encode_classes(labels[:1, :1], None) == b'{"results": [[["a",0.0]]]}'
    assert examples.encode_classes(None, scores[:, :0]) == b'{"results": [[], []]}'
    assert examples.encode_values(np.array([42, 0.1], np.float32)) == b'{"results": [42.0,0.1]}'


# -- npy --------------------------------------------------------------------------------------------------------------


@given(
    hnp.arrays(st.sampled_from(["f4", "f8", ">f4", "i8", "u1", "?", "f2"]), hnp.array_shapes(min_dims=0, min_side=0))
)
def test_npy_both_ways_and_as_numpy_has_it(array: Any) -> None:
    body = b"".join(npy.encode(array))
    assert np.array_equal(np.load(io.BytesIO(body)), array, equal_nan=array.dtype.kind == "f")
    for saved in (array, np.asarray(array, order="F")):
        file = io.BytesIO()
        np.save(file, saved)
        found = npy.decode(file.getvalue())
        assert found.dtype.isnative
        assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


def test_npy_that_is_refused() -> None:
    good = b"".join(npy.encode(np.zeros((2, 3), np.float32)))

    def head(text: str) -> bytes:
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()

    for body, text in (
        (b"", "not a .npy file"),
        (b"\xff\xd8\xff", "not a .npy file"),
        (good[:20], "not a .npy file"),
        (good[:-1], "promises 24 bytes, float32 of shape [2, 3]; 23 follow it"),
        (good + b"x", "25 follow it"),
        (b"\x93NUMPY\x09\x00" + good[8:], "expected 1.0, 2.0 or 3.0"),
        (head("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + b"x" * 8, "expected numbers or bools"),
        (head("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }\n") + b"x" * 8, "expected numbers or bools"),
        (head("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9, ), }\n"), "not a .npy file"),
        (head("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 9999999999999), }\n"), "0 follow it"),
        (head("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -4), }\n") + b"x" * 16, "sizes from 0 up"),
        (head(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 40}, }}\n") + b"x" * 4, "at most 32"),
        (head("[" * 900), "not a .npy file"),
        (head("{'descr': " * 90), "not a .npy file"),
    ):
        with pytest.raises(BadRequest) as caught:
            npy.decode(body)
        assert text in str(caught.value)
    with pytest.raises(TypeError):
        npy.encode(np.array([b"x"], object))


def test_npy_is_cast_as_far_as_nothing_is_lost_that_was_not_given_away() -> None:
    doubles = np.array([0.1, 1e300])
    assert npy.fitted(doubles, "float32").tolist() == [np.float32(0.1), math.inf]
    assert npy.fitted(np.array([3]), "float32").dtype == np.float32
    assert npy.fitted(np.array([255]), "uint8").dtype == np.int64  # an unsigned one is of another kind
    assert npy.fitted(np.array([7, -7]), "int8").tolist() == [7, -7]
    assert npy.fitted(doubles, "int32") is doubles
    assert npy.fitted(doubles, "bytes") is doubles
    with pytest.raises(BadRequest, match="does not fit int8"):
        npy.fitted(np.array([200]), "int8")


# -- what is said of models -------------------------------------------------------------------------------------------


def test_status_is_printed_as_protocol_buffers_do() -> None:
    assert tfserving_models.encode_status([VersionStatus(123, "AVAILABLE")]) == (
        b'{\n "model_version_status": [\n  {\n   "version": "123",\n   "state": "AVAILABLE",\n   "status": {\n'
        b'    "error_code": "OK",\n    "error_message": ""\n   }\n  }\n ]\n}\n'
    )


def test_metadata() -> None:
    inputs = (TensorSpec("x", "float32", (None, 3)), TensorSpec("s", "bytes", None), TensorSpec("n", "int64", ()))
    signature = Signature("serving_default", inputs, (TensorSpec("y", "float64", (None,)),), "regress")
    body = tfserving_models.encode_metadata("half", 7, {"serving_default": signature})
    assert body.startswith(
        b'{\n"model_spec":{\n "name": "half",\n "signature_name": "",\n "version": "7"\n}\n,\n"metadata"'
    )
    found = json.loads(body)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert found["method_name"] == "tensorflow/serving/regress"
    assert found["outputs"]["y"]["dtype"] == "DT_DOUBLE"
    assert found["inputs"]["x"] == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}, {"size": "3", "name": ""}], "unknown_rank": False},
        "name": "x:0",
    }
    assert found["inputs"]["s"]["tensor_shape"] == {"dim": [], "unknown_rank": True}
    assert (found["inputs"]["s"]["dtype"], found["inputs"]["n"]["dtype"]) == ("DT_STRING", "DT_INT64")
