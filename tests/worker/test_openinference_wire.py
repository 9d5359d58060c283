"""Messages of the Open Inference Protocol: written and read again, read as others write them, and refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.errors import BadRequest
from fairway.worker.tensor import Signature, TensorSpec
from fairway.worker.wire import openinference
from fairway.worker.wire.openinference import InferRequest, InferResponse, RequestedOutput


def joined(pieces: openinference.Pieces) -> bytes:
    return b"".join(pieces)


def tensor(**changes: Any) -> dict[str, Any]:
    whole = {"name": "x", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]} | changes
    return {key: value for key, value in whole.items() if value is not None}


def request(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


ARRAYS = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "bytes": np.array([[b"\xff\xd8 jpeg"], [b""]], object),
    "none": np.empty((0, 5), np.int8),
    "one": np.array(True),
    "half": np.array([1.5, 2.5], np.float16),
    "doubles": np.array([1 / 3]),
}


def equal(found: dict[str, Any], arrays: dict[str, Any]) -> bool:
    return list(found) == list(arrays) and all(
        (a := arrays[name]).dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
        for name, b in found.items()
    )


def test_a_request_there_and_back() -> None:
    outputs = (RequestedOutput("y", binary=True), RequestedOutput("z", classes=3))
    pieces, length = openinference.encode_request(InferRequest(ARRAYS, outputs, "42", {"priority": 3}, binary=True))
    found = openinference.decode_request(joined(pieces), length)
    assert equal(found.inputs, ARRAYS)
    assert (found.outputs, found.id, found.binary) == (outputs, "42", True)
    assert found.parameters["priority"] == 3


def test_an_answer_there_and_back() -> None:
    answer = InferResponse("flowers", "3", ARRAYS, "42")
    pieces, length = openinference.encode_response(answer, binary=ARRAYS.keys())
    found = openinference.decode_response(joined(pieces), length)
    assert equal(found.outputs, ARRAYS)
    assert (found.model, found.version, found.id) == ("flowers", "3", "42")


def test_an_answer_of_json_and_of_both() -> None:
    arrays = {"y": np.array([[0.1, np.nan]], np.float32), "labels": np.array(["Löwenzahn"], object)}
    pieces, length = openinference.encode_response(InferResponse("m", "1", arrays))
    assert length is None
    assert json.loads(joined(pieces)) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.1, pytest.approx(np.nan, nan_ok=True)]},
            {"name": "labels", "datatype": "BYTES", "shape": [1], "data": ["Löwenzahn"]},
        ],
    }
    found = openinference.decode_response(joined(pieces), None).outputs
    np.testing.assert_array_equal(found["y"], arrays["y"])
    pieces, length = openinference.encode_response(InferResponse("m", "1", arrays), binary={"y"})
    body = joined(pieces)
    assert json.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert body[length:] == arrays["y"].tobytes()


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_a_request_as_the_protocol_shows_it(data: list[Any]) -> None:
    body = request(tensor(data=data), id="42", parameters={}, outputs=[{"name": "y", "parameters": {}}])
    found = openinference.decode_request(body, None)
    assert found.inputs["x"].dtype == np.uint32
    assert found.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert found.outputs == (RequestedOutput("y"),)
    # What is not plain numbers is read by other code, and looks the same.
    spaced = openinference.decode_request(body.replace(b"}", b', "also": null}', 1), None)
    assert spaced.inputs["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64", "UINT8", "BOOL"])
def test_both_readers_of_numbers_agree(datatype: str) -> None:
    values: list[Any] = [True, False] if datatype == "BOOL" else [1, 0] if datatype[0] != "F" else [1, 0.1]
    plain = request(tensor(datatype=datatype, shape=[2], data=values))
    odd = plain.replace(b'"x"', b'"x", "odd": [[[]]]')  # nothing the first one knows
    first, second = (openinference.decode_request(body, None).inputs["x"] for body in (plain, odd))
    assert first.dtype == second.dtype
    assert first.tolist() == second.tolist()


def test_numbers_that_json_does_not_know() -> None:
    body = request(tensor(datatype="FP32", shape=[3], data=[float("nan"), float("inf"), 1]))
    found = openinference.decode_request(body, None).inputs["x"]
    np.testing.assert_array_equal(found, np.array([np.nan, np.inf, 1], np.float32))


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5))
def test_floats_come_as_they_were(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    body = joined(openinference.encode_response(InferResponse("m", "1", {"y": array}))[0])
    np.testing.assert_array_equal(openinference.decode_response(body, None).outputs["y"], array)


def test_bytes_beside_json() -> None:
    text = request(
        tensor(name="a", data=None, parameters={"binary_data_size": 16}),
        tensor(name="b"),
        tensor(name="c", datatype="BOOL", shape=[3], data=None, parameters={"binary_data_size": 3}),
        parameters={"binary_data_output": True},
        outputs=[{"name": "y"}, {"name": "z", "parameters": {"binary_data": False}}],
    )
    raw = np.arange(4, dtype="<u4").tobytes() + b"\1\0\1"
    found = openinference.decode_request(text + raw, len(text))
    assert [found.inputs[name].ravel().tolist() for name in "abc"] == [[0, 1, 2, 3], [1, 2, 3, 4], [True, False, True]]
    assert [output.binary for output in found.outputs] == [True, False]


def test_the_only_input_takes_all_that_follows() -> None:
    text = request(tensor(datatype="BYTES", shape=[2], data=None))
    found = openinference.decode_request(text + b"\1\0\0\0a\0\0\0\0", len(text))
    assert found.inputs["x"].tolist() == [b"a", b""]


JPEG = tensor(data=None, parameters={"binary_data_size": 16})
TWO = {"binary_data_size": 2**62}

REFUSED: list[tuple[bytes, bytes, str]] = [
    (request(JPEG), b"\0" * 15, "16 bytes are cut short: 15 are left"),
    (request(JPEG), b"\0" * 17, "1 bytes of the body belong to no tensor"),
    (request(JPEG, JPEG), b"\0" * 32, "'x' is given twice"),
    (request(JPEG, tensor(name="y", data=None, parameters=TWO)), b"\0" * 20, "bytes are cut short: 4 are left"),
    (request(tensor(data=None, parameters={"binary_data_size": 8})), b"\0" * 8, "has 8 bytes, but UINT32 of shape"),
    (request(tensor(data=None, parameters={"binary_data_size": -1})), b"", "binary_data_size is -1"),
    (request(tensor(data=None, parameters={"binary_data_size": True})), b"\0", "binary_data_size is True"),
    (request(tensor(data=None, parameters={"binary_data_size": "16"})), b"\0" * 16, "binary_data_size is '16'"),
    (request(tensor(data=None, parameters={"binary_data_size": 1.0})), b"\0", r"binary_data_size is 1\.0"),
    (request(tensor(parameters={"binary_data_size": 16})), b"\0" * 16, "either \"data\" or binary_data_size"),
    (request(tensor(data=None)), b"", "either \"data\" or binary_data_size"),
    (request(tensor(data=None), tensor(name="y")), b"\0" * 16, "either \"data\" or binary_data_size"),
    (request(tensor(data=None, parameters={"shared_memory_region": "r"})), b"", "lies in shared memory"),
    (request(tensor(datatype="FP128")), b"", "datatype is 'FP128'"),
    (request(tensor(datatype="FP16")), b"", "FP16 has no form in JSON"),
    (request(tensor(datatype=["FP32"])), b"", "datatype is"),
    (request(tensor(shape=[2, -2])), b"", "whole numbers from 0 up"),
    (request(tensor(shape=[2**40, 2**40])), b"", "more than any request can hold"),
    (request(tensor(shape=[2, 3])), b"", r"has 4 elements, but the shape is \[2, 3\]"),
    (request(tensor(data=[1, 2, 3, "4"])), b"", "something else than UINT32"),
    (request(tensor(data=[1, 2, 3, 4.5])), b"", "something else than UINT32"),
    (request(tensor(data=[[1, 2, 3], [4]])), b"", "no regular array"),
    (request(tensor(data=[1, 2, 3, [4]])), b"", "no regular array"),
    (request(tensor(name=5)), b"", 'no object with a "name"'),
    (request(tensor(parameters=[])), b"", 'parameters" of tensor \'x\' is list'),
    (request(tensor(), parameters=5), b"", 'parameters" of the request is int'),
    (request(tensor(), parameters={"binary_data_output": 1}), b"", "binary_data_output is 1"),
    (request(tensor(), outputs=5), b"", '"outputs" is int'),
    (request(tensor(), outputs=["y"]), b"", 'no object with a "name"'),
    (request(tensor(), outputs=[{"name": "y"}, {"name": "y"}]), b"", "requested twice"),
    (request(tensor(), outputs=[{"name": "y", "parameters": {"classification": -1}}]), b"", "classification is -1"),
    (request(tensor(), outputs=[{"name": "y", "parameters": {"classification": "2"}}]), b"", "classification is '2'"),
    (request(tensor(), outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), b"", "shared memory"),
    (request(tensor(), id=5), b"", '"id" is int'),
    (request(), b"", '"inputs" is missing or empty'),
    (b'{"inputs": {}}', b"", '"inputs" is missing or empty'),
    (b"{}", b"", '"inputs" is missing or empty'),
    (b"[]", b"", "list; expected an object"),
    (b"", b"", "JSON"),
    (b'{"inputs": [', b"", "JSON"),
    (b"[" * 10_000, b"", "JSON"),
    (b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", b"", "JSON"),
    (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b"", "JSON"),
    (b"\xff\xd8\xff\xe0", b"", "JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "raw", "reason"), REFUSED)
def test_what_is_refused(text: bytes, raw: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        openinference.decode_request(text + raw, len(text))
    if not raw:
        with pytest.raises(BadRequest, match=reason):
            openinference.decode_request(text, None)


@given(st.binary(max_size=60), st.integers(0, 60))
def test_whatever_comes_is_read_or_refused(body: bytes, length: int) -> None:
    with pytest.raises(BadRequest):
        openinference.decode_request(body, min(length, len(body)))


@given(st.data())
def test_a_body_cut_short_is_refused(data: st.DataObject) -> None:
    pieces, length = openinference.encode_request(InferRequest(ARRAYS))
    body = joined(pieces)
    end = data.draw(st.integers(length, len(body) - 1))
    with pytest.raises(BadRequest):
        openinference.decode_request(body[:end], length)


@pytest.mark.parametrize("text", ["-1", "", "abc", "1e2", "11", "9" * 30, "³", "0x5", "5, 5"])
def test_the_length_of_the_json_is_checked(text: str) -> None:
    with pytest.raises(BadRequest, match=r"Inference-Header-Content-Length is .*; expected how many of the body's 10"):
        openinference.header_length(text, 10)


def test_the_length_of_the_json() -> None:
    assert [openinference.header_length(text, 10) for text in (None, "0", " 10 ", "007")] == [None, 0, 10, 7]


def signature(dtype: str, *shape: int | None, batch: int | None = 0) -> Signature:
    return Signature("serving_default", (TensorSpec("x", dtype, shape),), (), batch=batch)


@pytest.mark.parametrize(
    ("sign", "size", "shape"),
    [
        (signature("float32", None, 2, 2), 16, (1, 2, 2)),
        (signature("float32", None, 2, 2), 48, (3, 2, 2)),
        (signature("float32", None, None), 48, (1, 12)),
        (signature("uint8", 2, 2, 3, batch=None), 12, (2, 2, 3)),
        (signature("int16", None, batch=None), 12, (6,)),
        (signature("float32", 1, None, batch=1), 12, (1, 3)),
    ],
)
def test_a_body_that_is_the_tensor(sign: Signature, size: int, shape: tuple[int, ...]) -> None:
    found = openinference.decode_raw(bytes(size), sign)
    assert found.inputs["x"].shape == shape
    assert found.binary


@pytest.mark.parametrize("shape", [(None,), (None, 1), None])
def test_a_body_that_is_one_byte_string(shape: tuple[int | None, ...] | None) -> None:
    spec = TensorSpec("x", "bytes", shape)
    found = openinference.decode_raw(b"\xff\xd8", Signature("s", (spec,), ())).inputs["x"]
    assert (found.ravel().tolist(), found.ndim) == ([b"\xff\xd8"], len(shape or (1,)))


@pytest.mark.parametrize(
    ("sign", "size"),
    [
        (signature("float32", None, 2, 2), 0),
        (signature("float32", None, 2, 2), 15),
        (signature("float32", 2, 2), 17),
        (signature("float32", 2, 2), 32),
        (signature("float32", None, None, batch=None), 16),
        (signature("float32", None, None, None), 16),
        (Signature("s", (TensorSpec("x", "float32", None),), ()), 16),
    ],
)
def test_a_body_that_is_not_the_tensor(sign: Signature, size: int) -> None:
    with pytest.raises(BadRequest, match=f"body's {size} bytes do not make FP32"):
        openinference.decode_raw(bytes(size), sign)


def test_a_body_cannot_be_two_tensors() -> None:
    two = (TensorSpec("x", "float32", (1,)), TensorSpec("y", "float32", (1,)))
    with pytest.raises(BadRequest, match="the model has 2 inputs"):
        openinference.decode_raw(bytes(8), Signature("s", two, ()))


def test_what_we_send_is_read_where_it_lies() -> None:
    for name in ("x", "xy", "xyz", "a long name"):
        pieces, length = openinference.encode_request(InferRequest({name: np.ones((3, 5))}))
        assert not openinference.decode_request(joined(pieces), length).inputs[name].flags.owndata
