"""LAMB, Lion, Muon and schedule-free: their properties, and comparisons with torch where it has the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner import components  # noqa: F401  (registers all)
from runner.components.optim.muon import orthogonalized
from runner.registry import build

CONF = Path(__file__).parents[2] / "conf" / "optim"


def knobs(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}


def optimizer(name: str, model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    return build("optim", knobs(name, **changes), model=model, fused=None)


def hand_adamw(w: np.ndarray, gradients: np.ndarray, k: dict[str, Any], d: float) -> np.ndarray:
    (a, b), m, v = k["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = a * m + (1 - a) * g, b * v + (1 - b) * g**2
        w = w - k["lr"] * d * w - k["lr"] * (m / (1 - a**t)) / (np.sqrt(v / (1 - b**t)) + k["eps"])
    return w


def newton_schulz(matrix: np.ndarray, steps: int) -> np.ndarray:
    """Return the iteration applied to the singular values, which is what it does to a matrix."""
    u, s, vt = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ vt


def test_muon_orthogonalizes_the_momentum_of_hidden_kernels_and_leaves_the_head_to_adamw() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(6, 3)).double()
    config = knobs("muon", weight_decay=0.1)
    start = {key: p.detach().numpy().copy() for key, p in model.named_parameters()}
    gradients = {key: np.random.default_rng(0).normal(size=(3, *p.shape)) for key, p in model.named_parameters()}
    optim = build("optim", config, model=model, fused=None)
    assert {group["name"] for group in optim.param_groups} == {"muon decay", "adamw decay", "adamw no_decay"}
    for step in range(3):
        for key, p in model.named_parameters():
            p.grad = torch.tensor(gradients[key][step])
        optim.step()
    for key, p in model.named_parameters():
        w = start[key]
        if key in ("0.weight", "1.weight"):
            m = np.zeros_like(w)
            for g in gradients[key]:
                m = 0.95 * m + 0.05 * g
                update = newton_schulz((0.95 * m + 0.05 * g).reshape(len(w), -1), config["ns_steps"]).reshape(w.shape)
                w = w * (1 - config["lr"] * 0.1) - config["lr"] * 0.2 * np.sqrt(max(len(w), w[0].size)) * update
        else:
            w = hand_adamw(w, gradients[key], config, 0.1 if key == "3.weight" else 0.0)
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("steps", "least"), [(5, 0.002), (3, 0.02)])
def test_singular_values_end_in_the_documented_range(steps: int, least: float) -> None:
    random = np.random.default_rng(0)
    u, v = (np.linalg.qr(random.normal(size=(40, 40)))[0] for _ in range(2))
    values = np.concatenate([np.geomspace(least * 1.01, 0.3, 20), np.geomspace(1e-6, least / 10, 19)])
    values = np.append(values, np.sqrt(1 - (values**2).sum()))
    (found,) = orthogonalized([torch.tensor(u @ np.diag(values) @ v)], steps)
    after = np.diag(u.T @ found.numpy() @ v.T)
    large = values >= least
    assert (after[large] > 0.68).all() and (after[large] < 1.21).all()
    assert (after[~large] < 0.68).all() and (after[~large] < 3.4446**steps * values[~large] * (1 + 1e-9)).all()


def test_muon_agrees_with_torch_where_torch_reaches() -> None:
    ours, theirs = (nn.Sequential(nn.Linear(8, 16, bias=False), nn.Linear(16, 4, bias=False)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    settings = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    mine = optimizer("muon", ours, **settings)
    reference = torch.optim.Muon([theirs[0].weight], **settings, ns_steps=5, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        ours[0].weight.grad = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        theirs[0].weight.grad = ours[0].weight.grad.clone()
        mine.step()
        reference.step()
    torch.testing.assert_close(ours[0].weight, theirs[0].weight, rtol=0, atol=2e-3)  # torch iterates in bfloat16


@pytest.mark.parametrize("fixed_norm", [True, False])
def test_muon_sgd_replaces_a_share_of_matrices_of_fixed_norm_and_leaves_the_head_to_nesterov(fixed_norm: bool) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 1), nn.Flatten(), nn.Linear(6, 3)).double()
    rules = [{"match": "3.weight", "lr": 2.0}, {"match": "1.weight", "lr": 0.5}]
    config = knobs("muon_sgd", lr=0.2, sgd_lr=0.3, weight_decay=0.1, fixed_norm=fixed_norm, rules=rules)
    start = {key: p.detach().numpy().copy() for key, p in model.named_parameters()}
    gradients = {key: np.random.default_rng(0).normal(size=(3, *p.shape)) for key, p in model.named_parameters()}
    optim = build("optim", config, model=model, fused=None)
    rates = {group["name"]: round(group["lr"], 9) for group in optim.param_groups}
    assert rates == {"muon decay": 0.2, "muon decay 1.weight": 0.1, "sgd decay 3.weight": 0.6, "sgd no_decay": 0.3}
    for step in range(3):
        for key, p in model.named_parameters():
            p.grad = torch.tensor(gradients[key][step])
        optim.step()
    for key, p in model.named_parameters():
        w, v = start[key], np.zeros_like(start[key])
        hidden, d = key in ("0.weight", "1.weight"), 0.1 * key.endswith("weight")
        lr = {"0.weight": 0.2, "1.weight": 0.1, "3.weight": 0.6}.get(key, 0.3)
        for g in gradients[key] if hidden else ():
            v = 0.6 * v + g
            update = newton_schulz((g + 0.6 * v).reshape(len(w), -1), 3).reshape(w.shape)
            w = w * np.sqrt(len(w)) / np.linalg.norm(w) if fixed_norm else w * (1 - lr * d)
            w = w - lr * update
        for g in gradients[key] if not hidden else ():
            g = g + d * w
            v = 0.85 * v + g
            w = w - lr * (g + 0.85 * v)
        np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-6, atol=1e-9)


class Heard(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


def test_a_step_of_muon_sgd_reads_no_number_from_the_device() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.Flatten(), nn.Linear(32, 4))
    model.to(memory_format=torch.channels_last)
    optim = optimizer("muon_sgd", model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with Heard() as heard:
        optim.step()
    assert {"baddbmm", "_foreach_add_"} <= heard.names
    assert not heard.names & {"_local_scalar_dense", "item", "nonzero", "is_nonzero"}


def test_muon_sgd_leaves_a_matrix_of_zeros_without_a_gradient_at_zero() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    nn.init.zeros_(model[0].weight)
    model[0].weight.grad = torch.zeros(4, 4)
    optimizer("muon_sgd", model).step()
    assert not model[0].weight.any()


def test_lamb_moves_a_layer_in_proportion_to_its_weights() -> None:
    model = nn.Linear(4, 4)
    before = model.weight.detach().clone()
    model.weight.grad, model.bias.grad = torch.randn(4, 4), torch.zeros(4)
    optimizer("lamb", model, lr=0.01, weight_decay=0.0).step()
    assert ((model.weight - before).norm() / before.norm()).item() == pytest.approx(0.01, rel=1e-4)


def test_lion_moves_every_weight_by_the_learning_rate() -> None:
    model = nn.Linear(4, 4, bias=False)
    before = model.weight.detach().clone()
    model.weight.grad = torch.randn(4, 4)
    optimizer("lion", model, lr=0.01, weight_decay=0.0).step()
    torch.testing.assert_close(before - model.weight.detach(), 0.01 * model.weight.grad.sign())


def test_schedulefree_gives_the_mean_of_its_iterates_weighted_by_the_squared_rate() -> None:
    model = nn.Linear(3, 2, bias=False).double()
    optim = optimizer("schedulefree", model, weight_decay=0.0, betas=[0.9, 0.99])
    iterates, weights = [], []
    for step in range(1, 6):
        model.weight.grad = torch.randn(2, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optim.param_groups[0]["lr"] = 0.1 * step  # a warm-up
        optim.step()
        iterates.append(optim.state[model.weight]["z"].clone())
        weights.append((0.1 * step) ** 2 * (1 - 0.99**step))
    expected = sum(w * z for w, z in zip(weights, iterates, strict=True)) / sum(weights)
    torch.testing.assert_close(optim.averaged()[model.weight], expected)
