"""The JSON answer in both directions, and the `top` parameter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.errors import BadRequest
from fairway.worker.tensor import Prediction
from fairway.worker.wire import answer


def test_the_answer_is_one_line_of_pairs_with_the_best_first() -> None:
    prediction = Prediction.from_scores([0.1, 0.7, 0.2], ["a", "b", "c"], top=2)
    assert answer.encode(prediction) == b'[["b", 0.7], ["c", 0.2]]\n'


def test_ties_keep_the_order_of_the_labels() -> None:
    assert [label for label, _ in Prediction.from_scores([0.5, 0.5, 0.5], "xyz", top=3)] == ["x", "y", "z"]


def test_six_digits_are_sent_of_a_score() -> None:
    assert json.loads(answer.encode(Prediction((("daisy", 1 / 3), ("x", 1.23456789e-7))))) == [
        ["daisy", 0.333333],
        ["x", 1.23457e-7],
    ]


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False, allow_infinity=False, width=32)), min_size=1))
def test_what_is_encoded_decodes_to_the_same(pairs: list[tuple[str, float]]) -> None:
    decoded = answer.decode(answer.encode(Prediction(tuple(pairs))))
    assert [label for label, _ in decoded] == [label for label, _ in pairs]
    for (_, got), (_, sent) in zip(decoded, pairs, strict=True):
        assert got == pytest.approx(sent, rel=1e-5)


def test_whole_numbers_are_scores_too() -> None:
    decoded = answer.decode(b'[["daisy", 1], ["roses", 0]]')
    assert decoded.pairs == (("daisy", 1.0), ("roses", 0.0))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"daisy",
        b"{}",
        b"[]",
        b"null",
        b'["daisy", 0.5]',
        b'[["daisy"]]',
        b'[["daisy", "0.5"]]',
        b'[["daisy", true]]',
        b"[[1, 0.5]]",
        b'[["daisy", 0.5, 1]]',
        b'[["daisy", 0.5], null]',
        b'{"error": "no"}',
        b'[["daisy", NaN]]',
        b'[["daisy", -Infinity]]',
        b"\xff\xfe\xff",
        b'[["daisy", ' + b"9" * 400 + b"]]",  # a whole number that no float holds
        b'[["daisy", ' + b"9" * 5000 + b"]]",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_anything_else_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the texts differ, the class is the promise
        answer.decode(body)


def test_an_error_survives_both_ways() -> None:
    text = 'no "image" in the upload: für 面\n'
    assert json.loads(answer.encode_error(text)) == {"error": text}
    assert answer.decode_error(answer.encode_error(text)) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"Bad Gateway\r\n", "Bad Gateway"),
        (b"<html>502</html>", "<html>502</html>"),
        (b'{"message": "no"}', '{"message": "no"}'),
        (b'["error"]', '["error"]'),
        (b'"error"', '"error"'),
        (b"null", "null"),
        (b'{"error": 5}', "5"),
        (b"\xff\xfeboom", "\ufffd\ufffdboom"),
        (b"x" * 5000, "x" * 200),
        (b"[" * 100_000, "[" * 200),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_an_error_that_somebody_else_wrote_is_shown_as_it_is(body: bytes, text: str) -> None:
    assert answer.decode_error(body) == text


@pytest.mark.parametrize(
    ("text", "top"),
    [(None, 5), ("1", 1), ("3", 3), ("007", 7), ("0000000001", 1), ("1000", 1000)],
)
def test_top(text: str | None, top: int) -> None:
    assert answer.top_of(text) == top


@pytest.mark.parametrize("digits", [9, 10, 100, 100_000])
def test_a_huge_top_means_all_and_costs_nothing(digits: int) -> None:
    assert answer.top_of("9" * digits) >= 1_000_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "000",
        "0" * 20,
        "-1",
        "+1",
        "1.0",
        "1e3",
        " 1",
        "1 ",
        "1_0",
        "five",
        "²",
        "٣",
        "५",
        "\uff11",
        "①",
        "NaN",
        "\0",
    ],
)
def test_top_takes_nothing_but_ascii_digits(text: str) -> None:
    with pytest.raises(BadRequest, match="whole number from 1 up"):
        answer.top_of(text)
