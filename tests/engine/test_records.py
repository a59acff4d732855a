"""Records against TensorBoard's own writer, byte for byte."""

import io
import math
import random

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c as slow_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from runner.engine.logs.board_tags import board_tag
from runner.engine.logs.event_file import EventFile
from runner.engine.logs.sinks import Row
from runner.engine.logs.tfrecords import CHUNK, crc32c, to_tfrecords


def rows(*records):
    return np.stack([np.frombuffer(record, dtype=np.uint8) for record in records])


def test_checksum_has_its_check_value():
    # the check value of CRC-32C in the catalogues of Koopman and of Williams
    assert crc32c(rows(b"123456789")).tolist() == [0xE3069283]


@pytest.mark.parametrize("length", [*range(1, 12), 60, CHUNK - 1, *range(CHUNK, CHUNK + 6), 2 * CHUNK, 20_001])
def test_checksums_equal_those_of_the_slow_loop(length):
    draw = random.Random(length)
    records = [draw.randbytes(length) for _ in range(3)]
    assert crc32c(rows(*records)).tolist() == [slow_crc32c(record) for record in records]


def test_framed_records_are_those_of_tensorboards_writer():
    draw = random.Random(1)
    for length in (9, 60, 61, 700, 5000):
        records = [draw.randbytes(length) for _ in range(4)]
        file = io.BytesIO()
        writer = RecordWriter(file)
        for record in records:
            writer.write(record)
        assert b"".join(to_tfrecords(rows(*records))) == file.getvalue()


def test_events_of_many_steps_are_those_that_protobuf_makes(tmp_path):
    draw = random.Random(2)
    long = "activations/" + "block." * 30 + "/mean"
    steps = [0, 1, 2, 126, 127, 128, 129, 16383, 16384, 16385, 2**21 - 1, 2**21, 2**31, 2**40]
    numbers = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e300, 1e-50, 0.1]
    logged = []
    for number, step in enumerate(steps):
        values = {tag: draw.choice(numbers) for tag in ("train/loss", "train/loss_average", long)}
        logged.append(Row(step, 1.7e9 + draw.random(), values | ({"val/loss": 0.5} if number % 5 == 0 else {})))
    sink = EventFile(tmp_path / "events.out.tfevents.0000000001.a.1.0", 0)
    start = sink.file.sync()
    sink.write(logged)
    sink.close()
    file = io.BytesIO()
    writer = RecordWriter(file)
    for row in logged:
        values = [Summary.Value(tag=board_tag(tag), simple_value=value) for tag, value in row.values.items()]
        writer.write(Event(wall_time=row.time, step=row.step, summary=Summary(value=values)).SerializeToString())
    assert sink.file.path.read_bytes()[start:] == file.getvalue()
