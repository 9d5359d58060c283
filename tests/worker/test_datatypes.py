"""The Open Inference Protocol's datatypes: every one of them there and back, and what is none of them."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fairway.worker.errors import BadRequest
from fairway.worker.wire import datatypes

NUMBERS = [name for name in datatypes.NUMPY if name != "BYTES"]


def strings(*elements: bytes | str, shape: tuple[int, ...] = (-1,)) -> NDArray[Any]:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def sample(datatype: str) -> NDArray[Any]:
    dtype = np.dtype(datatypes.NUMPY[datatype])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max, 1], [0, 7, 100]], dtype)
    if dtype.kind == "f":
        ends = np.finfo(dtype)
        return np.array([[ends.min, ends.max, 0.1], [-0.0, ends.tiny, 1 / 3]], dtype)
    return np.array([[True, False, True], [False, False, True]])


@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_as_bytes(datatype: str) -> None:
    array = sample(datatype)
    assert datatypes.datatype_of(array) == datatype
    for given_array in (array, np.asfortranarray(array), array[:, ::2], array.astype(array.dtype.newbyteorder(">"))):
        raw = bytes(datatypes.to_bytes(given_array))
        assert raw == given_array.astype(array.dtype).tobytes()
        for start in (0, 1):  # within a body nothing is aligned
            found = datatypes.from_bytes("x", datatype, given_array.shape, memoryview(b"\0" * start + raw)[start:])
            assert found.dtype == array.dtype
            assert found.flags.aligned
            np.testing.assert_array_equal(found, given_array)


@pytest.mark.parametrize("datatype", [name for name in NUMBERS if name != "FP16"])
def test_numbers_as_json(datatype: str) -> None:
    array = sample(datatype)
    flat = orjson.loads(datatypes.to_json("x", array))
    nested = orjson.loads(orjson.dumps(np.array(flat, object).reshape(array.shape).tolist()))
    for data in (flat, nested):
        found = datatypes.from_list("x", datatype, array.shape, data)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_bfloat16_is_widened_without_a_loss() -> None:
    array = np.array([[1.5, -3e38, 0.1], [np.inf, 0, 1e-38]], ml_dtypes.bfloat16)
    raw = bytes(datatypes.to_bytes(array))
    assert datatypes.datatype_of(array) == "BF16"
    assert len(raw) == 12
    found = datatypes.from_bytes("x", "BF16", (2, 3), raw)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, array.astype(np.float32))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_numbers_have_no_json(datatype: str) -> None:
    with pytest.raises(BadRequest, match="no form in JSON; send it as binary"):
        datatypes.from_list("x", datatype, (1,), [1.5])
    array = np.ones(1, np.float16 if datatype == "FP16" else ml_dtypes.bfloat16)
    with pytest.raises(BadRequest, match="no form in JSON; ask for it as binary"):
        datatypes.to_json("x", array)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_byte_strings(elements: list[bytes]) -> None:
    array = strings(*elements)
    raw = bytes(datatypes.to_bytes(array))
    assert len(raw) == sum(4 + len(element) for element in elements)
    found = datatypes.from_bytes("x", "BYTES", array.shape, raw)
    assert found.tolist() == elements


@given(st.binary(max_size=40), st.integers(0, 5))
def test_byte_strings_out_of_anything(raw: bytes, count: int) -> None:
    """Whatever the bytes are: they are those strings exactly, or refused."""
    try:
        found = datatypes.from_bytes("x", "BYTES", (count,), raw)
    except BadRequest:
        return
    assert bytes(datatypes.to_bytes(found)) == raw


def test_texts() -> None:
    array = strings("Gänseblümchen", b"\xe2\x82\xac", "", shape=(3, 1))
    assert bytes(datatypes.to_bytes(array))[4:19] == "Gänseblümchen".encode()
    assert json.loads(datatypes.to_json("x", array)) == ["Gänseblümchen", "€", ""]
    assert datatypes.from_list("x", "BYTES", (2, 1), [["ä"], [""]]).tolist() == [["ä".encode()], [b""]]
    fixed = np.array([b"ab", b"c"])
    assert bytes(datatypes.to_bytes(fixed)) == b"\2\0\0\0ab\1\0\0\0c"
    with pytest.raises(BadRequest, match="no UTF-8 text; ask for it as binary"):
        datatypes.to_json("x", strings(b"\xff\xd8"))


def test_nan_and_the_infinities() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    text = datatypes.to_json("x", array)
    assert text == b"[NaN,Infinity,-Infinity,1.0]"
    np.testing.assert_array_equal(datatypes.from_list("x", "FP32", (4,), json.loads(text)), array)


def test_nothing_and_one() -> None:
    for shape, count in (((0, 3), 0), ((), 1)):
        array = np.ones(shape, np.int32)
        assert len(datatypes.to_bytes(array)) == 4 * count
        assert datatypes.from_bytes("x", "INT32", shape, bytes(datatypes.to_bytes(array))).shape == shape
        assert datatypes.from_list("x", "INT32", shape, [1] * count).shape == shape
    assert datatypes.from_bytes("x", "BYTES", (0,), b"").shape == (0,)


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "text"),
    [
        ("FP32", (2, 2), b"\0" * 15, r"has 15 bytes, but FP32 of shape \[2, 2\] takes 16"),
        ("FP32", (2, 2), b"\0" * 17, "has 17 bytes"),
        ("FP32", (1 << 30, 1 << 10), b"", "takes 4398046511104"),
        ("BOOL", (2,), b"\0\2", "neither 0 nor 1"),
        ("BYTES", (2,), b"\1\0\0\0a\3\0\0\0b", "ends inside of BYTES number 1 of 2"),
        ("BYTES", (2,), b"\2\0\0\0ab\0\0", "ends inside of BYTES number 1 of 2"),
        ("BYTES", (1,), b"\xff\xff\xff\xffa", "ends inside of BYTES number 0 of 1"),
        ("BYTES", (1,), b"\1\0\0\0ab", "has 1 bytes more than its 1 BYTES"),
        ("BYTES", (1 << 35,), b"\0" * 8, "too few for 34359738368 BYTES"),
        ("BYTES", (), b"", "too few for 1 BYTES"),
    ],
)
def test_bytes_that_do_not_fit(datatype: str, shape: tuple[int, ...], raw: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        datatypes.from_bytes("x", datatype, shape, raw)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "text"),
    [
        ("FP32", (2,), "12", "is str; expected an array"),
        ("FP32", (2,), None, "is NoneType; expected an array"),
        ("FP32", (2,), [1], r"has 1 elements, but the shape is \[2\]"),
        ("FP32", (2, 3), [[1, 2], [3, 4], [5, 6]], r"has shape \[3, 2\], but the shape is \[2, 3\]"),
        ("FP32", (3,), [[1, 2], [3]], "no regular array"),
        ("FP32", (1,), ["1.5"], "something else than FP32"),
        ("FP32", (1,), [None], "something else than FP32"),
        ("FP32", (1,), [{}], "something else than FP32"),
        ("FP32", (1,), [1e39], "does not fit FP32"),
        ("INT32", (1,), [1.5], "something else than INT32"),
        ("INT32", (1,), [1.0], "something else than INT32"),
        ("INT32", (1,), [2**31], "does not fit INT32"),
        ("INT32", (1,), [2**70], "something else than INT32"),
        ("UINT8", (2,), [0, -1], "does not fit UINT8"),
        ("UINT64", (2,), [2**63, -1], "something else than UINT64"),
        ("BOOL", (1,), [1], "something else than BOOL"),
        ("BYTES", (1,), [1], "something else than BYTES"),
        ("BYTES", (2,), [["a", "b"], ["c"]], "something else than BYTES"),
        ("BYTES", (1,), ["\ud800"], "no Unicode"),
    ],
)
def test_lists_that_do_not_fit(datatype: str, shape: tuple[int, ...], data: Any, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        datatypes.from_list("x", datatype, shape, data)


def test_lists_nested_without_end() -> None:
    data: Any = 1.0
    for _ in range(900):
        data = [data]
    with pytest.raises(BadRequest, match="no regular array"):
        datatypes.from_list("x", "FP32", (1,), data)


@pytest.mark.parametrize(
    ("datatype", "shape", "text"),
    [
        ("FP33", [1], "datatype is 'FP33'; expected one of BOOL"),
        (32, [1], "datatype is 32"),
        (None, [1], "datatype is None"),
        (["FP32"], [1], "datatype is"),
        ("FP32", None, "shape is None"),
        ("FP32", 3, "shape is 3"),
        ("FP32", [-1, 3], "whole numbers from 0 up"),
        ("FP32", [1.0], "whole numbers"),
        ("FP32", [True], "whole numbers"),
        ("FP32", ["3"], "whole numbers"),
        ("FP32", [1] * 33, "33 dimensions; at most 32"),
        ("FP32", [2**62, 2**62, 4], "more than any request can hold"),
        ("FP32", [0, 2**62, 2**62], "more than any request can hold"),
        ("FP32", [2**20, 2**21], "more than any request can hold"),
        ("FP32", [10**5000], "more than any request can hold"),
    ],
)
def test_what_is_no_datatype_or_no_shape(datatype: Any, shape: Any, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        datatypes.check("x", datatype, shape)


def test_dtypes_of_models() -> None:
    assert [datatypes.name_of(dtype) for dtype in ("float32", "bytes", "bfloat16", "complex64")] == [
        "FP32", "BYTES", "BF16", "COMPLEX64",
    ]  # fmt: skip
    with pytest.raises(BadRequest, match="no datatype for complex64"):
        datatypes.to_bytes(np.ones(1, np.complex64))
