"""A first step skipped by the loss scaler does not change any optimizer: the next step equals a first step."""

from __future__ import annotations

import math

import pytest
import torch
from small_runs import build, small

from runner.registry import names


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
