"""The log: values are written bit for bit, once and in order, and a resumed run continues where the log was cut."""

import json
import math
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from runner.engine.contracts import Numbers
from runner.engine.logs import files
from runner.engine.logs import log as log_module
from runner.engine.logs.event_file import event_files
from runner.engine.logs.log import Log, open_logs
from runner.engine.logs.sinks import METRICS, JsonLines, Row, read_metrics
from runner.engine.monitor import Monitor
from runner.engine.saving import storage
from runner.engine.saving.disk import Disk
from runner.engine.transfer import copy_from_one_device, to_host
from runner.errors import CheckpointError, StorageError


class RecordedRows:
    """A sink that records its rows."""

    path, backlog = Path("rows"), b""

    def __init__(self):
        self.rows = []
        self.file = self

    def write(self, rows):
        self.rows.extend(rows)

    def append(self, data):
        pass

    def sync(self):
        return 0

    def close(self):
        self.closed = True


def logged(sink):
    return [(row.step, row.values) for row in sink.rows]


def scalars(folder):
    """Every (step, tag, bits) of a run's event files, read by TensorBoard's loader, in order of the files' names."""
    events = [event for name in event_files(folder) for event in LegacyEventFileLoader(str(folder / name)).Load()]
    return [
        (event.step, value.tag, np.float32(value.simple_value).tobytes())
        for event in events
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


@pytest.mark.parametrize("bring", [to_host, copy_from_one_device])
def test_every_type_and_shape_comes_to_the_host_unchanged_and_is_its_own(bring):
    tensors = [
        torch.tensor(0.1),
        torch.tensor(2**53 + 1, dtype=torch.int64),
        torch.tensor(1.5, dtype=torch.bfloat16),
        torch.arange(5, dtype=torch.uint8),
        torch.tensor(-0.0),
        torch.arange(24, dtype=torch.float32).view(2, 3, 4).transpose(0, 2),
        torch.tensor(True),
        torch.tensor(1 / 3, dtype=torch.float64),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.zeros(0),
    ]
    host = bring(tensors)
    for tensor, value in zip(tensors, host, strict=True):
        if tensor.ndim:
            np.testing.assert_array_equal(value, tensor.float().numpy())
            assert value.shape == tuple(tensor.shape)
        else:
            assert type(value) is float and value == float(tensor.item())
    assert math.copysign(1, host[4]) == -1
    tensors[3].zero_()
    assert host[3].tolist() == [0, 1, 2, 3, 4]
    assert to_host([]) == []


def test_values_of_a_step_form_one_row_however_often_the_log_is_flushed():
    for flush_after in range(4):
        sink = RecordedRows()
        log = Log([sink])
        parts = [(1, {"a": torch.tensor(1.0)}), (1, {"b": 2}), (2, {"a": torch.tensor(3.0)}), (2, {"c": 4.0})]
        for place, (step, values) in enumerate(parts):
            log.add(step, values)
            if place == flush_after:
                log.flush()
        log.close()
        assert logged(sink) == [(1, {"a": 1.0, "b": 2.0}), (2, {"a": 3.0, "c": 4.0})]


def test_flush_returns_the_latest_number_of_each_tag():
    log = Log([RecordedRows()])
    log.add(1, {"val/accuracy": 0.5, "note": "text"})
    for step in (1, 2, 3):
        log.add(step, {"train/loss": torch.tensor(float(step))})
    latest = log.flush()
    assert latest["train/loss"] == 3 and latest["val/accuracy"] == 0.5 and "note" not in latest
    assert log.flush()["train/loss"] == 3


def test_a_log_that_keeps_up_waits_between_flushes_and_knows_the_latest_number_all_the_same(monkeypatch):
    sink, clock = RecordedRows(), iter([10.0, 10.0, 10.4, 10.6, 10.6])
    log = Log([sink])
    monkeypatch.setattr(log_module.time, "monotonic", lambda: next(clock))
    seen = []
    for step in (1, 2, 3):
        log.add(step, {"train/loss": torch.tensor(float(step)), "other": 0.0})
        log.add(step, {"more": 1.0})
        log.flush_if_due()
        seen.append((len(sink.rows), log.latest("train/loss")))
    assert seen == [(0, 1.0), (0, 2.0), (2, 3.0)]
    assert log.latest("val/loss") is None
    log.add(4, {"val/loss": 2})
    assert log.latest("val/loss") == 2.0 and log.latest("train/loss") == 3.0


def test_moving_average_starts_as_the_mean_and_skips_what_is_not_finite():
    losses = [2.0, 1.0, math.nan, 0.5, math.inf, 0.25]
    sink = RecordedRows()
    log = Log([sink])
    for step, loss in enumerate(losses, 1):
        log.add(step, {"train/loss": torch.tensor(loss)})
    log.close()
    assert sink.rows[-1].values["train/loss_average"] == pytest.approx((2 + 1 + 0.5 + 0.25) / 4, rel=1e-12)
    assert math.isnan(sink.rows[2].values["train/loss"])
    assert sink.rows[2].values["train/loss_average"] == sink.rows[1].values["train/loss_average"]


def test_moving_average_forgets_what_is_long_past_and_follows_a_slow_change():
    sink = RecordedRows()
    log = Log([sink])
    for step in range(1, 2001):
        log.add(step, {"train/loss": 5.0 if step <= 1000 else 1.0})
    log.close()
    average = [row.values["train/loss_average"] for row in sink.rows]
    assert average[999] == pytest.approx(5.0) and average[1200] < 1.2 and average[-1] == pytest.approx(1.0, abs=1e-4)
    noisy = [row.values["train/loss_average"] for row in sink.rows[:1000]]
    assert max(noisy) - min(noisy) < 1e-12


def test_the_best_validation_so_far_is_kept():
    sink = RecordedRows()
    log = Log([sink])
    for step, (accuracy, loss) in enumerate([(0.5, 1.0), (0.7, 1.2), (math.nan, math.nan), (0.6, 0.9)], 1):
        log.add(step, {"val/accuracy": accuracy, "val/loss": loss})
    log.close()
    assert [row.values.get("_best/val_accuracy") for row in sink.rows] == [0.5, 0.7, None, 0.7]
    assert [row.values.get("_best/val_loss") for row in sink.rows] == [1.0, 1.0, None, 0.9]


def test_the_best_of_other_scores_is_kept_by_their_own_direction_also_when_resumed():
    scores = [Monitor("val/rank", lower_is_better=True), Monitor("train_eval/accuracy")]
    sink = RecordedRows()
    log = Log([sink], scores=scores)
    log.add(1, {"val/rank": 3.0, "train_eval/accuracy": 0.9})
    log.add(2, {"val/rank": 4.0, "train_eval/accuracy": 0.8})
    log.positions()
    resumed = Log([sink], scores=scores)
    resumed.load_state_dict(log.state_dict())
    resumed.add(3, {"val/rank": 5.0, "val/other": 1.0})
    resumed.add(4, {"val/rank": 2.0})
    resumed.close()
    assert [row.values["_best/val_rank"] for row in sink.rows] == [3.0, 3.0, 3.0, 2.0]
    assert [row.values.get("_best/train_eval_accuracy") for row in sink.rows] == [0.9, 0.9, None, None]
    assert "_best/val_other" not in sink.rows[2].values


def test_numbers_come_out_as_what_they_say_of_themselves_on_the_host():
    sink = RecordedRows()
    log = Log([sink])
    halved = Numbers(torch.tensor([3.0, 5.0, math.nan]).unbind(), lambda found: {"a": found[0] / 2, "b": found[1] / 2})
    log.add(1, {"first": torch.tensor(0.5), "pair": halved, "last": torch.tensor(math.nan)})
    log.add(2, {"pair": halved, "first": torch.tensor(0.25)})
    log.close()
    assert [list(row.values) for row in sink.rows] == [["first", "a", "b", "last"], ["a", "b", "first"]]
    assert [row.values["a"] for row in sink.rows] == [1.5, 1.5] and sink.rows[1].values["first"] == 0.25
    assert math.isnan(sink.rows[0].values["last"])


def test_json_lines_give_the_bits_back_and_stay_json(tmp_path):
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-(2**31), 2**31, (500,), generator=generator).to(torch.int32).view(torch.float32)
    values = torch.cat([values, torch.tensor([math.nan, math.inf, -math.inf, -0.0])])
    log = open_logs(tmp_path, positions=None, step=0)
    for step, value in enumerate(values, 1):
        log.add(step, {"x": value})
    log.close()

    def refuse(word):
        raise ValueError(word)

    for line in (tmp_path / METRICS).read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    read = np.array([row["x"] for _, row in read_metrics(tmp_path / METRICS)], dtype=np.float32)
    known = ~np.isnan(read)
    np.testing.assert_array_equal(np.isnan(read), values.isnan().numpy())
    assert read[known].tobytes() == values.numpy()[known].tobytes()


