"""Numbers of JSON: the quick reader and the exact one agree, and neither falls over."""

from __future__ import annotations

import contextlib
import json
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fairway.worker.errors import BadRequest
from fairway.worker.wire import elements, numbers

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*INTEGERS, "float32", "float64")


def read(body: bytes, dtype: str) -> Any:
    """By the quick reader, whatever stands under "x"."""
    with numbers.Reader(body) as reader:
        if reader.fields is None:
            return None
        array = reader.array(reader.fields["x"], dtype)
        return array if reader.finished else None


def read_exactly(body: bytes, dtype: str) -> Any:
    return elements.dense(numbers.parse(body)["x"], dtype)


# -- the quick reader -------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


def nested(shape: tuple[int, ...], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if not shape:
        return leaves
    return st.lists(nested(shape[1:], leaves), min_size=shape[0], max_size=shape[0])


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from(DTYPES))
def test_what_json_reads_is_read_alike(data: st.DataObject, shape: list[int], dtype: str) -> None:
    values = data.draw(nested(tuple(shape), finite))
    body = json.dumps({"x": values}).encode()
    quick = read(body, dtype)
    try:
        exact = read_exactly(body, dtype)
    except BadRequest:
        assert quick is None  # what is refused is never read quickly
        return
    expected = np.array(json.loads(body)["x"], dtype=object).astype(dtype)
    assert exact.dtype == dtype
    assert np.array_equal(exact, expected)
    if quick is not None:
        assert quick.dtype == dtype
        assert np.array_equal(quick, exact)
        assert np.array_equal(np.signbit(quick), np.signbit(exact))


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=st.floats(-1, 1, width=32))
)
def test_common_numbers_are_read_quickly(array: Any) -> None:
    for body in (json.dumps({"x": array.astype(float).tolist()}).encode(), b'{"x": ' + numbers.write(array) + b"}"):
        quick = read(body, "float32")
        assert quick is not None
        assert np.array_equal(quick, array)


ragged = st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, max_size=4), max_leaves=20)


@given(ragged, st.booleans())
@example([[1, [2]], [3, 4]], False)  # as many numbers as if it were regular
@example([1, [2]], False)
@example([[1, 2], [3], [4, 5, 6]], False)
@example([[[1], [2]], [[3], [4, 5]]], False)
def test_no_ragged_list_is_taken_for_an_array(value: Any, indented: bool) -> None:
    body = json.dumps({"x": value}, indent=1 if indented else None).encode()
    quick = read(body, "int64")
    try:
        array = np.array(value)
    except ValueError:
        array = None
    if array is None or array.dtype == object:
        assert quick is None
        with pytest.raises(BadRequest):
            read_exactly(body, "int64")
    elif quick is not None:
        assert np.array_equal(quick, array)


def test_many_little_lists_are_checked_each() -> None:
    picture = np.arange(40 * 40 * 3).reshape(1, 40, 40, 3) % 256
    body = json.dumps({"x": picture.tolist()}).encode()
    found = read(body, "uint8")
    assert found is not None
    assert np.array_equal(found, picture)
    for broken in (  # as many numbers and as many lists as before, and the first ones as long
        body.replace(b"[3, 4, 5], [6, 7, 8]", b"[3, 4], [5, 6, 7, 8]", 1),
        body.replace(b"[3, 4, 5], [6, 7, 8]", b"[3, 4, 5, 6], [7, 8]", 1),
        body.replace(b"[237, 238, 239]], [[240, 241, 242], ", b"[237, 238, 239], [240, 241, 242]], [", 1),
    ):
        assert broken != body
        assert read(broken, "uint8") is None
        with pytest.raises(BadRequest):
            read_exactly(broken, "uint8")


