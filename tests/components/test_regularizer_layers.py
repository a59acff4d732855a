"""DropConnect, DropBlock, fractional pooling and weight standardization."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from runner import components  # noqa: F401  (registers all)
from runner.engine.contracts import Regularizer
from runner.engine.parts import Slot
from runner.errors import ConfigError
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "regularizer"


def regularizer(name: str, **changes: Any) -> Regularizer:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert list(config) == [name]
    return build("regularizer", {"name": name, **(config[name] or {}), **changes})


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


def test_dropconnect_counts_the_layers_that_keep_their_weights() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.Conv2d(1, 1, 1))
    summary = regularizer("dropconnect", p=0.4, layers=["linear"]).rewire(model)
    assert summary == "dropconnect 0.4 at 1 place (linear); 1 of other classes not"


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


def standardized(*layers: nn.Module, eps: float = 1e-6) -> nn.Sequential:
    model = nn.Sequential(*layers, nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    regularizer("weight_standardization", eps=eps).rewire(model)
    return model


@pytest.mark.parametrize("eps", [1e-6, 0.1])
@pytest.mark.parametrize("knobs", [{}, {"groups": 2, "stride": 2}, {"padding": 1, "padding_mode": "circular"}], ids=str)
def test_weight_standardization_by_hand_and_by_timm(eps: float, knobs: dict[str, Any]) -> None:
    from timm.layers import StdConv2d

    torch.manual_seed(0)
    conv = nn.Conv2d(6, 4, 3, **knobs)
    x, weight = torch.randn(2, 6, 9, 8), conv.weight.detach().clone()
    plain = copy.deepcopy(conv)
    found = standardized(conv, eps=eps)[0](x)
    rows = weight.flatten(1).double()
    standard = (rows - rows.mean(1, keepdim=True)) / (rows.var(1, keepdim=True, unbiased=False) + eps).sqrt()
    plain.weight.data.copy_(standard.view_as(weight))
    torch.testing.assert_close(found, plain(x))
    if "padding_mode" not in knobs:
        timms = StdConv2d(6, 4, 3, padding=0, bias=True, eps=eps, **knobs)
        timms.load_state_dict(conv.state_dict())
        torch.testing.assert_close(found, timms(x))
    assert torch.equal(conv.weight, weight), "the parameter is the weight before standardization"


def test_weight_standardization_undoes_shift_and_scale_of_a_filter_and_passes_gradients() -> None:
    model, x = standardized(nn.Conv2d(3, 4, 3)), torch.randn(2, 3, 6, 6)
    before = model[0](x)
    model[0].weight.data.mul_(3).add_(0.5)
    torch.testing.assert_close(model[0](x), before, rtol=1e-4, atol=1e-4)
    model[0](x).square().sum().backward()
    gradient = model[0].weight.grad.flatten(1)
    torch.testing.assert_close(gradient.sum(1), torch.zeros(4), rtol=0, atol=1e-3 * gradient.abs().max().item())


def test_weight_standardization_keeps_names_and_leaves_the_classifier_and_single_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, groups=4), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    names, same = list(model.state_dict()), [model[1], model[3]]
    line = regularizer("weight_standardization").rewire(model)
    assert line == "weight standardization at 1 place; 1 others not"
    assert list(model.state_dict()) == names and all(type(layer) is nn.Conv2d for layer in same)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)),
            "requires a model with norms",
        ),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "the model has no plain convolution"),
    ],
)
def test_weight_standardization_is_refused_where_it_cannot_act(model: nn.Module, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^regularizer.weight_standardization: {says}"):
        regularizer("weight_standardization").rewire(model)