def test_a_torn_last_line_is_left_out(tmp_path):
    (tmp_path / METRICS).write_text('{"step": 1, "x": 1.0}\n{"step": 2, "x"')
    assert list(read_metrics(tmp_path / METRICS)) == [(1, {"x": 1.0})]


def train(folder, *, steps, positions=None, state=None, start=0, checkpoints=(), flush_every=7):
    """Log a run of made-up losses, with a validation every 10 steps; return the checkpoints asked for."""
    log = open_logs(folder, positions=positions, state=state, step=start)
    if positions is None:
        log.add(0, {"config": "text"})
    kept = {}
    for step in range(start + 1, steps + 1):
        log.add(step, {"train/loss": torch.tensor(1 / (step + 0.1)), "images": torch.zeros(1, 8, 8)})
        if step % flush_every == 0:
            log.flush()
        if step % 10 == 0:
            log.add(step, {"val/loss": 1 / step, "val/accuracy": 1 - 1 / step})
        if step in checkpoints:
            kept[step] = (log.positions(), log.state_dict())
    log.flush()
    return log, kept


def leave_as_killed(log):
    """Leave the files as a killed process does, without a final flush."""
    for sink in log.files.sinks:
        sink.close()


def test_resumed_logs_equal_the_uninterrupted_ones(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(whole, steps=60, checkpoints=(13, 30, 45))[0].close()
    log, first = train(parts, steps=41, checkpoints=(13, 30))
    leave_as_killed(log)
    log, second = train(parts, steps=52, positions=first[30][0], state=first[30][1], start=30, checkpoints=(45,))
    leave_as_killed(log)
    third, _ = train(parts, steps=60, positions=second[45][0], state=second[45][1], start=45)
    third.close()
    assert len(event_files(parts)) == 3
    assert scalars(parts) == scalars(whole)
    assert (parts / METRICS).read_bytes() == (whole / METRICS).read_bytes()
    steps = [step for step, _ in read_metrics(parts / METRICS)]
    assert steps == list(range(1, 61))


def test_going_back_to_an_older_checkpoint_deletes_what_came_after_it(tmp_path):
    log, kept = train(tmp_path, steps=20, checkpoints=(10, 20))
    leave_as_killed(log)
    train(tmp_path, steps=30, positions=kept[20][0], state=kept[20][1], start=20)[0].close()
    again, _ = train(tmp_path, steps=12, positions=kept[10][0], state=kept[10][1], start=10)
    again.close()
    assert len(event_files(tmp_path)) == 2
    assert [step for step, tag, _ in scalars(tmp_path) if tag == "2 train/loss"] == list(range(1, 13))


def test_positions_are_the_lengths_of_all_files_on_the_disk(tmp_path):
    log, kept = train(tmp_path, steps=10, checkpoints=(10,))
    log.close()
    assert set(kept[10][0]) == {METRICS, *event_files(tmp_path)}
    assert all((tmp_path / name).stat().st_size == length for name, length in kept[10][0].items())


def test_a_fresh_run_starts_with_empty_logs(tmp_path):
    train(tmp_path, steps=5)[0].close()
    train(tmp_path, steps=3)[0].close()
    assert [step for step, _ in read_metrics(tmp_path / METRICS)] == [1, 2, 3]
    assert len(event_files(tmp_path)) == 1


def test_positions_that_do_not_fit_are_refused_in_one_line(tmp_path):
    log, kept = train(tmp_path, steps=10, checkpoints=(10,))
    log.close()
    positions = kept[10][0]
    name = event_files(tmp_path)[0]
    with pytest.raises(CheckpointError, match="; the checkpoint expects"):
        open_logs(tmp_path, positions={**positions, METRICS: positions[METRICS] + 1}, step=10)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match="missing"):
        open_logs(tmp_path, positions=positions, step=10)


