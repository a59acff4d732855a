"""Records against TensorBoard's own writer, byte for byte."""

import io
import random

from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as slow_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from runner.engine.records import PIECE, crc32c, framed


def test_checksum_has_its_check_value():
    assert crc32c([b"123456789"]).tolist() == [
        0xE3069283
    ]  # the check value of CRC-32C in Koopman's and Williams' catalogues


def test_checksums_of_every_length_equal_those_of_the_slow_loop():
    draw = random.Random(0)
    lengths = [*range(1, 70), *(PIECE * k + d for k in (1, 2, 3) for d in (-1, 0, 1, 2, 3, 4, 5)), 20_000]
    messages = [draw.randbytes(length) for length in lengths]
    expected = [slow_crc32c(message) for message in messages]
    assert crc32c(messages).tolist() == expected
    assert [crc32c([message]).item() for message in messages] == expected


def test_framed_records_are_those_of_tensorboards_writer():
    draw = random.Random(1)
    records = [draw.randbytes(draw.choice((9, 40, 60, 61, 700, 5000))) for _ in range(60)]
    file = io.BytesIO()
    writer = RecordWriter(file)
    for record in records:
        writer.write(record)
    assert framed(records) == file.getvalue()
    assert framed(records[:1]) + framed(records[1:]) == file.getvalue()
