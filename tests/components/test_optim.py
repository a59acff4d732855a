"""Optimizers in a run that learns, stops and resumes."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "optim"


def knobs(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}


def optimizer(name: str, model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    return build("optim", knobs(name, **changes), model=model, fused=None)


@cache
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 8 - 1, dtype=torch.float32), torch.tensor(labels)


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 10),
    )


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))


def train(model: nn.Module, optim: torch.optim.Optimizer, steps: range) -> Tensor:
    images, labels = digits()
    for step in steps:
        index = torch.randperm(1500, generator=torch.Generator().manual_seed(step))[:64]
        optim.zero_grad()
        nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
        optim.step()
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()])


def test_sgd_goes_against_the_gradient() -> None:
    w = nn.Linear(1, 1, bias=False)
    w.weight.data.fill_(2.0)
    w.weight.grad = torch.ones(1, 1)
    optimizer("sgd", w, lr=0.5, weight_decay=0.0).step()
    assert w.weight.item() == 1.5


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate() -> None:
    w = nn.Linear(4, 1, bias=False)
    before = w.weight.detach().clone()
    w.weight.grad = torch.tensor([[1e-3, -5.0, 200.0, -1.0]])
    optimizer("adam", w, lr=0.01).step()
    torch.testing.assert_close(before - w.weight.detach(), 0.01 * w.weight.grad.sign(), rtol=1e-3, atol=0)


def test_decay_in_adamw_is_not_l2_as_in_adam() -> None:
    weights = {}
    for name in ("adam", "adamw"):
        model = convnet()
        train(model, optimizer(name, model, lr=0.003, weight_decay=0.1), range(5))
        weights[name] = model[5].weight.detach().clone()
    assert (weights["adam"] - weights["adamw"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", names("optim"))
def test_learns_digits_with_its_own_values(name: str) -> None:
    model = mlp()
    optim = optimizer(name, model)
    train(model, optim, range(150))
    model.eval()
    images, labels = digits()
    with torch.no_grad():
        accuracy = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
    assert accuracy > 0.85


@pytest.mark.parametrize("name", names("optim"))
def test_a_state_saved_in_mid_run_goes_on_bit_for_bit(name: str) -> None:
    model = convnet()
    optim = optimizer(name, model)
    train(model, optim, range(3))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optim.state_dict())
    expected = train(model, optim, range(3, 7))
    again = convnet()
    again.load_state_dict(weights)
    resumed = optimizer(name, again)
    resumed.load_state_dict(state)
    assert torch.equal(train(again, resumed, range(3, 7)), expected)


def test_betas_are_two() -> None:
    with pytest.raises(ConfigError, match=r"optim.betas: got \[0.9\], must be two"):
        optimizer("adam", convnet(), betas=[0.9])
