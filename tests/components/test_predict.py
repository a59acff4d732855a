"""Predictions against means of probabilities worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Predict
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "predict"


def predict(name: str, **changes: Any) -> Predict:
    config = {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}
    return build("predict", config)


def images() -> Tensor:
    return torch.tensor(load_digits().images[:16, None] / 16, dtype=torch.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 10)).eval()


def test_plain_is_the_log_of_the_softmax() -> None:
    model = network()
    z = model(images())
    torch.testing.assert_close(predict("plain")(model, images()).exp(), z.exp() / z.exp().sum(1, keepdim=True))


def test_flip_averages_the_probabilities_not_the_logits() -> None:
    model = network()
    z = [model(images()), model(torch.stack([torch.tensor(i.numpy()[..., ::-1].copy()) for i in images()]))]
    by_hand = (z[0].softmax(1) + z[1].softmax(1)) / 2
    found = predict("tta", views=["flip"])(model, images()).exp()
    torch.testing.assert_close(found, by_hand)
    assert (found - (z[0] / 2 + z[1] / 2).softmax(1)).abs().max() > 1e-5


def test_tta_without_views_is_plain() -> None:
    torch.testing.assert_close(predict("tta", views=[])(network(), images()), predict("plain")(network(), images()))


@pytest.mark.parametrize("name", names("predict"))
def test_probabilities_sum_to_one_and_repeat(name: str) -> None:
    model = network()
    found = predict(name)(model, images())
    assert found.shape == (16, 10)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(16))
    assert torch.equal(found, predict(name)(model, images()))
    assert not any(module.training for module in model.modules())


class Sure(nn.Module):
    """Logits so far apart that the probabilities of single views underflow."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e3 * torch.stack([x[:, 0, 0, 0], x[:, 0, 0, -1]], 1)


def test_a_view_without_any_probability_does_not_break_the_mean() -> None:
    image = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
    torch.testing.assert_close(predict("tta", views=["flip"])(Sure(), image).exp(), torch.tensor([[0.5, 0.5]]))


def test_half_precision_logits_give_float32_log_probabilities() -> None:
    model = network().bfloat16()
    assert predict("plain")(model, images().bfloat16()).dtype == torch.float32
