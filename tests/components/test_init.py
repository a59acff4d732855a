"""Initializations: standard deviations against the fan formulas, and how signals travel through deep nets."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

import runner.components  # noqa: F401  (registers)
from runner.engine.parts import Residual, Slot
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf"
DIGITS = (1, 8, 8)


def config(kind, name, **knobs):
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text()) | knobs


def init(name, model, **knobs):
    build("init", config("init", name, **knobs))(model)
    return model


def model(name, *, norm="none", activation="relu", **knobs):
    return build(
        "model",
        config("model", name, **knobs),
        shape=DIGITS,
        num_classes=10,
        activation=lambda: build("activation", config("activation", activation)),
        norm=build("norm", config("norm", norm)),
    )


class Zoo(nn.Module):
    """A linear, a convolutional and a grouped convolutional layer with many weights, a norm, and a classifier."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(512, 256)
        self.conv = nn.Conv2d(64, 128, 3)
        self.grouped = nn.Conv2d(64, 128, 3, groups=4)
        self.norm = nn.BatchNorm2d(128)
        self.head = nn.Linear(400, 300)


#                     fan_in     fan_out
FANS = {"linear": (512, 256), "conv": (9 * 64, 9 * 128), "grouped": (9 * 16, 9 * 32), "head": (400, 300)}


@pytest.mark.parametrize(
    ("name", "knobs", "std"),
    [
        ("small_normal", {}, lambda i, o: 0.01),
        ("normal", {"std": 0.3}, lambda i, o: 0.3),
        ("xavier", {"mode": "fan_in"}, lambda i, o: sqrt(1 / i)),
        ("xavier", {"mode": "fan_avg"}, lambda i, o: sqrt(2 / (i + o))),
        ("kaiming", {"mode": "fan_in"}, lambda i, o: sqrt(2 / i)),
        ("kaiming", {"mode": "fan_out"}, lambda i, o: sqrt(2 / o)),
        ("torch_default", {}, lambda i, o: sqrt(1 / (3 * i))),
    ],
)
def test_standard_deviation_follows_the_fan_formula(name, knobs, std):
    torch.manual_seed(0)
    zoo = init(name, Zoo(), **knobs)
    for layer, fans in FANS.items():
        weight = zoo.get_submodule(layer).weight
        assert weight.std().item() == pytest.approx(std(*fans), rel=0.02)  # 4 standard errors of the smallest layer
        assert abs(weight.mean().item()) < 5 * std(*fans) / sqrt(weight.numel())


