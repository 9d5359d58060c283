"""TensorProto and arrays, beside TensorFlow's own reader and writer."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.errors import BadRequest, TooLarge
from fairway.worker.tensor import TensorSpec
from fairway.worker.wire import tensor_proto
from fairway.worker.wire.protobuf import message
from fairway.worker.wire.tensor_proto import KINDS, from_array, numbers, shape_proto, to_array

from ..conftest import ROOT

TensorProto = message("tensorflow.TensorProto")
PLAIN = [dtype for dtype, _ in KINDS.values() if dtype not in ("object", "bfloat16")]


def sample(dtype: str) -> np.ndarray[Any, Any]:
    if np.dtype(dtype).kind == "b":
        return np.array([[True, False, True], [False, False, True]])
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max, 0], [1, 2, 3]], dtype)
    if np.dtype(dtype).kind == "c":
        return np.array([[1 + 2j, -0.5j, 3], [0, 1e-3, 7]], dtype)
    return np.array([[0.5, -1.25, np.inf], [0, 6e-5, 3]], dtype)


def proto(dtype: str, *sizes: int, **more: Any) -> Any:
    made = TensorProto(dtype=numbers()[dtype], **more)
    for size in sizes:
        made.tensor_shape.dim.add(size=size)
    return made


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("dtype", [*PLAIN, "bfloat16", "object"])
def test_tensorflow_reads_what_is_written_and_is_read(dtype: str, content: bool) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    from tensorflow.core.framework import tensor_pb2

    if dtype == "object":
        array = np.array([[b"a", b"", b"\xff" * 300]], object)
    elif dtype == "bfloat16":
        array = sample("float32").astype(tf.bfloat16.as_numpy_dtype)
    else:
        array = sample(dtype)
    sent = from_array(array, content)
    theirs = tensor_pb2.TensorProto.FromString(sent.SerializeToString())
    assert np.array_equal(tf.make_ndarray(theirs), array)
    assert tf.as_dtype(theirs.dtype).name == ("string" if dtype == "object" else dtype)

    back = to_array(sent)
    wanted = array.astype("float32") if dtype == "bfloat16" else array
    assert (back.dtype, back.shape) == (wanted.dtype, wanted.shape)
    assert np.array_equal(back, wanted)

    kernel = tensor_pb2.TensorProto.FromString(tf.io.serialize_tensor(array).numpy())
    for written in (tf.make_tensor_proto(array), kernel):
        assert np.array_equal(to_array(TensorProto.FromString(written.SerializeToString())), wanted)


@pytest.mark.parametrize("dtype", PLAIN)
def test_the_last_value_stands_for_the_rest(dtype: str) -> None:
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    from tensorflow.core.framework import tensor_pb2

    short = from_array(sample(dtype).reshape(-1)[:2])
    del short.tensor_shape.dim[:]
    short.tensor_shape.dim.add(size=5)
    theirs = tf.make_ndarray(tensor_pb2.TensorProto.FromString(short.SerializeToString()))
    assert np.array_equal(to_array(short), theirs)
    assert theirs[4] == theirs[1] != theirs[0]


def test_an_empty_list_is_zeros_and_an_empty_shape_a_scalar() -> None:
    assert to_array(proto("DT_FLOAT", 2, 2)).tolist() == [[0, 0], [0, 0]]
    assert to_array(proto("DT_STRING", 2)).tolist() == [b"", b""]
    assert to_array(proto("DT_INT64", int64_val=[7])).shape == ()
    assert to_array(proto("DT_FLOAT", 0, 3)).shape == (0, 3)


def test_strings_packed_into_content_are_read() -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    long = b"x" * 200
    packed = proto("DT_STRING", 3, tensor_content=bytes([1, 0, 0xC8, 1]) + b"a" + long)
    assert to_array(packed).tolist() == [b"a", b"", long]


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (proto("DT_FLOAT", 2, tensor_content=b"1234567"), "7 bytes, but shape .2. of DT_FLOAT takes 8"),
        (proto("DT_FLOAT", -1, float_val=[1]), "sizes from 0 up"),
        (proto("DT_FLOAT", 1, float_val=[1, 2]), "lists 2 values, but shape .1. takes 1"),
        (proto("DT_FLOAT", *[1] * 33), "33 dimensions"),
        (proto("DT_FLOAT", 0, 2**62, 2**62), "more than any message"),
        (proto("DT_UINT8", 1, int_val=[256]), "does not fit DT_UINT8"),
        (proto("DT_HALF", 1, half_val=[-1]), "does not fit DT_HALF"),
        (proto("DT_BOOL", 1, tensor_content=b"\2"), "neither 0 nor 1"),
        (proto("DT_COMPLEX64", 1, scomplex_val=[1]), "in pairs"),
        (proto("DT_RESOURCE", 1), "its type is DT_RESOURCE"),
        (TensorProto(dtype=99), "its type is type 99"),
        (TensorProto(), "its type is DT_INVALID"),
        (proto("DT_STRING", 2, tensor_content=b"\1"), "too few for 2 byte strings"),
        (proto("DT_STRING", 1, tensor_content=b"\x80"), "ends inside of its lengths"),
        (proto("DT_STRING", 1, tensor_content=b"\x80" * 6), "ends inside of its lengths"),
        (proto("DT_STRING", 1, tensor_content=b"\2a"), "1 bytes, but their lengths add up to 2"),
    ],
)
def test_what_is_no_tensor_is_refused(bad: Any, text: str) -> None:
    with pytest.raises(BadRequest, match=f"^tensor parsing error: x: .*{text}"):
        to_array(bad, "x")


def test_a_shape_of_unknown_rank_is_refused() -> None:
    bad = proto("DT_FLOAT", float_val=[1])
    bad.tensor_shape.unknown_rank = True
    with pytest.raises(BadRequest, match="not known"):
        to_array(bad)


def test_a_short_list_cannot_ask_for_more_memory_than_a_message_has() -> None:
    with pytest.raises(TooLarge, match="takes more than 1000 bytes"):
        to_array(proto("DT_FLOAT", 251, float_val=[1]), most=1000)
    assert to_array(proto("DT_FLOAT", 250, float_val=[1]), most=1000).sum() == 250


def test_what_tensorflow_has_no_type_for_is_refused() -> None:
    with pytest.raises(BadRequest, match="no type for datetime64"):
        from_array(np.array(["2020-01-01"], "datetime64[D]"))


def test_shapes_of_a_model() -> None:
    assert [dim.size for dim in shape_proto(TensorSpec("x", "float32", (None, 4))).dim] == [-1, 4]
    assert shape_proto(TensorSpec("x", "float32", None)).unknown_rank


NARROW = """
import sys
from fairway.worker.wire.protobuf import message
from fairway.worker.wire.tensor_proto import numbers, to_array
tensor = message("tensorflow.TensorProto")
for values in ({"half_val": [0x3FC0]}, {"tensor_content": b"\\xc0\\x3f"}):
    array = to_array(tensor(dtype=numbers()["DT_BFLOAT16"], **values))
    assert (array.dtype, array.item()) == ("float32", 1.5)
assert "ml_dtypes" not in sys.modules
"""


def test_bfloat16_needs_nothing_but_numpy() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", NARROW], check=True, timeout=60, env=environment)


@given(st.binary(max_size=200), st.sampled_from([2**31 - 1, 4096]))
def test_no_bytes_bring_down_the_reader(raw: bytes, most: int) -> None:
    from google.protobuf.message import DecodeError

    try:
        tensor = TensorProto.FromString(raw)
    except DecodeError:
        return
    try:
        array = to_array(tensor, most=4096)
    except (BadRequest, TooLarge):
        return
    assert array.nbytes <= 4096
    assert tensor_proto.type_name(tensor.dtype) in KINDS
