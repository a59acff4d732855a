"""The loss scaler counts the steps that it skips, and a run of fp16 logs the count."""

from __future__ import annotations

import json

import pytest
import torch
from running import job

from runner.engine.loss_scaler import SKIPPED, LossScaler
from runner.tasks import start


def step(scaler: LossScaler, optimizer: torch.optim.Optimizer, slope: float) -> None:
    """Make a step with one gradient."""
    (weight,) = optimizer.param_groups[0]["params"]
    weight.grad = torch.tensor([slope]) * scaler.scale(torch.ones(()))
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


def test_skips_are_counted_since_the_last_call_and_are_no_state():
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler("cpu", init_scale=4.0)
    plain = torch.amp.GradScaler("cpu", init_scale=4.0)
    for slope in (1.0, torch.inf, torch.nan, 1.0, torch.inf):
        step(scaler, optimizer, slope)
    assert weight.item() == -2.0  # two of five steps were made
    assert {tag: count.item() for tag, count in scaler.skipped().items()} == {SKIPPED: 3.0}
    assert scaler.skipped() == {}
    step(scaler, optimizer, 1.0)
    assert scaler.skipped()[SKIPPED].item() == 0.0
    assert scaler.state_dict().keys() == plain.state_dict().keys()


def test_a_logged_count_does_not_change_later():
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler("cpu")
    step(scaler, optimizer, torch.inf)
    logged = scaler.skipped()[SKIPPED]
    step(scaler, optimizer, torch.inf)
    assert logged.item() == 1.0


def test_without_scaling_there_is_no_count():
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), LossScaler("cpu", enabled=False)
    weight.grad = torch.ones(1)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.skipped() == {}


def rows(folder):
    """Return the counts that a run logged by step, and its curve of losses."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    counts = {line["step"]: line[SKIPPED] for line in lines if SKIPPED in line}
    return counts, [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_run_logs_what_its_scale_says(tmp_path, monkeypatch, model):
    """From a scale of 2^40 each skipped step halves it: the checkpoint has the scale, so that the count is known."""
    monkeypatch.setattr("runner.assemble.learner.LossScaler", lambda *a, **k: LossScaler(*a, **k, init_scale=2.0**40))
    scales = []
    monkeypatch.setattr(LossScaler, "state_dict", lambda self: scales.append(self.get_scale()) or {"scale": 1.0})
    words = (f"model={model}", "precision=fp16", "steps=60", "log_every=20", "figures=never", "invariants=never")
    assert start(job(*words, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    counts, losses = rows(tmp_path / "run")
    assert sum(counts.values()) > 5
    assert 2.0 ** (40 - sum(counts.values())) == scales[-1]
    assert len(losses) == 60


def test_other_precisions_log_no_count(tmp_path):
    assert start(job("model=mlp", "steps=20", "figures=never", f"hydra.run.dir={tmp_path / 'run'}")) == 0
    assert rows(tmp_path / "run")[0] == {}
