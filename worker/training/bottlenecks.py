"""Features of photos, computed once: one file a backbone and preprocessing, to which records are only ever added.

    magic (8 bytes), width d (4 bytes, little-endian), then records of
    sha256 of the photo's file (32) | view (4) | d float32 | crc32 of all before (4)

The key is the content of the photo, not its name or date: a renamed photo is known, a changed one is not. `view` says
which look at the photo it is: 0 as it is served, 1 mirrored, or the number of a random one. A batch is written as soon
as it is computed, so whatever ends a run costs at most one; a record that was half written shows in its checksum, and is
computed anew. What is no such file is put aside under another name, and said.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("fairway.training")

MAGIC = b"FWBOTTL1"
HEAD = struct.Struct("<8sI")
KEY = 32


class Bottlenecks:
    """What a file holds, in memory. A context manager: the file belongs to one run at a time while it is open."""

    def __init__(self, path: Path, width: int) -> None:
        """`width`: numbers a picture. Raises OSError if the folder cannot be written."""
        self.path, self.width = path, width
        self._record = np.dtype([("key", np.uint8, KEY), ("view", "<u4"), ("values", "<f4", width), ("crc", "<u4")])
        self._places: dict[tuple[bytes, int], NDArray[np.float32]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _locked(path)
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, place: tuple[bytes, int]) -> bool:
        return place in self._places

    def get(self, keys: Sequence[bytes], view: int) -> NDArray[np.float32]:
        """(n, d) float32 in the order of `keys`. Raises KeyError for one that was not added."""
        if not keys:
            return np.zeros((0, self.width), np.float32)
        return np.stack([self._places[key, view] for key in keys])

    def add(self, keys: Sequence[bytes], view: int, values: NDArray[np.float32]) -> None:
        """`values`: (n, d) float32. They are in the file when this returns."""
        records = np.zeros(len(keys), self._record)
        for record, key, row in zip(records, keys, values, strict=True):
            record["key"] = np.frombuffer(key, np.uint8)
            record["view"], record["values"] = view, row
            self._places[key, view] = np.array(row, np.float32)
        records["crc"] = _checksums(records)
        self._file.write(records.tobytes())
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        data = self._file.read()
        if not data:
            self._file.write(HEAD.pack(MAGIC, self.width))
            self._file.flush()
            return
        if len(data) < HEAD.size or HEAD.unpack_from(data) != (MAGIC, self.width):
            aside = self.path.with_name(self.path.name + ".broken")
            log.warning("%s: not a file of features; it is now %s, and all are computed anew", self.path, aside.name)
            self._begin_anew(b"", aside)
            return
        whole = (len(data) - HEAD.size) // self._record.itemsize
        records = np.frombuffer(data, self._record, whole, HEAD.size)
        sound = records["crc"] == _checksums(records)
        for record in records[sound]:
            self._places[record["key"].tobytes(), int(record["view"])] = record["values"]
        half = HEAD.size + whole * self._record.itemsize < len(data)
        if half or not sound.all():
            damaged = int((~sound).sum()) + half
            log.warning("%s: %d of its %d features are damaged; computed anew", self.path, damaged, whole + half)
            self._begin_anew(records[sound].tobytes())

    def _begin_anew(self, records: bytes, aside: Path | None = None) -> None:
        """Whole or not at all."""
        fresh = self.path.with_name(self.path.name + ".part")
        fresh.write_bytes(HEAD.pack(MAGIC, self.width) + records)
        if aside is not None:
            self.path.replace(aside)
        fresh.replace(self.path)
        self._file.close()
        self._file = _locked(self.path)
        self._file.seek(0, os.SEEK_END)


def _checksums(records: NDArray[Any]) -> NDArray[np.uint32]:
    size = records.dtype.itemsize
    data = memoryview(records.tobytes())
    return np.array([zlib.crc32(data[i * size : (i + 1) * size - 4]) for i in range(len(records))], np.uint32)


def _locked(path: Path) -> BinaryIO:
    """The file, open for reading and adding; another run that has it is waited for."""
    while True:
        file = path.open("a+b")
        with contextlib.suppress(ImportError):  # no such locks here: at worst features stand in it twice
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                log.warning("%s is in use by another run; waiting for it", path)
                fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.seek(0)
            return file
        file.close()  # whoever had it put another file in its place
