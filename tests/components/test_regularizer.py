"""Dropout and stochastic depth by expectation; what holds for every regularizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Regularizer
from runner.engine.parts import Residual, Slot
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "regularizer"


def regularizer(name: str, **changes: Any) -> Regularizer:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert list(config) == [name]
    return build("regularizer", {"name": name, **(config[name] or {}), **changes})


def block(channels: int) -> nn.Module:
    branch = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), Slot("residual"))
    return nn.Sequential(Residual(branch, nn.Identity(), nn.ReLU()), Slot("block"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), block(4), block(4), nn.MaxPool2d(2), block(4), block(4), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), Slot("fc"), Slot("head"), nn.Linear(12, 10)),
    )


def images(batch: int = 8) -> Tensor:
    return torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
def test_dropout_keeps_the_expectation_in_training_and_changes_nothing_in_evaluation(p: float) -> None:
    model = nn.Sequential(Slot("head"))
    regularizer("dropout", p=p).rewire(model)
    torch.manual_seed(0)
    x = torch.full((20000,), 2.0)
    out = model(x)
    assert (out == 0).float().mean().item() == pytest.approx(p, abs=0.02)
    assert out.mean().item() == pytest.approx(2.0, abs=0.08)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 2 / (1 - p)))
    assert torch.equal(model.eval()(x), x)


def test_dropout_goes_where_it_is_told_and_says_so() -> None:
    model = network()
    assert (
        regularizer("dropout", p=0.5, where=["block", "head"]).rewire(model) == "dropout 0.5 at 5 places (block, head)"
    )
    assert sum(isinstance(m, nn.Dropout) for m in model.modules()) == 5
    assert [m.where for m in model.modules() if isinstance(m, Slot)].count("fc") == 1
    assert regularizer("dropout", p=0.1, where=["fc"]).rewire(model) == "dropout 0.1 at 1 place (fc)"


def test_a_place_that_the_model_lacks_is_an_error_that_lists_the_open_ones() -> None:
    message = r"^regularizer.dropout.where: the model has no open slot 'fc' \(open slots: block, residual\)$"
    with pytest.raises(ConfigError, match=message):
        regularizer("dropout", where=["block", "fc"]).rewire(block(3))
    with pytest.raises(ConfigError, match=r"no open slot 'residual' \(open slots: none\)"):
        regularizer("stochastic_depth").rewire(nn.Linear(2, 2))


def test_a_refused_rewiring_leaves_the_model_as_it_was() -> None:
    model = block(3)
    with pytest.raises(ConfigError):
        regularizer("dropout", where=["block", "fc"]).rewire(model)
    assert [m.where for m in model.modules() if isinstance(m, Slot)] == ["residual", "block"]


def test_stochastic_depth_drops_deeper_branches_more_often_and_whole_examples() -> None:
    class Count(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones_like(x)

    depth = 4
    model = nn.ModuleList(nn.Sequential(Count(), Slot("residual")) for _ in range(depth))
    summary = regularizer("stochastic_depth", p=0.6).rewire(model)
    assert summary == "stochastic depth 0.15 to 0.6 at 4 places (residual)"
    torch.manual_seed(0)
    for layer, branch in enumerate(model, 1):
        out = branch(torch.zeros(6000, 3, 2, 2))
        dropped = 0.6 * layer / depth
        assert (out.flatten(1) == out[:, 0, 0, :1]).all(), "an example is dropped as a whole"
        assert (out[:, 0, 0, 0] == 0).float().mean().item() == pytest.approx(dropped, abs=0.03)
        assert out.mean().item() == pytest.approx(1.0, abs=0.06)
        assert torch.equal(branch.eval()(torch.zeros(2, 3, 2, 2)), torch.ones(2, 3, 2, 2))


def test_vanilla_dropout_scales_in_evaluation_by_the_keep_probability() -> None:
    model = nn.Sequential(Slot("head"))
    regularizer("dropout_vanilla", p=0.3).rewire(model)
    torch.manual_seed(0)
    x = torch.full((20000,), 2.0)
    out = model(x)
    assert torch.equal(out[out != 0], torch.full_like(out[out != 0], 2.0)), "nothing is scaled in training"
    assert out.mean().item() == pytest.approx(2 * 0.7, abs=0.03)
    torch.testing.assert_close(model.eval()(x), 0.7 * x)


def test_dropout2d_drops_whole_channels_of_an_example_and_keeps_the_expectation() -> None:
    model = nn.Sequential(Slot("block"), Slot("head"))
    assert regularizer("dropout2d", p=0.3).rewire(model) == "dropout2d 0.3 at 1 place (block)"
    torch.manual_seed(0)
    maps = torch.ones(400, 50, 4, 3)
    out = model(maps).flatten(2)
    dropped = (out == 0).all(2)
    torch.testing.assert_close(out, torch.where(dropped, 0, 1 / 0.7)[..., None].expand_as(out))
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / 20000) ** 0.5)
    assert len({tuple(row) for row in dropped.tolist()}) == 400, "each example drops channels of its own"
    assert torch.equal(model.eval()(maps), maps)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    model = nn.Sequential(Slot("head"))
    assert regularizer("alpha_dropout", p=0.2).rewire(model) == "alpha dropout 0.2 at 1 place (head)"
    torch.manual_seed(0)
    x = torch.randn(50000)
    out = model(x)
    assert (out.mean().item(), out.std().item()) == pytest.approx((0.0, 1.0), abs=0.03)
    assert (out != x).any()
    assert torch.equal(model.eval()(x), x)


@pytest.mark.parametrize("name", names("regularizer"))
def test_every_regularizer_does_exactly_one_thing_to_a_convolutional_net(name: str) -> None:
    part, model = regularizer(name), network()
    keys = list(model.state_dict())
    assert [part.penalty, part.rewire, part.constrain].count(None) == 2
    if part.penalty:
        assert part.penalty(model).shape == ()
        assert part.penalty(model).item() > 0
    if part.constrain:
        part.constrain(model)
    if part.rewire:
        summary = part.rewire(model)
        assert "\n" not in summary and summary
        assert list(model.state_dict()) == keys
        is_same = torch.equal(model.train()(images()), model(images()))
        assert is_same == (name == "weight_standardization"), "all others are random in training"
    model.eval()
    assert torch.equal(model(images()), model(images()))


@pytest.mark.parametrize("name", names("regularizer"))
def test_every_regularizer_can_be_trained_through(name: str) -> None:
    part, model = regularizer(name), network()
    if part.rewire:
        part.rewire(model)
    torch.manual_seed(0)
    loss = nn.functional.cross_entropy(model(images()), torch.arange(8))
    (loss + part.penalty(model) if part.penalty else loss).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
