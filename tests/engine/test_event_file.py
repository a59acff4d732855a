"""Event files as TensorBoard's own readers see them."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.util import tensor_util

from runner.engine.logs import event_file, summaries
from runner.engine.logs.event_file import EventFile, event_files, next_name
from runner.engine.logs.log import open_logs
from runner.engine.logs.sinks import Row


def events(path):
    return list(LegacyEventFileLoader(str(path)).Load())


def write(folder, *rows):
    sink = EventFile(folder / next_name(folder), 0)
    sink.write([Row(*row) for row in rows])
    sink.close()
    return events(sink.file.path)


def test_a_file_starts_with_its_version_and_the_session(tmp_path):
    version, start, *rest = write(tmp_path)
    assert version.file_version == "brain.Event:2" and rest == []
    assert start.session_log.status == SessionLog.START and start.step == 0


def test_all_values_of_a_step_are_one_event(tmp_path):
    found = write(tmp_path, (3, 12.5, {"a": 0.1, "b": float("nan"), "c": np.arange(4.0)}), (4, 13.0, {}))[2:]
    assert len(found) == 1
    assert (found[0].step, found[0].wall_time) == (3, 12.5)
    assert [value.tag for value in found[0].summary.value] == ["a", "b", "c"]
    assert found[0].summary.value[0].simple_value == struct.unpack("f", struct.pack("f", 0.1))[0]


def test_numbers_beyond_float32_become_infinite(tmp_path):
    found = write(tmp_path, (1, 0.0, {"a": 1e300, "b": -1e300}))[2]
    assert [value.simple_value for value in found.summary.value] == [np.inf, -np.inf]


def test_histogram_counts_every_finite_value_where_it_is(tmp_path):
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)).numpy()
    values[:3] = np.nan, np.inf, -np.inf
    accumulator_of(tmp_path, {"h": values})
    buckets = tensor_util.make_ndarray(accumulator_of(tmp_path, {"h": values}).Tensors("h")[0].tensor_proto)
    assert buckets.shape == (30, 3) and buckets[:, 2].sum() == 997
    assert buckets[0, 0] == values[3:].min() and buckets[-1, 1] == values[3:].max()
    for left, right, count in buckets[:-1]:
        assert count == ((values[3:] >= left) & (values[3:] < right)).sum()


def accumulator_of(folder, values):
    for name in event_files(folder):
        (folder / name).unlink()
    write(folder, (1, 0.0, values))
    return EventAccumulator(str(folder)).Reload()


def test_histograms_of_nothing_and_of_one_value(tmp_path):
    empty = accumulator_of(tmp_path, {"h": np.zeros(0)}).Tensors("h")[0].tensor_proto
    assert tensor_util.make_ndarray(empty).shape == (0, 3)
    same = tensor_util.make_ndarray(accumulator_of(tmp_path, {"h": np.full(7, 2.0)}).Tensors("h")[0].tensor_proto)
    assert same[:, 2].sum() == 7 and same[0, 0] < 2 < same[-1, 1]


def test_a_text_is_read_as_markdown_text(tmp_path):
    accumulator = accumulator_of(tmp_path, {"config": "```yaml\nlr: 0.1  # \u00e9\n```"})
    assert accumulator.SummaryMetadata("config").plugin_data.plugin_name == "text"
    tensor = tensor_util.make_ndarray(accumulator.Tensors("config")[0].tensor_proto)
    assert tensor.item().decode() == "```yaml\nlr: 0.1  # \u00e9\n```"


def picture(folder, images):
    shown = accumulator_of(folder, {"i": images}).Images("i")[0]
    pixels = np.atleast_3d(np.asarray(Image.open(io.BytesIO(shown.encoded_image_string))))
    assert pixels.shape == (shown.height, shown.width, 3 if images.shape[-3] == 3 else 1)
    return pixels


def test_one_image_is_enlarged_without_smoothing(tmp_path):
    image = np.arange(192, dtype=np.uint8).reshape(3, 8, 8)
    pixels = picture(tmp_path, image)
    assert pixels.shape == (64, 64, 3)
    np.testing.assert_array_equal(pixels[4::8, 4::8].transpose(2, 0, 1), image)
    assert len(np.unique(pixels)) == 192


def test_large_images_keep_their_size(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3, 70, 90), dtype=np.uint8)
    np.testing.assert_array_equal(picture(tmp_path, image).transpose(2, 0, 1), image)


def test_floats_are_stretched_over_the_batch(tmp_path):
    images = np.stack([np.full((1, 64, 64), value, dtype=np.float32) for value in (-2.0, 0.0, 2.0, np.nan)])
    pixels = picture(tmp_path, images)
    left, *_ = np.unique(pixels[:64, :64]), None
    shades = [
        np.unique(pixels[(64 + 2) * r : (64 + 2) * r + 64, (64 + 2) * c : (64 + 2) * c + 64]) for r, c in places(4)
    ]
    assert [list(shade) for shade in shades] == [[0], [128], [255], [128]]
    assert list(left) == [0]


def places(count):
    columns = min(count, round((2 * count) ** 0.5))
    return [divmod(place, columns) for place in range(count)]


def test_a_constant_image_and_other_channel_counts_can_be_shown():
    assert summaries.grid(np.zeros((1, 1, 8, 8), dtype=np.float32)).shape == (64, 64, 1)
    for channels in (1, 2, 3, 4):
        assert summaries.grid(np.ones((5, channels, 32, 32), dtype=np.uint8)).shape[2] == (3 if channels == 3 else 1)


def test_at_most_32_images_are_shown():
    sheet = summaries.grid(np.zeros((100, 1, 64, 64), dtype=np.uint8))
    assert sheet.shape == (4 * 66 - 2, 8 * 66 - 2, 1)


def test_names_sort_in_order_of_creation_even_when_the_clock_goes_back(tmp_path, monkeypatch):
    made = []
    for now in (2e9, 1.5e9, 1.5e9, 2e9, 0):
        monkeypatch.setattr(event_file.time, "time", lambda now=now: now)
        made.append(next_name(tmp_path))
        (tmp_path / made[-1]).touch()
    assert made == sorted(made) == event_files(tmp_path)
    assert [name.rsplit(".", 1)[1] for name in made] == list("01234")


def test_tensorboard_keeps_every_step_of_a_resumed_run(tmp_path):
    log = open_logs(tmp_path, positions=None, step=0)
    for step in range(1, 8):
        log.add(step, {"x": torch.tensor(float(step))})
    positions = log.positions()
    log.close()
    for number in range(2):
        log = open_logs(tmp_path, positions=positions, step=7 + number)
        log.add(8 + number, {"x": torch.tensor(8.0 + number)})
        positions = log.positions()
        log.close()
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in accumulator.Scalars("x")] == [(s, float(s)) for s in range(1, 10)]


@pytest.mark.parametrize(
    "array",
    [
        np.array(b"text", dtype=object),
        np.linspace(0, 1, 12).reshape(4, 3),
        np.zeros((0, 3)),
        np.zeros(0, dtype=np.float32),
        np.ones((2, 2), dtype=np.float32),
    ],
    ids=["text", "buckets", "no buckets", "nothing", "floats"],
)
def test_tensors_are_those_of_tensorboards_own_function(array):
    assert summaries.tensor(array) == tensor_util.make_tensor_proto(array)
