"""Penalties and max-norm, computed by hand and against weight decay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Regularizer
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "regularizer"


def regularizer(name: str, **changes: Any) -> Regularizer:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert list(config) == [name]
    return build("regularizer", {"name": name, **(config[name] or {}), **changes})


def small() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Conv2d(1, 1, (1, 2)))
    model[0].weight.data = torch.tensor([[1.0, -2.0], [0.0, 3.0]])
    model[2].weight.data = torch.tensor([[[[-1.0, 0.5]]]])
    return model


def test_l1_by_hand() -> None:
    model = small()
    penalty = regularizer("l1", strength=0.1).penalty(model)
    assert penalty.item() == pytest.approx(0.1 * (1 + 2 + 3 + 1 + 0.5))
    penalty.backward()
    torch.testing.assert_close(model[0].weight.grad, torch.tensor([[0.1, -0.1], [0.0, 0.1]]))


def test_l2_by_hand() -> None:
    model = small()
    penalty = regularizer("l2", strength=0.1).penalty(model)
    assert penalty.item() == pytest.approx(0.05 * (1 + 4 + 9 + 1 + 0.25))
    penalty.backward()
    torch.testing.assert_close(model[0].weight.grad, 0.1 * model[0].weight)
    assert model[0].bias.grad is None
    assert model[1].weight.grad is None


def test_l2_counts_a_tied_weight_once_and_a_frozen_one_not() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    expected = model[0].weight.detach().square().sum().item() / 2
    assert regularizer("l2", strength=1.0).penalty(model).item() == pytest.approx(expected)


def stepped(optimizer: type[torch.optim.Optimizer], penalty: bool, decay: float) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    optim = optimizer(model.parameters(), lr=0.1, weight_decay=decay)
    for step in range(3):
        optim.zero_grad()
        loss = (
            model(torch.randn(5, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)).square().mean()
        )
        (loss + regularizer("l2", strength=0.2).penalty(model) if penalty else loss).backward()
        optim.step()
    return model.weight.detach()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_l2_is_the_weight_decay_in_the_gradient(optimizer: type[torch.optim.Optimizer]) -> None:
    torch.testing.assert_close(stepped(optimizer, True, 0.0), stepped(optimizer, False, 0.2))


def test_l2_is_not_decoupled_weight_decay() -> None:
    difference = stepped(torch.optim.AdamW, True, 0.0) - stepped(torch.optim.AdamW, False, 0.2)
    assert difference.abs().max() > 1e-3


def test_elastic_net_by_hand() -> None:
    found = regularizer("elastic_net", strength=0.1, beta=0.5).penalty(small())
    assert found.item() == pytest.approx(0.1 * (0.5 * (1 + 4 + 9 + 1 + 0.25) + (1 + 2 + 3 + 1 + 0.5)))


def test_max_norm_scales_down_the_units_that_are_too_long_and_leaves_the_others() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Conv2d(1, 1, 2))
    model[0].weight.data = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    model[1].weight.data.fill_(9.0)
    model[2].weight.data.fill_(2.0)  # norm 4
    bias = model[0].bias.detach().clone()
    regularizer("max_norm", limit=2.0).constrain(model)
    torch.testing.assert_close(model[0].weight.detach(), torch.tensor([[1.2, 1.6], [0.3, 0.4], [0.0, 0.0]]))
    torch.testing.assert_close(model[2].weight.detach(), torch.ones(1, 1, 2, 2))
    assert torch.equal(model[1].weight, torch.full((3,), 9.0))
    assert torch.equal(model[0].bias, bias)
