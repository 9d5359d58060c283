"""The file of features: what was computed is there, whatever ended the run; what is damaged is computed anew."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.worker.training.bottlenecks import HEAD, Bottlenecks

KEYS = [hashlib.sha256(bytes([i])).digest() for i in range(5)]
VALUES = np.arange(20, dtype=np.float32).reshape(5, 4)
RECORD = 32 + 4 + 4 * 4 + 4


def filled(path: Path) -> Path:
    with Bottlenecks(path, 4) as kept:
        kept.add(KEYS, 0, VALUES)
        kept.add(KEYS[:2], 1, -VALUES[:2])
    return path


def test_what_was_added_is_there_next_time(tmp_path: Path) -> None:
    with Bottlenecks(filled(tmp_path / "deep" / "a.features"), 4) as kept:
        assert len(kept) == 7
        np.testing.assert_array_equal(kept.get([KEYS[3], KEYS[0]], 0), VALUES[[3, 0]])
        np.testing.assert_array_equal(kept.get(KEYS[:2], 1), -VALUES[:2])
        assert (KEYS[2], 1) not in kept
        assert kept.get([], 0).shape == (0, 4)
        with pytest.raises(KeyError):
            kept.get(KEYS, 1)


def test_a_batch_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.features"
    with Bottlenecks(path, 4) as kept:
        kept.add(KEYS[:1], 0, VALUES[:1])
        assert path.stat().st_size == HEAD.size + RECORD


@given(st.integers(0, HEAD.size + 7 * RECORD - 1))
def test_cut_off_anywhere_it_is_never_wrong(size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = filled(Path(folder) / "a.features")
        path.write_bytes(path.read_bytes()[:size])
        for _ in range(2):  # the second time it is in order again
            with Bottlenecks(path, 4) as kept:
                assert len(kept) == max(0, size - HEAD.size) // RECORD
                for i, key in enumerate(KEYS):
                    if (key, 0) in kept:
                        np.testing.assert_array_equal(kept.get([key], 0)[0], VALUES[i])
        with Bottlenecks(path, 4) as kept:
            kept.add(KEYS, 0, VALUES)
        with Bottlenecks(path, 4) as kept:
            np.testing.assert_array_equal(kept.get(KEYS, 0), VALUES)


@given(st.integers(HEAD.size, HEAD.size + 7 * RECORD - 1), st.integers(1, 255))
def test_a_changed_byte_costs_one_photo(place: int, change: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = filled(Path(folder) / "a.features")
        data = bytearray(path.read_bytes())
        data[place] ^= change
        path.write_bytes(data)
        with Bottlenecks(path, 4) as kept:
            assert len(kept) == 6
            for i, key in enumerate(KEYS):
                if (key, 0) in kept:
                    np.testing.assert_array_equal(kept.get([key], 0)[0], VALUES[i])


@pytest.mark.parametrize("data", [b"what is this", b"\x89PNG" * 100, HEAD.pack(b"FWBOTTL1", 5) + bytes(56)])
def test_what_is_no_such_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    path = tmp_path / "a.features"
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING), Bottlenecks(path, 4) as kept:
        assert len(kept) == 0
        kept.add(KEYS, 0, VALUES)
    assert "not a file of features; it is now a.features.broken" in caplog.text
    assert (tmp_path / "a.features.broken").read_bytes() == data
    with Bottlenecks(path, 4) as kept:
        assert len(kept) == 5
