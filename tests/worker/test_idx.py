"""The idx files of MNIST: read as they are, refused with a reason, and never anything else."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fairway.worker.dataset import idx
from fairway.worker.errors import BadRequest

DTYPES = ("uint8", "int8", "int16", "int32", "float32", "float64")
ANY_ARRAY = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays(np.dtype(dtype), array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


def test_real_files(shared_data: Path) -> None:
    folder = shared_data / "emnist/mnist"
    images = idx.decode(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()))
    labels = idx.decode(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()))
    assert images.shape == (10_000, 28, 28)
    assert images.dtype == np.uint8
    assert labels[:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]  # known to everybody who ever printed them
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_numbers_are_big_endian() -> None:
    found = idx.decode(bytes.fromhex("00 00 0b 02 00000001 00000002 0102 ff00"))
    assert found.tolist() == [[258, -256]]
    assert found.dtype.isnative


@given(ANY_ARRAY)
def test_both_directions(array: np.ndarray[Any, Any]) -> None:
    found = idx.decode(idx.encode(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(ANY_ARRAY, st.data())
def test_what_is_cut_short_or_too_long_is_refused(array: np.ndarray[Any, Any], data: st.DataObject) -> None:
    whole = idx.encode(array)
    with pytest.raises(BadRequest):
        idx.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadRequest, match="too long"):
        idx.decode(whole + b"\0")


@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda rest: b"\0\0" + rest))
def test_anything_is_an_array_or_refused(data: bytes) -> None:
    try:
        array = idx.decode(data)
    except BadRequest:
        return
    assert idx.encode(array) == data or array.dtype.kind == "f"  # a NaN need not keep its bits


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "begins with nothing"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\0", mtime=0), "compressed with gzip"),
        (b"\x89PNG....", "begins with 89 50 4e 47"),
        (b"\0\0\x07\1\0\0\0\0", "elements of type 07"),
        (b"\0\0\x08\0", "of 0 dimensions"),
        (b"\0\0\x08\3\0\0\0\1", "its head alone is 16"),
        (b"\0\0\x08\3" + b"\xff" * 12, "4294967295x4294967295x4294967295 of uint8"),
        (b"\0\0\x08\1\0\0\0\3ab", "cut short: its head promises 3 of uint8, 3 bytes; 2 follow"),
    ],
)
def test_why_it_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        idx.decode(data)


def test_what_the_format_does_not_have() -> None:
    for array in (np.zeros(2, np.uint16), np.zeros(2, bool), np.array(1, np.uint8)):
        with pytest.raises(ValueError, match="no form"):
            idx.encode(array)