@pytest.mark.parametrize(
    "name",
    ["../victim", "/etc/hostname", "result.json", "../metrics.jsonl", "events.out.tfevents.0000000001.a/x.1.0"],
)
def test_a_checkpoint_cannot_have_other_files_cut(tmp_path, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "victim").write_text("precious")
    with pytest.raises(CheckpointError, match="lists the log file"):
        open_logs(folder, positions={name: 0}, step=1)
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_log_that_is_a_link_is_refused(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "victim").write_text("precious")
    (folder / METRICS).symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        open_logs(folder, positions={METRICS: 1}, step=1)
    open_logs(folder, positions=None, step=0).close()
    assert (tmp_path / "victim").read_text() == "precious"


class SmallDisk(Disk):
    """A disk whose files hold `room` bytes each; without `whole`, an incomplete write cannot be undone."""

    def __init__(self, room, *, whole=True):
        self.room, self.whole = room, whole

    def write(self, file, data):
        room = self.room - os.fstat(file).st_size
        if room <= 0:
            raise OSError(28, "No space left on device")
        return super().write(file, data[:room])

    def truncate(self, file, size):
        if not self.whole:
            raise OSError(5, "Input/output error")
        super().truncate(file, size)


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_full_disk_does_not_take_is_written_later_in_order(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(storage, "disk", SmallDisk(100, whole=whole))
    sink = JsonLines(tmp_path / METRICS)
    sink.write([Row(1, 0.0, {"x": 1.0})])
    for step in (2, 3):
        with pytest.raises(OSError, match=r"No space|Input/output"):
            sink.write([Row(step, 0.0, dict.fromkeys("abcdefghijkl", 1.0))])
    assert sink.file.sync() == len('{"step": 1, "x": 1.0}\n')
    monkeypatch.setattr(storage, "disk", Disk())
    sink.write([Row(4, 0.0, {"x": 3.0})])
    assert sink.file.sync() == (tmp_path / METRICS).stat().st_size and not sink.file.backlog
    assert [step for step, _ in read_metrics(tmp_path / METRICS)] == [1, 2, 3, 4]
    sink.close()


@pytest.mark.parametrize("room", [60, 400, 1000])
@pytest.mark.parametrize("frees", [True, False])
def test_a_full_disk_ends_no_run_and_no_step_is_missing_after_a_resume(tmp_path, monkeypatch, capfd, room, frees):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    train(whole, steps=60)[0].close()
    log, kept = train(parts, steps=10, checkpoints=(10,))
    leave_as_killed(log)
    positions, state = kept[10]
    monkeypatch.setattr(storage, "disk", SmallDisk(positions[METRICS] + room))
    log, kept = train(parts, steps=40, positions=positions, state=state, start=10, checkpoints=(30,))
    said = capfd.readouterr().err
    assert said.count("warning") == said.count("\n") and f"{parts / METRICS}: No space left on device" in said
    if frees:
        monkeypatch.setattr(storage, "disk", Disk())
        kept = {30: (log.positions(), log.state_dict())}
        assert f"{parts / METRICS}: can be written again; no rows were lost" in capfd.readouterr().err
        start, (positions, state) = 40, kept[30]
    else:
        start, (positions, state) = 30, kept[30]
        assert state["owed"][METRICS].numel() > 0
    leave_as_killed(log)
    monkeypatch.setattr(storage, "disk", Disk())
    train(parts, steps=60, positions=positions, state=state, start=start)[0].close()
    assert scalars(parts) == scalars(whole)
    assert (parts / METRICS).read_bytes() == (whole / METRICS).read_bytes()


def test_a_log_that_cannot_be_finished_is_a_storage_error_unless_another_is_on_its_way(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "disk", SmallDisk(300))
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left"):
        train(tmp_path, steps=60)[0].close()
    with pytest.raises(KeyboardInterrupt), closing(train(tmp_path, steps=60)[0]):
        raise KeyboardInterrupt


def test_what_waits_in_memory_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BACKLOG", 500)
    monkeypatch.setattr(storage, "disk", SmallDisk(300))
    with pytest.raises(StorageError, match=r"metrics\.jsonl: No space left"):
        train(tmp_path, steps=60, checkpoints=(10, 20, 30))


@pytest.mark.parametrize("replaced", [True, False])
def test_a_log_that_was_taken_away_is_no_position(tmp_path, replaced):
    log, _ = train(tmp_path, steps=10)
    (tmp_path / METRICS).unlink()
    if replaced:
        (tmp_path / METRICS).write_text("")
    with pytest.raises(StorageError, match=r"metrics\.jsonl: (No such file|the file was replaced)"):
        log.positions()
    leave_as_killed(log)


@pytest.mark.parametrize("state", [{}, {"derived": {}}, {"derived": {}, "owed": []}, {"derived": {}, "owed": {"x": 1}}])
def test_a_strange_state_is_refused_in_one_line(tmp_path, state):
    log, kept = train(tmp_path, steps=10, checkpoints=(10,))
    log.close()
    with pytest.raises(CheckpointError, match="checkpoint"):
        open_logs(tmp_path, positions=kept[10][0], state=state, step=10)


def test_adding_a_loss_costs_next_to_nothing():
    import timeit

    log, loss = Log([]), torch.tensor(1.0)
    seconds = min(timeit.repeat(lambda: log.add(1, {"train/loss": loss}), number=2000, repeat=5)) / 2000
    assert seconds < 5e-6  # measured 0.3 us; the bound leaves room for a busy machine


def test_rows_without_numbers_leave_no_line(tmp_path):
    sink = JsonLines(tmp_path / METRICS)
    sink.write([Row(1, 0.0, {"text": "x"}), Row(2, 0.0, {"y": 1.0, "image": np.zeros((1, 8, 8))})])
    sink.close()
    assert (tmp_path / METRICS).read_text() == '{"step": 2, "y": 1.0}\n'
