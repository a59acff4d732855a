"""Optimizers against formulas stepped by hand in float64, and as parts of a run that stops and goes on."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_digits
from torch import Tensor, nn

from runner import components  # noqa: F401  (registers all)
from runner.components.optim.groups import describe
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "optim"
PLAIN = {"no_decay": ["bias", "norm"], "rules": []}


def knobs(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}


def optimizer(name: str, model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    return build("optim", knobs(name, **changes), model=model, fused=None)


@cache
def digits() -> tuple[Tensor, Tensor]:
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 8 - 1, dtype=torch.float32), torch.tensor(labels)


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 10),
    )


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))


def train(model: nn.Module, optim: torch.optim.Optimizer, steps: range) -> Tensor:
    images, labels = digits()
    for step in steps:
        index = torch.randperm(1500, generator=torch.Generator().manual_seed(step))[:64]
        optim.zero_grad()
        nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
        optim.step()
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()])


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


def test_every_optimizer_has_its_formula() -> None:
    assert sorted(HAND) == names("optim")


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
        if name in ("lamb", "schedulefree"):  # a ratio of norms; a rate shared by the group
            assert np.isfinite(model[1].weight.detach().numpy()).all()
            continue
        expected = HAND[name](start, np.ones((1, 2, 3)), config, 0.0)
        np.testing.assert_allclose(model[1].weight.detach().numpy(), expected, rtol=1e-7, err_msg=name)


def test_sgd_goes_against_the_gradient() -> None:
    w = nn.Linear(1, 1, bias=False)
    w.weight.data.fill_(2.0)
    w.weight.grad = torch.ones(1, 1)
    optimizer("sgd", w, lr=0.5, weight_decay=0.0).step()
    assert w.weight.item() == 1.5


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate() -> None:
    w = nn.Linear(4, 1, bias=False)
    before = w.weight.detach().clone()
    w.weight.grad = torch.tensor([[1e-3, -5.0, 200.0, -1.0]])
    optimizer("adam", w, lr=0.01).step()
    torch.testing.assert_close(before - w.weight.detach(), 0.01 * w.weight.grad.sign(), rtol=1e-3, atol=0)


def test_decay_in_adamw_is_not_l2_as_in_adam() -> None:
    weights = {}
    for name in ("adam", "adamw"):
        model = convnet()
        train(model, optimizer(name, model, lr=0.003, weight_decay=0.1), range(5))
        weights[name] = model[5].weight.detach().clone()
    assert (weights["adam"] - weights["adamw"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", names("optim"))
def test_learns_digits_with_its_own_values(name: str) -> None:
    model = mlp()
    optim = optimizer(name, model)
    train(model, optim, range(150))
    model.eval()
    images, labels = digits()
    with torch.no_grad():
        accuracy = (model(images[1500:]).argmax(1) == labels[1500:]).float().mean().item()
    assert accuracy > 0.85


@pytest.mark.parametrize("name", names("optim"))
def test_a_state_saved_in_mid_run_goes_on_bit_for_bit(name: str) -> None:
    model = convnet()
    optim = optimizer(name, model)
    train(model, optim, range(3))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optim.state_dict())
    expected = train(model, optim, range(3, 7))
    again = convnet()
    again.load_state_dict(weights)
    resumed = optimizer(name, again)
    resumed.load_state_dict(state)
    assert torch.equal(train(again, resumed, range(3, 7)), expected)


@pytest.mark.parametrize("name", names("optim"))
def test_every_trainable_tensor_is_in_one_named_group(name: str) -> None:
    model = convnet()
    model[1].weight.requires_grad_(False)
    optim = optimizer(name, model)
    held = [p for group in optim.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    labels = [group["name"] for group in optim.param_groups]
    assert len(set(labels)) == len(labels) == len(describe(optim))
    assert all(group["initial_lr"] if "initial_lr" in group else group["lr"] > 0 for group in optim.param_groups)


def test_biases_and_norms_do_not_decay() -> None:
    model = convnet()
    optim = optimizer("momentum", model, weight_decay=0.1)
    groups = {group["name"]: group for group in optim.param_groups}
    assert {id(p) for p in groups["decay"]["params"]} == {id(model[1].weight), id(model[5].weight)}
    assert groups["decay"]["weight_decay"] == 0.1
    assert groups["no_decay"]["weight_decay"] == 0.0
    assert {id(p) for p in groups["no_decay"]["params"]} == {
        id(p) for p in (model[1].bias, model[2].weight, model[2].bias, model[5].bias)
    }


@pytest.mark.parametrize(("no_decay", "decaying"), [([], 6), (["bias"], 3), (["norm"], 4), (["bias", "norm"], 2)])
def test_no_decay_names_what_is_excluded(no_decay: list[str], decaying: int) -> None:
    optim = optimizer("sgd", convnet(), no_decay=no_decay)
    assert next(len(g["params"]) for g in optim.param_groups if g["name"] == "decay") == decaying


def test_a_tied_tensor_is_stepped_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    optim = optimizer("sgd", model)
    assert sum(len(group["params"]) for group in optim.param_groups) == 3


def test_rules_change_learning_rate_and_decay_of_what_they_match() -> None:
    model = convnet()
    rules = [{"match": r"^5\.", "lr": 10, "weight_decay": 0.5}, {"match": r"bias$", "lr": 64}]
    optim = optimizer("sgd", model, lr=0.01, weight_decay=0.2, rules=rules)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in optim.param_groups for p in g["params"]}
    assert found[id(model[1].weight)] == (0.01, 0.2)
    assert found[id(model[5].weight)] == (0.1, 0.1)
    assert found[id(model[5].bias)] == (0.1, 0.0)
    assert found[id(model[1].bias)] == (0.64, 0.0)


def test_describe_names_group_tensors_parameters_and_rates() -> None:
    optim = optimizer("momentum", convnet(), lr=0.05, weight_decay=0.0005)
    assert describe(optim) == [
        "decay: 2 tensors, 792 parameters, lr 0.05, weight decay 0.0005",
        "no_decay: 4 tensors, 34 parameters, lr 0.05, weight decay 0",
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"match": "nothing"}, "optim.rules[0].match: 'nothing' takes no trainable tensor of the model"),
        ({"match": "("}, "optim.rules[0].match: '(' is no regular expression"),
        ({"lr": 2}, "optim.rules[0].match: got None"),
        ({"match": "5", "lr": "high"}, "optim.rules[0].lr: got 'high', must be a number"),
        ({"match": "5", "lr_mult": 2}, "optim.rules[0].lr_mult: unknown key"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        optimizer("sgd", convnet(), rules=[rule])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_model_without_trainable_tensors_is_refused() -> None:
    with pytest.raises(ConfigError, match="no trainable tensor"):
        optimizer("adam", convnet().requires_grad_(False))


def test_betas_are_two() -> None:
    with pytest.raises(ConfigError, match=r"optim.betas: got \[0.9\], must be two"):
        optimizer("adam", convnet(), betas=[0.9])
