"""Three steps of each optimizer against its formula, stepped by hand in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from runner import components  # noqa: F401  (registers all)
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "optim"


def knobs(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}


# The papers' formulas in NumPy, float64: w (n,), gradients (3, n), knobs k, weight decay d -> w after three steps.


def hand_sgd(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    for g in gradients:
        w = w - k["lr"] * (g + d * w)
    return w


def hand_momentum(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    v = np.zeros_like(w)
    for g in gradients:
        v = k["momentum"] * v + (g + d * w)
        w = w - k["lr"] * v
    return w


def hand_nesterov(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    v = np.zeros_like(w)
    for g in gradients:
        g = g + d * w
        v = k["momentum"] * v + g
        w = w - k["lr"] * (g + k["momentum"] * v)
    return w


def hand_adam(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v = k["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        g = g + d * w
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        w = w - k["lr"] * (m / (1 - a**t)) / (np.sqrt(v / (1 - b**t)) + k["eps"])
    return w


def hand_adamw(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v = k["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        w = w - k["lr"] * d * w - k["lr"] * (m / (1 - a**t)) / (np.sqrt(v / (1 - b**t)) + k["eps"])
    return w


def hand_adagrad(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    total = np.zeros_like(w)
    for g in gradients:
        g = g + d * w
        total = total + g**2
        w = w - k["lr"] * g / (np.sqrt(total) + k["eps"])
    return w


def hand_rmsprop(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    cache = np.zeros_like(w)
    for g in gradients:
        g = g + d * w
        cache = k["alpha"] * cache + (1 - k["alpha"]) * g**2
        w = w - k["lr"] * g / (np.sqrt(cache) + k["eps"])
    return w


def hand_nadam(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v, product = k["betas"], np.zeros_like(w), np.zeros_like(w), 1.0
    for t, g in enumerate(gradients, 1):
        g = g + d * w
        now, after = (a * (1 - 0.5 * 0.96 ** (s * k["momentum_decay"])) for s in (t, t + 1))
        product *= now
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        ahead = after * m / (1 - product * after) + (1 - now) * g / (1 - product)
        w = w - k["lr"] * ahead / (np.sqrt(v / (1 - b**t)) + k["eps"])
    return w


def hand_adamax(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, u = k["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        g = g + d * w
        m, u = a * m + (1 - a) * g, np.maximum(b * u, np.abs(g) + k["eps"])
        w = w - k["lr"] / (1 - a**t) * m / u
    return w


def hand_lion(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m = k["betas"], np.zeros_like(w)
    for g in gradients:
        w = w - k["lr"] * (np.sign(a * m + (1 - a) * g) + d * w)
        m = b * m + (1 - b) * g
    return w


def hand_lamb(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v = k["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        u = (m / (1 - a**t)) / (np.sqrt(v / (1 - b**t)) + k["eps"]) + d * w
        ratio = np.linalg.norm(w) / np.linalg.norm(u) if d else 1.0  # d is 0 where decay is excluded
        w = w - k["lr"] * ratio * u
    return w


def hand_muon(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    return hand_adamw(w, gradients, k, d)  # a model of one layer has no hidden matrix


def hand_muon_sgd(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    v = np.zeros_like(w)  # a model of one layer has no hidden matrix
    for g in gradients:
        g = g + d * w
        v = k["sgd_momentum"] * v + g
        w = w - k["sgd_lr"] * (g + k["sgd_momentum"] * v)
    return w


def hand_schedulefree(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), v, total = k["betas"], np.zeros_like(w), 0.0
    x, y, z = w, w, w
    for t, g in enumerate(gradients, 1):
        v = b * v + (1 - b) * g**2
        rate = k["lr"] * np.sqrt(1 - b**t)
        z = z - rate * (g / (np.sqrt(v) + k["eps"]) + d * y)
        total += rate**2
        x = (1 - rate**2 / total) * x + rate**2 / total * z
        y = (1 - a) * z + a * x
    return y


def hand_schedulefree_sgd(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    a, x, y, z = k["momentum"], w, w, w
    for t, g in enumerate(gradients, 1):
        z = z - k["lr"] * (g + d * y)
        x = (1 - 1 / t) * x + z / t
        y = (1 - a) * z + a * x
    return y


def hand_radam(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v, most = k["betas"], np.zeros_like(w), np.zeros_like(w), 2 / (1 - k["betas"][1]) - 1
    for t, g in enumerate(gradients, 1):
        g = g + d * w
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        r = most - 2 * t * b**t / (1 - b**t)
        step = m / (1 - a**t)
        if r > 5:
            rectified = (r - 4) * (r - 2) * most / ((most - 4) * (most - 2) * r)
            step = step * np.sqrt(rectified) * np.sqrt(1 - b**t) / (np.sqrt(v) + k["eps"])
        w = w - k["lr"] * step
    return w


def hand_adafactor(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    def rms(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean(x**2)))

    v = np.zeros_like(w)
    rows, columns = (np.zeros(w.shape[:1]), np.zeros(w.shape[1:])) if w.ndim == 2 else (None, None)
    for t, g in enumerate(gradients, 1):
        newest, rate = t ** k["beta2_decay"], min(k["lr"], t**-0.5) * max(k["min_size"], rms(w))
        w = w - k["lr"] * d * w
        if w.ndim == 2:
            rows = (1 - newest) * rows + newest * (g**2).mean(1)
            columns = (1 - newest) * columns + newest * (g**2).mean(0)
            v = np.outer(rows, columns) / rows.mean()
        else:
            v = (1 - newest) * v + newest * g**2
        u = g / np.sqrt(v)
        w = w - rate * u / max(1, rms(u) / k["threshold"])
    return w


HAND = {name[5:]: function for name, function in globals().items() if name.startswith("hand_")}


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("name", HAND)
def test_three_steps_follow_the_formula(name: str, fused: bool | None) -> None:
    torch.manual_seed(1)
    model = nn.Linear(3, 2).double()
    config = knobs(name, weight_decay=0.1)
    start = {key: p.detach().numpy().copy() for key, p in model.named_parameters()}
    gradients = {key: np.random.default_rng(0).normal(size=(3, *p.shape)) for key, p in model.named_parameters()}
    optim = build("optim", config, model=model, fused=fused)
    for step in range(3):
        for key, p in model.named_parameters():
            p.grad = torch.tensor(gradients[key][step])
        optim.step()
    for key, p in model.named_parameters():
        expected = HAND[name](start[key], gradients[key], config, 0.1 if key == "weight" else 0.0)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-7, atol=1e-12)


def hand_amsgrad(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v, most = k["betas"], np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        most = np.maximum(most, v)
        w = w - k["lr"] * (m / (1 - a**t)) / (np.sqrt(most / (1 - b**t)) + k["eps"])
    return w


def hand_centered(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    cache, mean = np.zeros_like(w), np.zeros_like(w)
    for g in gradients:
        cache = k["alpha"] * cache + (1 - k["alpha"]) * g**2
        mean = k["alpha"] * mean + (1 - k["alpha"]) * g
        w = w - k["lr"] * g / (np.sqrt(cache - mean**2) + k["eps"])
    return w


@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize(
    ("name", "changed", "hand"),
    [
        ("radam", {"betas": [0.9, 0.99]}, hand_radam),  # rectified from step 6 on
        ("radam", {"betas": [0.5, 0.9], "eps": 0.3}, hand_radam),
        ("adam", {"betas": [0.9, 0.5], "amsgrad": True}, hand_amsgrad),
        ("adamw", {"betas": [0.9, 0.5], "amsgrad": True}, hand_amsgrad),
        ("rmsprop", {"alpha": 0.9, "centered": True}, hand_centered),
        ("adafactor", {"lr": 1.0, "threshold": 1.5, "beta2_decay": -0.5}, hand_adafactor),
        ("schedulefree_sgd", {"momentum": 0.7}, hand_schedulefree_sgd),
    ],
)
def test_twelve_steps_follow_the_formula(name: str, changed: dict[str, Any], hand: Any, fused: bool | None) -> None:
    torch.manual_seed(1)
    weight = nn.Linear(4, 3, bias=False).double()
    gradients = np.random.default_rng(0).normal(size=(12, 3, 4)) * np.geomspace(4, 0.1, 12)[:, None, None]
    config = knobs(name, weight_decay=0.0, **changed)
    start, optim = weight.weight.detach().numpy().copy(), build("optim", config, model=weight, fused=fused)
    for g in gradients:
        weight.weight.grad = torch.tensor(g)
        optim.step()
    expected = hand(start, gradients, config, 0.0)
    np.testing.assert_allclose(weight.weight.detach().numpy(), expected, rtol=1e-7, atol=1e-12)


def test_every_optimizer_has_its_formula() -> None:
    assert sorted(HAND) == names("optim")


def test_a_tensor_that_gets_its_first_gradient_late_starts_then() -> None:
    for name in names("optim"):
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False)).double()
        start = model[1].weight.detach().numpy().copy()
        config = knobs(name, weight_decay=0.0)
        optim = build("optim", config, model=model, fused=None)
        for step in range(3):
            model[0].weight.grad = torch.ones(3, 3, dtype=torch.float64)
            model[1].weight.grad = torch.ones(2, 3, dtype=torch.float64) if step == 2 else None
            optim.step()
        if name in ("lamb", "schedulefree", "schedulefree_sgd"):  # a ratio of norms; a rate shared by the group
            assert np.isfinite(model[1].weight.detach().numpy()).all()
            continue
        expected = HAND[name](start, np.ones((1, 2, 3)), config, 0.0)
        np.testing.assert_allclose(model[1].weight.detach().numpy(), expected, rtol=1e-7, err_msg=name)
