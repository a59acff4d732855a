"""Records of TensorBoard's files: a length, its checksum, the data, their checksum (TFRecord).

TensorBoard's own writer computes the checksums byte by byte in Python: 10 us for the loss of one step, 10 ms for a
picture of 100 KB. Here all records of a flush are done at once; the bytes are the same, which a test holds.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterable, Sequence

import numpy as np

PIECE = 512  # bytes of a message that are looked up at once
ONES = 0xFFFFFFFF


def framed(records: Sequence[bytes]) -> bytes:
    """Return the bytes of records in a row."""
    heads = [struct.pack("<Q", len(record)) for record in records]
    sums = masked(crc32c([*heads, *records]))
    parts = [sums[place : place + 4] for place in range(0, len(sums), 4)]
    return b"".join(itertools.chain.from_iterable(zip(heads, parts, records, parts[len(heads) :], strict=False)))


def masked(sums: np.ndarray) -> bytes:
    """Return checksums (n,) as they are stored: rotated and shifted, so that checksums of checksums are sound."""
    turned = (sums >> np.uint32(15)) | (sums << np.uint32(17))
    return (turned + np.uint32(0xA282EAD8)).astype("<u4").tobytes()


def crc32c(messages: Sequence[bytes]) -> np.ndarray:
    """Return the CRC-32C (Castagnoli) of each message of at least one byte, as (n,) uint32.

    The checksum is linear: that of a piece is the XOR of what each byte gives at its distance from the end.
    """
    pieces = [message[start : start + PIECE] for message in messages for start in range(0, len(message), PIECE)]
    lengths = np.array([len(piece) for piece in pieces])
    ends = lengths.cumsum()
    distance = np.repeat(ends, lengths) - np.arange(1, ends[-1] + 1)
    each = shifted()[distance, np.frombuffer(b"".join(pieces), dtype=np.uint8)]
    sums = np.bitwise_xor.reduceat(each, ends - lengths)
    if len(pieces) == len(messages):
        return sums ^ np.array([moved_on(ONES, length) ^ ONES for length in lengths.tolist()], dtype=np.uint32)
    parts = zip(sums.tolist(), lengths.tolist(), strict=True)
    whole = [joined(itertools.islice(parts, -(-len(message) // PIECE))) for message in messages]
    return np.array(whole, dtype=np.uint32)


def joined(pieces: Iterable[tuple[int, int]]) -> int:
    """Return the checksum of a message from (XOR, length) of its pieces."""
    state = ONES
    for crc, length in pieces:
        state = moved_on(state, length) ^ crc
    return state ^ ONES


@functools.lru_cache(maxsize=4096)
def moved_on(state: int, length: int) -> int:
    """Return a running checksum after `length` bytes of zero."""
    rows = shifted()
    after = state >> (8 * length)
    for place in range(min(length, 4)):
        after ^= int(rows[length - 1 - place, (state >> (8 * place)) & 255])
    return after


@functools.cache
def shifted() -> np.ndarray:
    """Return what each byte (256) gives at each distance from the end of a piece (PIECE, 256), uint32."""
    rows = np.zeros((PIECE, 256), dtype=np.uint32)
    row = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        row = np.where(row & 1, (row >> 1) ^ np.uint32(0x82F63B78), row >> 1)
    rows[0] = row
    for distance in range(1, PIECE):
        rows[distance] = (rows[distance - 1] >> 8) ^ row[rows[distance - 1] & 255]
    return rows