def test_what_the_first_lists_promise_is_no_memory_yet() -> None:
    """A thousand long lists of a thousand lists of a hundred thousand numbers, it seems: 400 gigabytes of them."""
    first = b"[[" + b",".join([b"1"] * 100_000) + b"]" + b",[1]" * 999 + b"]"
    body = b'{"x": [' + first + (b",[[1]" + b",[1]" * 999 + b"]") * 999 + b"]}"
    tracemalloc.start()
    try:
        assert read(body, "float32") is None
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_list_that_hides_elsewhere_is_noticed() -> None:
    body = b'{"x": [1, 2], "y": [3]}'
    assert read(body, "float32") is None  # which of them the brackets belong to is not known
    assert read_exactly(body, "float32").tolist() == [1, 2]


def test_parsers_are_used_again_but_never_under_somebodys_hands() -> None:
    with numbers.Reader(b'{"x": [[1, 2], [3, 4]]}') as outer:
        assert outer.fields is not None
        value = outer.fields["x"]
    held = outer._parser
    assert numbers._idle[-1] is held
    other = read(b'{"x": [[5, 6], [7, 8]]}', "int64")  # while `value` is held
    assert numbers._idle[-1] is not held
    assert (value[1][1], other.tolist()) == (4, [[5, 6], [7, 8]])
    parser = numbers._idle[-1]
    for body in (b"no JSON", b'{"x": ' + b"[" * 2000 + b"]" * 2000 + b"}", b'{"x": [9]}'):
        read(body, "int64")
    assert read(b'{"x": [9]}', "int64").tolist() == [9]
    with numbers.Reader(b'{"x": [9]}' + b" " * numbers.KEPT_BYTES) as large:
        parser = large._parser
    assert parser not in numbers._idle
    assert len(numbers._idle) <= numbers.KEPT_PARSERS


@given(st.lists(finite | st.booleans() | st.none(), min_size=1), st.sampled_from(DTYPES))
@example([2**63], "uint64")
@example([2**64], "uint64")
@example([1, 2**63], "int64")
@example([1.0], "int32")
def test_numbers_of_many_objects_are_read_alike(values: list[Any], dtype: str) -> None:
    body = json.dumps({"x": [{"y": value} for value in values]}).encode()
    quick = None
    with numbers.Reader(body) as reader:
        if reader.fields is not None and reader.holds_objects(reader.fields["x"]):
            members = [found for found in reader.objects(reader.fields["x"]) if found is not None]
            quick = reader.column([found["y"] for found in members], dtype)
            assert reader.finished
    try:
        exact = elements.dense([found["y"] for found in numbers.parse(body)["x"]], dtype)
    except BadRequest:
        assert quick is None
        return
    if quick is not None:
        assert quick.dtype == exact.dtype
        assert np.array_equal(quick, exact)


# -- the exact reader -------------------------------------------------------------------------------------------------

