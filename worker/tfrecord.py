"""TFRecord: a file of records, each with its length and two checksums. Read without TensorFlow. Sans-io.

    length: uint64   masked crc32c of the length: uint32   the record   masked crc32c of the record: uint32

All little-endian. Source: tensorflow/core/lib/io/record_writer.h; crc32c is that of RFC 3720, whose polynomial is
0x1EDC6F41.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD, CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")
REVERSED_POLYNOMIAL = 0x82F63B78
LANES = 512  # pieces of a long record that are summed up side by side
LONG = 4096  # bytes; a shorter one is summed up byte by byte


def read_records(stream: BinaryIO) -> Iterator[bytes]:
    """One record after the other. Raises ValueError saying which one is wrong, and how."""
    number = 0
    while head := stream.read(HEAD.size):
        number += 1
        if len(head) < HEAD.size:
            raise ValueError(f"record {number} is cut off within its length")
        length, checksum = HEAD.unpack(head)
        if masked(crc32c(head[:8])) != checksum:
            raise ValueError(f"record {number}: its length does not fit its checksum; is this a TFRecord file?")
        record, end = stream.read(length), stream.read(CHECKSUM.size)
        if len(record) < length or len(end) < CHECKSUM.size:
            raise ValueError(f"record {number} is cut off: expected {length} bytes and a checksum")
        if masked(crc32c(record)) != CHECKSUM.unpack(end)[0]:
            raise ValueError(f"record {number} does not fit its checksum")
        yield record


def masked(checksum: int) -> int:
    """As it stands in the file: a checksum of data that hold checksums would be worth little."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    if len(data) >= LONG:
        # The checksum is linear: pieces of equal length are summed up from 0, side by side, and so is what each single bit
        # of a state becomes when as many zeros follow. Then a state is moved over a piece by adding up its bits' fates.
        length = len(data) // LANES
        pieces = np.zeros((length, LANES + 32), np.uint8)
        pieces[:, :LANES] = np.frombuffer(data, np.uint8, length * LANES).reshape(LANES, length).T
        states = np.zeros(LANES + 32, np.uint32)
        states[LANES:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
        for row in pieces:
            states = _TABLE[(states ^ row) & 0xFF] ^ (states >> np.uint32(8))
        sums, fates = states[:LANES].tolist(), states[LANES:].tolist()
        for piece in sums:
            moved = piece
            while state:
                lowest = state & -state
                moved ^= fates[lowest.bit_length() - 1]
                state ^= lowest
            state = moved
        data = data[length * LANES :]
    for byte in data:
        state = _LIST[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(REVERSED_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _table()
_LIST: list[int] = _TABLE.tolist()
