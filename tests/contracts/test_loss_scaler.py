"""A first step skipped by the loss scaler does not change any optimizer: the next step equals a first step."""

from __future__ import annotations

import json
import math

import pytest
import torch
from running import job
from small_runs import build, small

from runner.engine.loss_scaler import LossScaler
from runner.registry import names
from runner.tasks import start


def stepped(name: str, first: float | None) -> list[torch.Tensor]:
    """Return the weights after a step by gradients of some size, if there is one, and three good ones."""
    made = build(small({"precision": "fp16", "optim": name, "scheduler": "constant"}))
    learner = made.learner
    learner.scaler.scale(torch.zeros(()))  # makes its scale
    parameters = list(learner.model.parameters())
    litter = [torch.full_like(p, 7e8) for p in parameters for _ in range(8)]
    del litter  # what an allocation without a value finds now
    generator = torch.Generator().manual_seed(0)
    for size in (first, 1.0, 0.5, 0.25):
        if size is not None:
            learner.zero_grad()
            for p in parameters:
                drawn = torch.randn(p.shape, generator=generator) if math.isfinite(size) else torch.ones(p.shape)
                p.grad = torch.empty_like(p).copy_(drawn * size * learner.scaler.get_scale())
            learner.set_lr()
            learner.scaler.unscale_(learner.optimizer)
            learner.step_optimizer(torch.zeros(()))
    return [p.detach() for p in parameters]


@pytest.mark.parametrize("size", [torch.inf, torch.nan])
@pytest.mark.parametrize("name", names("optim"))
def test_a_first_step_that_is_held_back_leaves_no_trace(name, size):
    held, without = stepped(name, size), stepped(name, None)
    assert all(map(torch.equal, held, without))
    assert all(torch.isfinite(p).all() and p.abs().max() < 1e3 for p in held)


@pytest.mark.parametrize("clip", ["null", "1.0"])
def test_a_skipped_step_leaves_no_infinite_number_in_the_log(tmp_path, monkeypatch, clip):
    scale = LossScaler
    # So large that the first steps overflow, as at the start of training in half precision
    monkeypatch.setattr("runner.assemble.learner.LossScaler", lambda *a, **k: scale(*a, **k, init_scale=2.0**127))
    every = [f"probe.{name}.every=1" for name in ("grad_norm", "update_ratio", "gradients", "weight_norm")]
    words = ("model=mlp", "model.hidden=[8]", "precision=fp16", "steps=12", "figures=never", f"clip={clip}", *every)
    probes = "probe=[grad_norm,update_ratio,gradients,weight_norm]"
    assert start(job(*words, probes, f"hydra.run.dir={tmp_path / 'run'}")) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    numbers = [value for row in rows for value in row.values()]
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
    with_norm = [row["step"] for row in rows if "grad_norm/_global" in row or "grad_norm/head.weight" in row]
    assert with_norm != list(range(1, 13))  # some step was skipped
