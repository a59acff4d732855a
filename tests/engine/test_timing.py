"""Tags under time/: the time of steps without validation and checkpoints, at every transfer to the host."""

import json
import re
import resource
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from running import MLP, job

from runner.engine import timing
from runner.engine.timing import Timing, median_cost, peak_memory
from runner.tasks import start

CPU = torch.device("cpu")
TAGS = {"time/step_ms", "time/examples_per_second", "time/data_wait", "time/peak_memory_mb"}


class Clock:
    """A clock that only moves when a test advances it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(timing, "perf_counter", made)
    return made


def batches(n, batch):
    labels = torch.zeros(n, dtype=torch.int64)
    return SimpleNamespace(
        split=SimpleNamespace(labels=labels),
        batch=batch,
        examples_per_epoch=n,
        steps_per_epoch=-(-n // batch),
        device=CPU,
    )


def waiting(clock, waits):
    for wait in waits:
        clock.spend(wait)
        yield torch.zeros(1), torch.zeros(1)


def test_a_lap_is_waiting_and_work_but_not_what_follows_it(clock):
    times, laps = Timing(batches(70, 20), 0), []
    clock.spend(50.0)  # before the first batch is asked for
    for step, _ in enumerate(times.timed(waiting(clock, [4, 0, 0, 2, 1, 1])), 1):
        clock.spend(1.0)
        if step in (2, 5):
            laps.append(times.lap(step))
            clock.spend(1000.0)  # validation
    first, second = laps
    assert (first["time/step_ms"], first["time/data_wait"]) == (3000.0, pytest.approx(4 / 6))
    assert first["time/examples_per_second"] == pytest.approx(40 / 6)
    assert (second["time/step_ms"], second["time/data_wait"]) == (2000.0, pytest.approx(3 / 6))
    assert second["time/examples_per_second"] == pytest.approx((20 + 10 + 20) / 6)  # the fourth step takes what is left


def test_laps_go_on_from_the_step_that_a_resumed_run_starts_at(clock):
    times = Timing(batches(70, 20), 6)
    for _ in times.timed(waiting(clock, [1, 1])):
        clock.spend(1.0)
    found = times.lap(8)
    assert found["time/step_ms"] == 2000.0
    assert found["time/examples_per_second"] == pytest.approx((20 + 10) / 4)


def test_a_loop_that_breaks_off_closes_the_stream():
    closed = []

    def stream():
        try:
            while True:
                yield torch.zeros(1), torch.zeros(1)
        finally:
            closed.append(True)

    for _ in Timing(batches(70, 20), 0).timed(stream()):
        break
    assert closed


@pytest.mark.ci_slice
@pytest.mark.slow
def test_peak_memory_counts_what_was_used_once():
    before = peak_memory(CPU)
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 100_000_000
    torch.ones(size, dtype=torch.uint8)
    assert peak_memory(CPU) >= max(before, size)
    assert peak_memory(CPU) < 4 * size


def test_a_run_logs_what_its_steps_cost_at_each_flush_and_says_it_at_its_end(tmp_path, capfd):
    assert start(job(*MLP, "steps=25", f"hydra.run.dir={tmp_path / 'run'}")) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    timed = {row["step"]: {tag: row[tag] for tag in TAGS} for row in rows if "time/step_ms" in row}
    assert list(timed) == [5, 10, 15, 19, 20, 25]  # log_every=5, and the end of the first epoch
    seen = {5: 320, 10: 320, 15: 320, 19: 3 * 64 + 48, 20: 64, 25: 320}  # 1200 images in batches of 64
    since = 0
    for step, row in timed.items():
        seconds = row["time/step_ms"] / 1000 * (step - since)
        assert row["time/examples_per_second"] * seconds == pytest.approx(seen[step])
        assert 0 < row["time/data_wait"] < 1
        assert 50e6 < row["time/peak_memory_mb"] * 1e6 <= peak_memory(CPU)
        since = step
    cost = median_cost(tmp_path / "run" / "metrics.jsonl")
    for tag in TAGS - {"time/peak_memory_mb"}:
        assert cost[tag] == np.median([row[tag] for row in timed.values()])
    assert cost["time/peak_memory_mb"] == timed[25]["time/peak_memory_mb"]
    (said,) = (line for line in capfd.readouterr().out.splitlines() if line.startswith("speed "))
    found = re.fullmatch(r"speed +(\d+) examples/s, ([\d.]+) ms/step, data wait (\d+)%, peak memory (\d+) MB", said)
    shown = [cost[f"time/{name}"] for name in ("examples_per_second", "step_ms", "data_wait", "peak_memory_mb")]
    assert [float(part) for part in found.groups()] == pytest.approx(
        [shown[0], shown[1], 100 * shown[2], shown[3]], rel=0.01, abs=0.51
    )


def test_a_run_without_a_lap_has_no_usual_cost(tmp_path):
    assert median_cost(tmp_path / "none") == {}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n{"step": 2, "time/step_ms": 3')
    assert median_cost(tmp_path / "metrics.jsonl") == {}