REFUSED = {
    b"": "JSON Parse error: The document is empty",
    b" \n": "JSON Parse error: The document is empty. at offset: 2",
    b"instances = [1, 2]": "JSON Parse error: Invalid value. at offset: 0",
    b'{"x": 1e400}': "JSON Parse error: Number too big to be stored in double. at offset: 6",
    b'{"x": -1e99999999999}': "JSON Parse error: Number too big to be stored in double. at offset: 6",
    b'{"x": ' + b"9" * 5000 + b"}": "JSON Parse error: Number too big to be stored in double. at offset: 6",
    b'{"x": [1, 2': "JSON Parse error: Missing a comma or ] after an array element. at offset: 11",
    b'{"x": [1 2]}': "JSON Parse error: Missing a comma or ] after an array element. at offset: 9",
    b'{"x": "]" "y": 2}': "JSON Parse error: Missing a comma or } after an object member. at offset: 10",
    b'{"x" 1}': "JSON Parse error: Missing a colon after a name of object member. at offset: 5",
    b"{1}": "JSON Parse error: Missing a name for object member. at offset: 1",
    b'{"x": "abc': "JSON Parse error: Missing a closing quotation mark in string. at offset: 6",
    b'{"x": "\\q"}': "JSON Parse error: Invalid escape character in string. at offset: 7",
    b'{"x": "\\u12"}': "JSON Parse error: Incorrect hex digit after \\u escape in string. at offset: 8",
    b'{"x": "\xff"}': "JSON Parse error: Invalid encoding in string. at offset: 7",
    b'{"x": 1, "x": 2}': 'JSON object: the key "x" is there twice',
    b'{"x": ' + b"[" * 10_000: "JSON Parse error: Nested too deeply.",
    b"[" * 10_000 + b"]" * 10_000: "JSON Parse error: Nested too deeply.",
    b'{"x":' * 10_000: "JSON Parse error: Nested too deeply.",
    b"[1]": "JSON Value: [\n    1\n] Is not object",
    b"{": "JSON Parse error: Missing a name for object member. at offset: 1",
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_no_json_is_refused_in_rapidjsons_words(body: bytes) -> None:
    assert numbers.Reader(body).fields is None
    with pytest.raises(BadRequest) as caught:
        numbers.parse(body)
    assert str(caught.value) == REFUSED[body]


@given(st.binary(max_size=60))
def test_nothing_but_bad_request_is_raised(body: bytes) -> None:
    for candidate in (body, b'{"x": ' + body, b'{"x": "' + body + b'"}', b'{"x": [' + body + b"]}"):
        with numbers.Reader(candidate):
            pass
        with contextlib.suppress(BadRequest):
            numbers.parse(candidate)


def test_what_follows_the_document_is_ignored() -> None:
    assert numbers.parse(b'\xef\xbb\xbf {"x": 1} {"y": ') == {"x": 1}


def test_what_would_be_millions_of_pythons_objects_is_refused_before() -> None:
    most = b'{"x": [' + b"1," * (numbers.MAX_VALUES - 2)  # and two brackets
    assert len(numbers.parse(most + b"1]}")["x"]) == numbers.MAX_VALUES - 1
    for more in (b"1,1]}", b"[1]]}", b'{"x":1}]}', b"1,"):
        with pytest.raises(BadRequest, match="more than 1048576 values"):
            numbers.parse(most + more)
    assert len(read(most + b"1,1,1]}", "int64")) == numbers.MAX_VALUES + 1  # which are no objects there


def test_numbers_beyond_64_bits_are_floats() -> None:
    found = numbers.parse(b'{"a": 18446744073709551615, "b": 18446744073709551616, "c": -9223372036854775809}')
    assert [type(value) for value in found.values()] == [int, float, float]


def test_an_error_does_not_print_a_document_to_its_end() -> None:
    class Endless(list[int]):
        def __iter__(self) -> Any:
            for _ in range(2000):
                yield 1
            raise AssertionError("printed to its end")

    assert numbers.shown(Endless([1])).endswith("...")
    assert numbers.shown([1, "é"]) == '[\n    1,\n    "é"\n]'


# -- writing ----------------------------------------------------------------------------------------------------------


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.int64, np.uint64, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    )
)
def test_what_is_written_is_read_again(array: Any) -> None:
    for layout in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        text = numbers.write(layout)
        found = np.array(json.loads(text), dtype=array.dtype).reshape(array.shape)
        assert np.array_equal(found, array, equal_nan=array.dtype.kind == "f")


def test_floats_are_written_shortly_and_never_as_whole_numbers() -> None:
    array = np.array([0.1, 3.0, 1e-45, 16777216, math.nan, math.inf, -math.inf], np.float32)
    assert numbers.write(array) == b"[0.1,3.0,1e-45,16777216.0,NaN,Infinity,-Infinity]"
    assert numbers.write(np.array(0.1, np.float32)) == b"0.1"


def test_what_are_no_numbers_is_a_type_error() -> None:
    for array in (np.array([1j]), np.array([b"x"], object), np.array(["x"])):
        with pytest.raises(TypeError):
            numbers.write(array)
