"""Losses against numbers worked by hand, with hard and with soft labels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Loss
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "loss"


def loss(name: str, **changes: Any) -> Loss:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    return build("loss", config)


def some(batch: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(batch, classes, generator=generator, dtype=torch.float64),
        torch.randint(classes, (batch,), generator=generator),
    )


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_with_smoothed_hard_labels_by_hand(smoothing: float) -> None:
    logits, labels = some()
    target = (1 - smoothing) * np.eye(4)[labels.numpy()] + smoothing / 4
    expected = -(target * np.log(softmax(logits.numpy()))).sum(1).mean()
    assert loss("cross_entropy", label_smoothing=smoothing)(logits, labels).item() == pytest.approx(expected)


def test_cross_entropy_with_smoothed_soft_labels_by_hand() -> None:
    logits, labels = some()
    soft = 0.3 * F.one_hot(labels, 4).double() + 0.7 * F.one_hot(labels.flip(0), 4)
    target = 0.8 * soft.numpy() + 0.2 / 4
    expected = -(target * np.log(softmax(logits.numpy()))).sum(1).mean()
    assert loss("cross_entropy", label_smoothing=0.2)(logits, soft).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", names("loss"))
def test_hard_labels_equal_one_hot_labels(name: str) -> None:
    logits, labels = some()
    compute = loss(name)
    torch.testing.assert_close(compute(logits, labels), compute(logits, F.one_hot(labels, 4).double()))


@pytest.mark.parametrize("name", names("loss"))
def test_the_loss_of_equal_parts_is_the_mean_of_their_losses(name: str) -> None:
    logits, labels = some()
    compute = loss(name)
    parts = (compute(logits[:3], labels[:3]) + compute(logits[3:], labels[3:])) / 2
    torch.testing.assert_close(compute(logits, labels), parts)


@pytest.mark.parametrize("name", names("loss"))
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    logits, labels = some()
    compute = loss(name)
    assert torch.autograd.gradcheck(lambda z: compute(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("name", names("loss"))
def test_half_precision_logits_give_a_float32_loss_even_where_they_are_huge(name: str) -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0]], dtype=torch.float16, requires_grad=True)
    value = loss(name)(logits, torch.tensor([1]))
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert torch.isfinite(logits.grad).all()
