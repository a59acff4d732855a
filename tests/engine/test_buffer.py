"""Logs of runs that train together: one copy from the device for all, and the same bytes as separate logs."""

import itertools
import math

import pytest
import torch

from runner.engine.contracts import Numbers
from runner.engine.logs import buffer, event_file
from runner.engine.logs.buffer import Transfer
from runner.engine.logs.log import Log, open_logs
from runner.engine.transfer import copy_from_one_device

LANES, STEPS = 3, 24


@pytest.fixture
def copies(monkeypatch):
    """The device-to-host copies so far; the CPU is taken for a device that joins what it copies, as a GPU does."""
    made = []
    cpu = torch.Tensor.cpu

    def counted(tensor):
        made.append(tensor.numel())
        return cpu(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", counted)
    monkeypatch.setattr(buffer, "to_host", lambda tensors: copy_from_one_device(tensors) if tensors else [])
    return made


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, so that the bytes of two runs can be equal."""
    monkeypatch.setattr(buffer.time, "time", itertools.cycle([1.7e9]).__next__)
    monkeypatch.setattr(event_file.socket, "gethostname", lambda: "here")


def values(lane, step):
    """What a lane logs for a step: a loss, now and then numbers, a histogram and an image."""
    draw = torch.Generator().manual_seed(1000 * lane + step)
    found = {"train/loss": torch.rand((), generator=draw)}
    if step % 5 == 0:
        found["ratio"] = Numbers(list(torch.rand(2, generator=draw)), lambda two: dict(zip("ab", two, strict=True)))
        found["weights"] = torch.rand(7, generator=draw)
        found["images"] = torch.rand(2, 1, 8, 8, generator=draw)
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(folder, transfers):
    """Log the steps of each lane in lock step; return the bytes of each lane's files."""
    folder.mkdir()
    lanes = [folder / str(lane) for lane in range(LANES)]
    for lane in lanes:
        lane.mkdir()
    logs = [open_logs(lane, positions=None, step=0, transfer=t) for lane, t in zip(lanes, transfers, strict=True)]
    for step in range(1, STEPS + 1):
        for lane, each in enumerate(logs):
            each.add(step, values(lane, step))
        for each in logs if step % 4 == 0 else ():
            each.add(step, {"train/lr": 0.1})
            assert each.latest("train/loss") is not None
            each.flush()
        if step == 10:
            assert [each.positions() for each in logs]
    for each in logs:
        each.close()
    return [contents(lane) for lane in lanes]


def test_logs_that_share_a_transfer_write_the_bytes_of_logs_alone(tmp_path, clock):
    together = made(tmp_path / "together", [Transfer()] * LANES)
    assert together == made(tmp_path / "alone", [None] * LANES)
    assert len({tuple(sorted(files.values())) for files in together}) == LANES  # lanes log different numbers


def test_logs_that_share_a_transfer_need_one_copy_for_all_their_rows(copies):
    transfer = Transfer()
    logs = [Log(transfer=transfer) for _ in range(LANES)]
    for step in range(1, 5):
        for lane, each in enumerate(logs):
            each.add(step, {"train/loss": torch.tensor(10.0 * lane + step)})
    assert copies == []
    latest = [each.latest("train/loss") for each in logs]
    assert [each.flush()["train/loss"] for each in logs] == latest == [4.0, 14.0, 24.0]
    assert copies == [4 * LANES]
    logs[0].add(5, {"train/loss": torch.tensor(1.0)})
    assert [each.flush()["train/loss"] for each in logs] == [1.0, 14.0, 24.0]
    assert copies == [4 * LANES, 1]


def test_a_log_alone_is_read_without_a_copy_of_its_rows(copies):
    alone = Log()
    for step in (1, 2, 3):
        alone.add(step, {"train/loss": torch.tensor(float(step))})
    assert alone.latest("train/loss") == 3.0
    assert copies == []
    alone.flush()
    assert copies == [3]


def test_what_is_forgotten_is_forgotten_on_the_host_too():
    transfer = Transfer()
    logs = [Log(transfer=transfer) for _ in range(2)]
    for step in (1, 2, 3):
        for each in logs:
            each.add(step, {"train/loss": torch.tensor(math.nan if step > 1 else 1.0)})
    assert math.isnan(logs[1].latest("train/loss"))
    logs[0].discard(after=1)
    assert logs[0].latest("train/loss") == logs[0].flush()["train/loss"] == 1.0
    assert math.isnan(logs[1].flush()["train/loss"])


def test_a_closed_log_leaves_the_transfer(copies):
    transfer = Transfer()
    logs = [Log(transfer=transfer) for _ in range(2)]
    logs[0].close()
    assert not transfer.shared
    logs[1].add(1, {"train/loss": torch.tensor(1.0)})
    logs[1].close()
    assert transfer.buffers == [] and copies == [1]
