"""Penalties by hand, rewirings by expectation and by the difference of training and evaluation."""

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
    return build("regularizer", {"name": name, **config[name], **changes})


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
    message = r"^regularizer.dropout.where: the model has no open place 'fc' \(open places: block, residual\)$"
    with pytest.raises(ConfigError, match=message):
        regularizer("dropout", where=["block", "fc"]).rewire(block(3))
    with pytest.raises(ConfigError, match=r"no open place 'residual' \(open places: none\)"):
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
        assert not torch.equal(model.train()(images()), model(images())), "random in training"
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