@pytest.mark.parametrize("name", sorted(set(names("init")) - {"residual", "lsuv", "whiten"}))
def test_a_seed_fixes_the_draws_and_norms_stay_one_and_zero(name):
    def seeded(seed):
        torch.manual_seed(seed)
        return init(name, Zoo())

    one, same = seeded(0), seeded(0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert one.norm.weight.tolist() == [1] * 128 and not one.norm.bias.any()


def test_bias_is_a_constant_of_all_layers_and_no_slope():
    zoo = init("kaiming", Zoo(), bias=0.01)
    for layer in FANS:
        assert zoo.get_submodule(layer).bias.unique().tolist() == pytest.approx([0.01])
    assert not zoo.norm.bias.any()


def test_the_head_may_be_drawn_apart():
    zeros = init("kaiming", Zoo(), head="zeros")
    assert not zeros.head.weight.any() and zeros.linear.weight.any()
    small = init("torch_default", Zoo(), head=0.01)
    assert small.head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert small.linear.weight.std().item() == pytest.approx(sqrt(1 / (3 * 512)), rel=0.02)
    logits = init("kaiming", model("resnet", norm="batch"), head="zeros")(torch.randn(5, *DIGITS))
    assert cross_entropy(logits, torch.arange(5)).item() == pytest.approx(np.log(10), rel=1e-6)


def test_a_head_that_is_not_there_is_one_line():
    with pytest.raises(ConfigError, match="no fully connected classifier"):
        init("kaiming", nn.Conv2d(3, 3, 1), head="zeros")


def blocks(net):
    return [m for m in net.modules() if isinstance(m, Residual)]


def test_residual_zeroes_the_norms_scale_where_a_norm_ends_the_branch():
    net = init("residual", model("resnet", norm="batch"))
    for block in blocks(net):
        assert not block.branch.norm2.weight.any() and block.branch.conv2.weight.any()
    images = torch.randn(4, *DIGITS)
    cross_entropy(net(images), torch.arange(4)).backward()
    largest = max(p.grad.abs().max().item() for p in net.parameters())
    assert largest < 10  # a convolution of zeros under the norm would make it 1 / sqrt(eps) = 316 times what it is


def test_residual_zeroes_the_convolution_where_no_norm_ends_the_branch():
    for knobs in ({"norm": "none"}, {"norm": "batch", "order": "pre"}):
        for block in blocks(init("residual", model("resnet", **knobs))):
            assert not block.branch.conv2.weight.any() and block.branch.conv1.weight.any()


def test_residual_blocks_start_as_their_shortcut():
    for knobs in ({"norm": "batch"}, {"norm": "none"}, {"norm": "layer"}):
        net = init("residual", model("resnet", **knobs))
        block = blocks(net)[0]
        x = torch.rand(2, 16, 8, 8)
        assert torch.equal(block(x), x)


def test_residual_is_refused_where_there_are_no_residual_blocks():
    with pytest.raises(ConfigError, match="no residual blocks"):
        init("residual", model("mlp"))


def test_residual_knows_which_layer_of_a_branch_is_last():
    branch = nn.Sequential(nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.PReLU(), Slot("residual"))
    net = nn.Sequential(Residual(branch, nn.Identity(), nn.Identity()), nn.Linear(2, 2))
    init("residual", net)
    assert not branch[1].weight.any() and branch[0].weight.any() and branch[2].weight.any()


# How a unit-normal signal travels through 6 layers of D units (diagnostics by closed form, exact for wide layers).
D, N, LAYERS = 512, 256, 6
NODES = np.linspace(-8, 8, 4000)  # none at zero, where ReLU has its kink
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
GAIN2 = {"tenth": 0.4096, "large": 10.24, "xavier": 1.0, "kaiming": 2.0}  # s^2 D


def expected(activation, g2):
    """Return (std of each layer's output, gain of the gradient's rms through each layer)."""
    q, outs, gains = 1.0, [], []
    for _ in range(LAYERS):
        z = sqrt(g2 * q)
        h, slope = {
            "tanh": (np.tanh(z * NODES), 1 - np.tanh(z * NODES) ** 2),
            "relu": (np.maximum(z * NODES, 0), (NODES > 0) * 1.0),
        }[activation]
        mean, q = (WEIGHTS * h).sum(), (WEIGHTS * h**2).sum()
        outs.append(sqrt(q - mean**2))
        gains.append(sqrt(g2 * (WEIGHTS * slope**2).sum()))
    return np.array(outs), np.array(gains)


def measured(activation, scale, seed):
    torch.manual_seed(seed)
    layers = [
        (nn.Linear(D, D, bias=False), build("activation", config("activation", activation))) for _ in range(LAYERS)
    ]
    net = nn.Sequential(*(module for pair in layers for module in pair))
    if scale in ("xavier", "kaiming"):
        init(scale, net, mode="fan_in")
    else:
        init("normal", net, std=sqrt(GAIN2[scale] / D))
    h, outs = torch.randn(N, D).requires_grad_(), []
    for linear, act in layers:
        h = act(linear(h))
        h.retain_grad()
        outs.append(h)
    h.backward(torch.randn(N, D))
    grads = [out.grad.square().mean().sqrt().item() for out in outs]
    stds = [out.std().item() for out in outs]
    zeros = [(out == 0).float().mean().item() for out in outs]
    return np.array(stds), np.array(grads), np.array(zeros)


@pytest.mark.parametrize("scale", GAIN2)
@pytest.mark.parametrize(("activation", "tolerance"), [("tanh", 0.03), ("relu", 0.15)])
def test_signals_and_gradients_travel_as_the_closed_forms_say(activation, tolerance, scale):
    runs = [measured(activation, scale, seed) for seed in range(3)]
    stds, grads, zeros = (np.mean([run[i] for run in runs], axis=0) for i in range(3))
    outs, gains = expected(activation, GAIN2[scale])
    np.testing.assert_allclose(stds, outs, rtol=tolerance)
    np.testing.assert_allclose(grads[:-1], np.cumprod(gains[:0:-1])[::-1], rtol=tolerance)
    if activation == "relu":
        np.testing.assert_allclose(zeros, 0.5, atol=0.02)


def test_the_closed_forms_are_those_of_the_published_table():
    np.testing.assert_allclose(expected("tanh", 2.0)[0], [0.721, 0.633, 0.595, 0.577, 0.567, 0.562], rtol=0.01)
    np.testing.assert_allclose(expected("relu", 1.0)[0], [0.582, 0.411, 0.291, 0.207, 0.148, 0.103], rtol=0.03)
    np.testing.assert_allclose(expected("tanh", 10.24)[1][1:], [1.384, 1.399, 1.401, 1.401, 1.402], rtol=0.01)


def test_he_keeps_relu_signals_where_twice_over_the_root_grows_them():
    torch.manual_seed(0)
    linear = init("kaiming", nn.Linear(D, D))
    std = linear.weight.std().item()
    assert std == pytest.approx(sqrt(2 / D), rel=0.01)
    assert std != pytest.approx(2 / sqrt(D), rel=0.2) and std != pytest.approx(1 / sqrt(2 / D), rel=0.2)
