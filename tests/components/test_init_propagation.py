"""Propagation of signals and gradients through deep networks, against closed forms for wide layers."""

from math import sqrt

import numpy as np
import pytest
import torch
from test_init import config, init
from torch import nn

from runner.registry import build

# How a unit-normal signal travels through 6 layers of D units (diagnostics by closed form, exact for wide layers).
D, N, LAYERS = 512, 256, 6
NODES = np.linspace(-8, 8, 4000)  # none at zero, where ReLU has its kink
WEIGHTS = np.exp(-(NODES**2) / 2) / np.exp(-(NODES**2) / 2).sum()
GAIN2 = {"tenth": 0.4096, "large": 10.24, "xavier": 1.0, "kaiming": 2.0}  # s^2 D


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


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
        init(scale, net, mode="fan_in", head=None)
    else:
        init("normal", net, std=sqrt(GAIN2[scale] / D), head=None)
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
    linear = init("kaiming", nn.Linear(D, D), head=None)
    std = linear.weight.std().item()
    assert std == pytest.approx(sqrt(2 / D), rel=0.01)
    assert std != pytest.approx(2 / sqrt(D), rel=0.2) and std != pytest.approx(1 / sqrt(2 / D), rel=0.2)
