"""Averages against stored iterates."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Average
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "average"
CONTEXT = {"total_steps": 20, "steps_per_epoch": 5, "batch": 8}


def average(name: str, model: nn.Module, **changes: Any) -> Average:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    return build("average", config, model=model, **CONTEXT)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))


def flat(model: nn.Module) -> Tensor:
    return torch.cat([t.detach().double().flatten() for t in model.state_dict().values()])


def walk(model: nn.Module, averaged: Average, steps: range) -> list[Tensor]:
    """Train with noise for gradients and return the iterates, running statistics included."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    iterates = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        averaged.update(model, step)
        iterates.append(flat(model))
    return iterates


def test_none_is_the_model_itself() -> None:
    model = network()
    averaged = average("none", model)
    walk(model, averaged, range(1, 4))
    assert averaged.module is model
    assert averaged.state_dict() == {}


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_ema_is_the_normalized_weighted_mean_of_the_stored_iterates(decay: float) -> None:
    model = network()
    averaged = average("ema", model, decay=decay)
    iterates = torch.stack(walk(model, averaged, range(1, 11)))
    weights = torch.tensor([decay ** (10 - i) for i in range(1, 11)], dtype=torch.float64)
    expected = (weights[:, None] * iterates).sum(0) / weights.sum()
    floating = torch.cat([torch.full((t.numel(),), t.is_floating_point()) for t in model.state_dict().values()])
    torch.testing.assert_close(flat(averaged.module)[floating], expected[floating], rtol=1e-5, atol=1e-6)
    assert averaged.module[1].num_batches_tracked == 10


def test_ema_after_one_step_is_the_model_and_leaves_it_alone() -> None:
    model, twin = network(), network()
    averaged = average("ema", model, decay=0.99)
    walk(model, averaged, range(1, 2))
    torch.testing.assert_close(flat(averaged.module), flat(model))
    walk(twin, average("none", twin), range(1, 2))
    assert torch.equal(flat(model), flat(twin))


@pytest.mark.parametrize("name", sorted(set(names("average")) - {"none"}))
def test_an_average_has_weights_of_its_own_without_gradients(name: str) -> None:
    model = network()
    averaged = average(name, model)
    assert not any(p.requires_grad for p in averaged.module.parameters())
    assert {p.data_ptr() for p in averaged.module.parameters()}.isdisjoint(p.data_ptr() for p in model.parameters())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("stop", [1, 7, 17])
@pytest.mark.parametrize("name", names("average"))
def test_a_state_saved_in_mid_run_goes_on_bit_for_bit(name: str, stop: int) -> None:
    model = network()
    averaged = average(name, model)
    walk(model, averaged, range(1, stop + 1))
    saved = copy.deepcopy((model.state_dict(), averaged.module.state_dict(), averaged.state_dict()))
    walk(model, averaged, range(stop + 1, 21))
    again = network()
    resumed = average(name, again)
    for part, state in zip((again, resumed.module, resumed), saved, strict=True):
        part.load_state_dict(state)
    walk(again, resumed, range(stop + 1, 21))
    assert torch.equal(flat(resumed.module), flat(averaged.module))
    assert torch.equal(flat(again), flat(model))
