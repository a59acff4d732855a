"""Records of TensorBoard's files: a length, its checksum, the data, their checksum (TFRecord).

TensorBoard's own writer computes the checksums byte by byte in Python: 10 us for the loss of one step, 10 ms for a
picture of 100 KB. Here they are looked up, for many records at once; the bytes are the same, which a test holds.
"""

from __future__ import annotations

import functools
import struct

import numpy as np

PIECE = 512  # bytes of a record that are looked up at once
ONES = np.uint32(0xFFFFFFFF)


def framed(records: np.ndarray) -> list[bytes]:
    """Return the bytes of each of some records of one length, (n, length) uint8."""
    count, length = records.shape
    head = np.frombuffer(struct.pack("<Q", length), dtype=np.uint8)[None]
    heads = np.broadcast_to(np.concatenate([head, checksum(head)], axis=1), (count, 12))
    whole = np.concatenate([heads, records, checksum(records)], axis=1)
    data, size = whole.tobytes(), whole.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]


def checksum(records: np.ndarray) -> np.ndarray:
    """Return the checksum of each record as it is stored, (n, 4) uint8: turned and shifted for nesting."""
    sums = crc32c(records)
    turned = ((sums >> np.uint32(15)) | (sums << np.uint32(17))) + np.uint32(0xA282EAD8)
    return turned.astype("<u4")[:, None].view(np.uint8)


def crc32c(records: np.ndarray) -> np.ndarray:
    """Return the CRC-32C (Castagnoli) of each record, (n,) uint32.

    The checksum is linear: that of a piece is the XOR of what each byte gives at its distance from the end.
    """
    sums = np.full(len(records), ONES)
    for start in range(0, records.shape[1], PIECE):
        piece = records[:, start : start + PIECE]
        distance = np.arange(piece.shape[1])[::-1]
        sums = moved_on(sums, len(distance)) ^ np.bitwise_xor.reduce(shifted()[distance, piece], axis=1)
    return sums ^ ONES


def moved_on(sums: np.ndarray, length: int) -> np.ndarray:
    """Return running checksums after `length` bytes of zero."""
    after = sums >> np.uint32(8 * length) if length < 4 else np.zeros_like(sums)
    for place in range(min(length, 4)):
        after = after ^ shifted()[length - 1 - place, (sums >> np.uint32(8 * place)) & np.uint32(255)]
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
