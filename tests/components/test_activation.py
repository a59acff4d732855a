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
