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


def test_vanilla_dropout_scales_in_evaluation_by_the_keep_probability() -> None:
    model = nn.Sequential(Slot("head"))
    regularizer("dropout_vanilla", p=0.3).rewire(model)
    torch.manual_seed(0)
    x = torch.full((20000,), 2.0)
    out = model(x)
    assert torch.equal(out[out != 0], torch.full_like(out[out != 0], 2.0)), "nothing is scaled in training"
    assert out.mean().item() == pytest.approx(2 * 0.7, abs=0.03)
    torch.testing.assert_close(model.eval()(x), 0.7 * x)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    model = nn.Sequential(Slot("head"))
    assert regularizer("alpha_dropout", p=0.2).rewire(model) == "alpha dropout 0.2 at 1 place (head)"
    torch.manual_seed(0)
    x = torch.randn(50000)
    out = model(x)
    assert (out.mean().item(), out.std().item()) == pytest.approx((0.0, 1.0), abs=0.03)
    assert (out != x).any()
    assert torch.equal(model.eval()(x), x)


def test_dropconnect_zeroes_weights_not_biases_and_keeps_the_expectation() -> None:
    model = nn.Sequential(nn.Linear(1, 20000), nn.Flatten(), nn.Linear(20000, 1))
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    keys, parameters = list(model.state_dict()), list(model.parameters())
    assert regularizer("dropconnect", p=0.4, layers=["linear"]).rewire(model) == "dropconnect 0.4 at 2 places (linear)"
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    torch.manual_seed(0)
    out = model[0](torch.ones(1, 1))
    assert (out == 1).float().mean().item() == pytest.approx(0.4, abs=0.02), "a dropped weight leaves the bias"
    assert out.mean().item() == pytest.approx(2.0, abs=0.03)
    torch.testing.assert_close(model[0].eval()(torch.ones(1, 1)), torch.full((1, 20000), 2.0))


def test_dropconnect_reaches_convolutions_with_their_padding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", stride=2, bias=False))
    x = torch.randn(4, 2, 8, 8)
    plain = model(x)
    regularizer("dropconnect", p=0.5, layers=["conv"]).rewire(model)
    assert torch.equal(model.eval()(x), plain)
    model.train()
    mean = torch.stack([model(x) for _ in range(800)]).mean(0)
    torch.testing.assert_close(mean, plain, rtol=0, atol=0.15)


def test_dropconnect_says_where_it_has_no_layer() -> None:
    with pytest.raises(ConfigError, match=r"^regularizer.dropconnect.layers: the model has no plain conv layer$"):
        regularizer("dropconnect", layers=["linear", "conv"]).rewire(nn.Linear(2, 2))


@pytest.mark.parametrize(("size", "p"), [(3, 0.1), (4, 0.1), (1, 0.3)])
def test_dropblock_drops_whole_squares_and_keeps_the_expectation(size: int, p: float) -> None:
    model = nn.Sequential(Slot("block"))
    summary = regularizer("dropblock", p=p, size=size).rewire(model)
    assert summary == f"dropblock {p} of size {size} at 1 place (block)"
    torch.manual_seed(0)
    out = model(torch.ones(200, 4, 12, 12))
    dropped = (out == 0).float()
    assert p * 0.8 < dropped.mean().item() < p * 1.02
    assert out.mean().item() == pytest.approx(1.0, abs=1e-4)
    inside = nn.functional.max_pool2d(1 - dropped, size, stride=1) == 0  # corners of squares that are wholly dropped
    spread = nn.functional.max_pool2d(nn.functional.pad(inside.float(), [size - 1] * 4), size, stride=1)
    assert torch.equal(spread, dropped), "every dropped pixel lies in a square that is dropped"
    assert torch.equal(model.eval()(out), out)


def test_dropblock_shrinks_to_the_map() -> None:
    model = nn.Sequential(Slot("block"))
    regularizer("dropblock", p=0.25, size=7).rewire(model)
    torch.manual_seed(0)
    out = model(torch.ones(500, 8, 2, 2)).flatten(2)
    assert ((out == 0).all(2) | (out != 0).all(2)).all()
    assert (out == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("size", [2, 3, 4, 7, 8, 31])
@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d(2, ceil_mode=True)]
)
def test_fractional_pooling_gives_maxima_at_the_size_of_the_pooling_it_replaces(size: int, pool: nn.Module) -> None:
    model = nn.Sequential(pool)
    x = torch.randn(3, 2, size, size, generator=torch.Generator().manual_seed(0))
    expected = pool(x)
    regularizer("fractional_pooling").rewire(model)
    for mode in (True, False):
        out = model.train(mode)(x)
        assert out.shape == expected.shape
        assert all(set(o.flatten().tolist()) <= set(i.flatten().tolist()) for o, i in zip(out[0], x[0], strict=True))
        assert torch.equal(out.amax((2, 3)), x.amax((2, 3))) or size % 2, "the regions cover the map"


def test_fractional_pooling_is_random_in_training_and_fixed_in_evaluation() -> None:
    model = nn.Sequential(nn.MaxPool2d(2))
    regularizer("fractional_pooling").rewire(model)
    x = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    first = model(x)
    assert not torch.equal(model(x), first)
    torch.manual_seed(0)
    assert torch.equal(model(x), first)
    model.eval()
    assert torch.equal(model(x), model(x))


def test_fractional_pooling_replaces_a_shared_pooling_at_every_place_and_none_that_does_not_shrink() -> None:
    pool = nn.MaxPool2d(2)
    model = nn.Sequential(pool, nn.ReLU(), pool, nn.MaxPool2d(3, stride=1, padding=1))
    assert regularizer("fractional_pooling").rewire(model) == "fractional max pooling at 2 places"
    assert type(model[0]) is type(model[2]) is not type(model[3])
    with pytest.raises(ConfigError, match="no max pooling to replace"):
        regularizer("fractional_pooling").rewire(nn.Sequential(nn.MaxPool2d(3, stride=1)))


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
