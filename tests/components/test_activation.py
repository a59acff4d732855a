"""Activations against their closed forms in float64."""

import math
from pathlib import Path

import pytest
import torch
import yaml

import runner.components  # noqa: F401  (registers)
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf"
GRID = [x / 8 for x in range(-64, 65)]  # includes 0 and values beyond every kink


def config(name, **knobs):
    return yaml.safe_load((CONF / "activation" / f"{name}.yaml").read_text()) | knobs


def sigma(x):
    return 1 / (1 + math.exp(-x))


CLOSED = {
    "relu": lambda x: max(x, 0),
    "tanh": lambda x: 2 * sigma(2 * x) - 1,
    "sigmoid": sigma,
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "silu": lambda x: x * sigma(x),
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "identity": lambda x: x,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
}


@pytest.mark.parametrize("name", names("activation"))
def test_equals_its_closed_form(name):
    module = build("activation", config(name)).double()
    got = module(torch.tensor(GRID, dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor([CLOSED[name](x) for x in GRID], dtype=torch.float64))


@pytest.mark.parametrize("name", names("activation"))
def test_leaves_its_input_alone_and_is_a_new_module_each_time(name):
    module = build("activation", config(name))
    x = torch.tensor(GRID)
    module(x)
    assert torch.equal(x, torch.tensor(GRID))
    assert build("activation", config(name)) is not module


def test_relu_passes_positive_and_stops_negative_values():
    assert build("activation", config("relu"))(torch.tensor([-2.0, 3.0])).tolist() == [0, 3]


def test_tanh_is_not_the_sigmoid_stretched_without_doubling_its_argument():
    x = torch.linspace(-3, 3, 7, dtype=torch.float64)
    got = build("activation", config("tanh"))(x)
    torch.testing.assert_close(got, 2 * torch.sigmoid(2 * x) - 1)
    assert not torch.allclose(got, 2 * torch.sigmoid(x) - 1, atol=0.1)


def test_leaky_slope_multiplies_and_adds_no_bias():
    module = build("activation", config("leaky_relu", slope=0.1))
    assert module(torch.tensor([-2.0, 0.0, 2.0])).tolist() == pytest.approx([-0.2, 0, 2])


def test_prelu_multiplies_below_zero_also_where_the_slope_is_above_one():
    module = build("activation", config("prelu", start=2.0))
    assert module(torch.tensor([-3.0, 3.0])).tolist() == [-6, 3]  # the form max(a x, x) would give -3 and 6


def test_prelu_learns_its_slope():
    module = build("activation", config("prelu"))
    module(torch.tensor([-3.0, 5.0])).sum().backward()
    assert [p.grad.item() for p in module.parameters()] == [-3]


def test_gelus_tanh_form_is_an_approximation_of_the_exact_one():
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    exact, near = (build("activation", config("gelu", approximate=how))(x) for how in (False, True))
    assert 1e-5 < (exact - near).abs().max() < 5e-4


def test_elu_and_softplus_follow_their_knobs():
    assert build("activation", config("elu", alpha=2.0))(torch.tensor(-1.0)).item() == pytest.approx(2 * math.expm1(-1))
    got = build("activation", config("softplus", beta=3.0))(torch.tensor(0.5)).item()
    assert got == pytest.approx(math.log(1 + math.exp(1.5)) / 3)


def test_selu_keeps_mean_zero_and_variance_one_with_lecun_weights():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        *(m for _ in range(20) for m in (torch.nn.Linear(512, 512), build("activation", config("selu"))))
    )
    lecun = yaml.safe_load((CONF / "init" / "lecun.yaml").read_text())
    build("init", {**lecun, "head": None})(net)
    out = net(torch.randn(256, 512))
    assert abs(out.mean().item()) < 0.1 and out.var().item() == pytest.approx(1, abs=0.15)
