"""Initializations: standard deviations against the fan formulas, biases, the head, and constants."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

import runner.components  # noqa: F401  (registers)
from runner.components.init.gains import squared_gain
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf"
DIGITS = (1, 8, 8)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def config(kind, name, **knobs):
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text()) | knobs


def init(name, model, *, images=None, **knobs):
    build("init", config("init", name, **knobs), images=images)(model)
    return model


def digits(count=200):
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().images[:count, None] / 16 - 0.3, dtype=torch.float32)


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
        ("large_normal", {}, lambda i, o: 0.05),
        ("normal", {"std": 0.3}, lambda i, o: 0.3),
        ("xavier", {"mode": "fan_in"}, lambda i, o: sqrt(1 / i)),
        ("xavier", {"mode": "fan_avg"}, lambda i, o: sqrt(2 / (i + o))),
        ("kaiming", {"mode": "fan_in"}, lambda i, o: sqrt(2 / i)),
        ("kaiming", {"mode": "fan_out"}, lambda i, o: sqrt(2 / o)),
        ("xavier_relu", {"mode": "fan_in"}, lambda i, o: sqrt(2 / i)),
        ("xavier_relu", {"mode": "fan_avg"}, lambda i, o: sqrt(4 / (i + o))),
        ("lecun", {}, lambda i, o: sqrt(1 / i)),
        ("torch_default", {}, lambda i, o: sqrt(1 / (3 * i))),
    ],
)
def test_standard_deviation_follows_the_fan_formula(name, knobs, std):
    torch.manual_seed(0)
    zoo = init(name, Zoo(), head=None, **knobs)
    for layer, fans in FANS.items():
        weight = zoo.get_submodule(layer).weight
        assert weight.std().item() == pytest.approx(std(*fans), rel=0.02)  # 4 standard errors of the smallest layer
        assert abs(weight.mean().item()) < 5 * std(*fans) / sqrt(weight.numel())


GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5 / 3,
    "relu": sqrt(2),
    "leaky_relu": sqrt(2 / (1 + 0.01**2)),
    "selu": 0.75,
    0.3: 0.3,
}


@pytest.mark.parametrize("given", GAINS)
def test_a_gain_is_the_factor_that_torch_has_for_an_activation(given):
    if isinstance(given, str):
        assert nn.init.calculate_gain(given) == pytest.approx(GAINS[given])
    for name, plain in (("kaiming", 1.0), ("xavier", 1.0), ("orthogonal", 1.0)):
        torch.manual_seed(0)
        one = init(name, Zoo(), gain=plain, head=None)
        torch.manual_seed(0)
        found = init(name, Zoo(), gain=given, head=None)
        for layer in FANS:
            expected = one.get_submodule(layer).weight * GAINS[given]
            torch.testing.assert_close(found.get_submodule(layer).weight, expected)


@pytest.mark.parametrize(
    ("activation", "squared"),
    [
        (nn.ReLU(), 2),
        (nn.Tanh(), 25 / 9),
        (nn.Sigmoid(), 1),
        (nn.SELU(), 9 / 16),
        (nn.LeakyReLU(0.2), 2 / 1.04),
        (nn.PReLU(init=0.5), 2 / 1.25),
        (nn.Identity(), 1),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_automatic_gain_is_that_of_the_models_activations(activation, squared):
    assert squared_gain("auto", nn.Sequential(nn.Linear(3, 3), activation, activation)) == pytest.approx(squared)


@pytest.mark.parametrize(
    ("activations", "says"),
    [
        ([nn.GELU()], "torch has no gain for GELU; choose relu or a number"),
        ([nn.ReLU(), nn.Tanh()], "the model has ReLU and Tanh; choose one gain"),
    ],
)
def test_the_automatic_gain_is_refused_where_there_is_none(activations, says):
    with pytest.raises(ConfigError, match=f"^init.gain: got 'auto', but {says}$"):
        init("kaiming", nn.Sequential(nn.Linear(3, 3), *activations), gain="auto")


def test_relus_gain_draws_what_kaiming_draws_by_default():
    torch.manual_seed(0)
    default = init("kaiming", Zoo())
    torch.manual_seed(0)
    asked = init("kaiming", nn.Sequential(Zoo(), nn.ReLU()), gain="auto")[0]
    assert all(map(torch.equal, default.parameters(), asked.parameters()))


NEEDS_MORE = {"residual", "lsuv", "whiten"}  # residual blocks, or images that the model takes


@pytest.mark.parametrize("name", sorted(set(names("init")) - NEEDS_MORE))
def test_a_seed_fixes_the_draws_and_norms_stay_one_and_zero(name):
    def drawn(seed):
        torch.manual_seed(seed)
        return init(name, Zoo())

    one, same = drawn(0), drawn(0)
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
    with pytest.raises(ConfigError, match="without a linear or convolutional classifier"):
        init("kaiming", nn.BatchNorm2d(3), head="zeros")


def test_glorots_average_and_the_short_form_agree_only_for_square_layers():
    stds = {}
    for mode in ("fan_in", "fan_avg"):
        torch.manual_seed(0)
        net = init("xavier", nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 900)), mode=mode, head=None)
        stds[mode] = [layer.weight.std().item() for layer in net]
    assert stds["fan_in"][0] == pytest.approx(stds["fan_avg"][0], rel=1e-5)
    assert stds["fan_in"][1] == pytest.approx(stds["fan_avg"][1] * sqrt(2), rel=1e-5)
    torch.manual_seed(0)
    glorot = nn.init.xavier_normal_(torch.empty(900, 300))
    assert stds["fan_avg"][1] == pytest.approx(glorot.std().item(), rel=0.01)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_with_zeros_only_the_last_bias_learns(activation):
    net = init("zeros", model("mlp", activation=activation))
    cross_entropy(net(digits(20)), torch.zeros(20, dtype=torch.long)).backward()
    moved = [name for name, p in net.named_parameters() if p.grad.any()]
    assert moved == ["head.bias"]


def test_with_a_constant_the_units_of_a_layer_stay_copies():
    net = init("constant", model("mlp"), value=0.05)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    labels = torch.arange(20) % 10
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(net(digits(20)), labels).backward()
        optimizer.step()
    hidden = net.hidden.fc1.linear.weight
    assert not torch.allclose(hidden, torch.full_like(hidden, 0.05)) and torch.allclose(hidden, hidden[:1])


def test_the_projections_of_torchs_attention_are_drawn_as_layers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.MultiheadAttention(256, 4), nn.Linear(256, 10))
    init("kaiming", net, bias=0.01)
    for projection in net[0].in_proj_weight.chunk(3):
        assert projection.std().item() == pytest.approx(sqrt(2 / 256), rel=0.02)
    assert net[0].in_proj_bias.unique().tolist() == pytest.approx([0.01])


def test_weights_that_came_from_a_file_are_left_alone():
    from runner.engine.parts import keep

    zoo = Zoo()
    keep([zoo.conv.weight, zoo.conv.bias])
    before = zoo.conv.weight.clone()
    init("zeros", zoo)
    assert torch.equal(zoo.conv.weight, before) and zoo.conv.bias.any()
    assert not zoo.linear.weight.any()
