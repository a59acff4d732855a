"""init=mup: variances and factors by hand, the coordinate check, equality at the base width, and resume."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import command, job
from small_runs import build, interrupted, small, uninterrupted
from torch import nn
from torch.nn import functional as F

from runner.assemble import Experiment, assemble
from runner.components.optim.width_rules import width_factor
from runner.engine.width import WidthFactor, WidthRatio
from runner.errors import ConfigError
from runner.registry import names

QUIET: dict[str, Any] = {"augment": [], "probe": [], "device": "cpu", "average": "none", "scheduler": "constant"}
GRADIENT = ("sgd", "momentum", "nesterov", "schedulefree_sgd")
NORMALIZED = ("adam", "nadam", "adamax", "adagrad", "rmsprop")
DECOUPLED = ("adamw", "lion", "schedulefree")
# Digits have 8x8 pixels and 10 classes. Of each model at `base_width=32`: a tensor, its standard deviation, None where
# it is no weight of a layer, and the factors on the learning rate of SGD and Adam
BY_HAND: dict[str, tuple[dict[str, Any], list[tuple[str, float | None, float, float]]]] = {
    "mlp": (
        {"model.hidden": [128, 256], "norm": "none"},
        [
            ("hidden.fc1.linear.weight", (2 / 64) ** 0.5, 4, 1),
            ("hidden.fc1.linear.bias", None, 4, 1),
            ("hidden.fc2.linear.weight", (2 / 128) ** 0.5, 1, 1 / 4),
            ("hidden.fc2.linear.bias", None, 4, 1),
            ("head.weight", 0.01 / 4, 1 / 4, 1 / 4),
            ("head.bias", None, 1, 1),
        ],
    ),
    "cnn": (
        {"model.channels": [64, 128], "model.hidden": [256]},
        [
            ("block1.conv.weight", (2 / 9) ** 0.5, 2, 1),
            ("block1.norm.weight", None, 2, 1),
            ("block2.conv.weight", (2 / (9 * 64)) ** 0.5, 1, 1 / 2),
            ("hidden.fc1.linear.weight", (2 / (2 * 2 * 128)) ** 0.5, 1, 1 / 2),
            ("head.weight", 0.01 / 2, 1 / 2, 1 / 2),
        ],
    ),
    "resnet": (
        {"model.width": 64},
        [
            ("stem.conv.weight", (2 / 9) ** 0.5, 2, 1),
            ("stage1.0.residual.branch.conv2.weight", (2 / (9 * 64)) ** 0.5, 1, 1 / 2),
            ("stage3.0.residual.branch.norm2.bias", None, 2, 1),
            ("stage3.0.residual.branch.conv1.weight", (2 / (9 * 128)) ** 0.5, 1, 1 / 2),
            ("head.weight", 0.01 / 2, 1 / 2, 1 / 2),
        ],
    ),
    "vit": (
        {"model.dim": 128, "model.depth": 1, "norm": "layer"},
        [
            ("embed.patches.weight", (2 / 16) ** 0.5, 4, 1),
            ("embed.positions", None, 4, 1),
            ("embed.token", None, 4, 1),
            ("block1.attention.branch.attend.qkv.weight", (2 / 128) ** 0.5, 1, 1 / 4),
            ("block1.mlp.branch.fc2.weight", (2 / 512) ** 0.5, 1, 1 / 4),
            ("norm.norm.weight", None, 4, 1),
            ("head.weight", 0.01 / 4, 1 / 4, 1 / 4),
        ],
    ),
}
# The models of the coordinate check at a width; attention keeps the features of a head
WIDE = {
    "mlp": lambda width: {"model.hidden": [width] * 3, "norm": "none"},
    "cnn": lambda width: {"model.channels": [width, width], "model.hidden": [width]},
    "resnet": lambda width: {"model.width": width},
    "vit": lambda width: {"model.dim": width, "model.heads": width // 8, "model.depth": 1, "norm": "layer"},
}
WIDTHS = {"mlp": (32, 64, 128, 256, 512), "cnn": (16, 32, 64, 128), "resnet": (8, 16, 32, 64), "vit": (64, 128, 256)}
RATES = {(model, optim): rate for model in WIDE for optim, rate in (("adam", 0.002), ("sgd", 0.02))}
RATES["vit", "adam"], RATES["vit", "sgd"] = 0.01, 0.1
FAST = (("mlp", "adam"), ("mlp", "sgd"), ("vit", "adam"))


def of_width(model: str, width: int, **others: Any) -> Experiment:
    """Return a run of a model of a width."""
    return build({**QUIET, "model": model, **WIDE[model](width), **others})


def rates_of(experiment: Experiment, key: str = "lr") -> dict[str, float]:
    """Return a value of its parameter group for each parameter."""
    groups = {id(p): group[key] for group in experiment.learner.optimizer.param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in experiment.learner.model.named_parameters()}


@pytest.mark.parametrize("optim", ["sgd", "adam"])
@pytest.mark.parametrize("model", BY_HAND)
def test_variances_and_rates_are_those_by_hand(model: str, optim: str) -> None:
    knobs, tensors = BY_HAND[model]
    experiment = build({**QUIET, "model": model, **knobs, "init": "mup", "optim": optim, "optim.lr": 0.5})
    rates, parameters = rates_of(experiment), dict(experiment.learner.model.named_parameters())
    for name, std, sgd, adam in tensors:
        assert rates[name] == pytest.approx(0.5 * (sgd if optim == "sgd" else adam)), name
        if std is not None:
            values = parameters[name].detach()
            # Four standard errors of a standard deviation
            assert values.std().item() == pytest.approx(std, rel=4 / (2 * values.numel()) ** 0.5), name


@pytest.mark.parametrize("head", ["small", 0.3, None, "zeros"])
def test_the_classifier_shrinks_with_the_width(head: Any) -> None:
    wide = build({**QUIET, "model": "mlp", "model.hidden": [512], "init": "mup", "init.head": head}).learner.model
    base = {"small": 0.01, 0.3: 0.3, None: (2 / 32) ** 0.5, "zeros": 0.0}[head]
    assert wide.head.weight.std().item() == pytest.approx(base / 16, rel=0.05)


def test_a_small_classifier_is_that_of_the_base_width() -> None:
    """Above 1,000 inputs a small classifier has the standard deviation 10 / inputs, here of the base model's 2,000."""
    wide = build({**QUIET, "model": "mlp", "model.hidden": [4000], "init": "mup", "init.base_width": 2000})
    assert wide.learner.model.head.weight.std().item() == pytest.approx(10 / 2000 / 2, rel=0.05)


def test_attention_divides_by_the_features_of_a_head() -> None:
    """At 4 times the base width with as many heads: sqrt(8) / 32; with base_heads=1 the base has 32 features a head."""
    scales = {}
    for heads in (None, 1):
        model = build(
            {**QUIET, "model": "vit", "model.dim": 128, "init": "mup", "init.base_heads": heads}
        ).learner.model
        scales[heads] = model.block1.attention.branch.attend.scale
    assert scales == {None: pytest.approx(8**0.5 / 32), 1: pytest.approx(32**0.5 / 32)}
    assert build({**QUIET, "model": "vit"}).learner.model.block1.attention.branch.attend.scale is None


def test_the_scale_of_attention_is_that_of_the_formula() -> None:
    attend = build(
        {**QUIET, "model": "vit", "model.dim": 64, "init": "mup"}
    ).learner.model.block1.attention.branch.attend
    x = torch.randn(2, 5, 64)
    q, k, v = (part.view(2, 5, 4, 16).transpose(1, 2) for part in attend.qkv(x).chunk(3, dim=2))
    weights = (q @ k.transpose(2, 3) * 8**0.5 / 16).softmax(dim=-1)
    torch.testing.assert_close(attend(x), attend.out((weights @ v).transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("optim", [*GRADIENT, *NORMALIZED, *DECOUPLED])
def test_the_factors_are_those_of_the_table(optim: str) -> None:
    """A hidden weight, one that reads pixels, the classifier and a bias at 4 times the base width."""
    hidden, pixels, head, bias = WidthRatio(4, 4), WidthRatio(1, 4), WidthRatio(4, 1), WidthRatio(1, 4)
    rates = {"gradient": (1, 4, 1 / 4, 4), "normalized": (1 / 4, 1, 1 / 4, 1)}
    lr = rates["gradient" if optim in GRADIENT else "normalized"]
    decay = (4, 1, 4, 1) if optim in DECOUPLED else (1, 1 / 4, 4, 1 / 4)
    for ratio, rate, factor in zip((hidden, pixels, head, bias), lr, decay, strict=True):
        assert width_factor(optim, ratio) == WidthFactor(rate, factor)


def test_every_optimizer_has_a_rule_or_is_refused() -> None:
    refused = {"adafactor", "lamb", "muon", "muon_sgd", "radam"}
    assert {*GRADIENT, *NORMALIZED, *DECOUPLED} | refused == set(names("optim"))
    for optim in refused:
        with pytest.raises(
            ConfigError, match=rf"init=mup: no rule for optim={optim}, whose .*; expected optim=adagrad"
        ):
            build({**QUIET, "model": "mlp", "init": "mup", "optim": optim})


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_a_step_of_decay_shrinks_every_weight_alike(optim: str) -> None:
    """Without a gradient, lr * weight_decay of a weight is lost at any width: by L2 with SGD, by decoupled decay."""
    experiment = of_width("mlp", 128, init="mup", optim=optim, **{"optim.lr": 0.1, "optim.weight_decay": 0.5})
    layers = [m.weight for m in experiment.learner.model.modules() if isinstance(m, nn.Linear)]
    before = [weight.detach().clone() for weight in layers]
    for weight in layers:
        weight.grad = torch.zeros_like(weight)
    experiment.learner.optimizer.step()
    for weight, old in zip(layers, before, strict=True):
        torch.testing.assert_close(weight.detach(), old * (1 - 0.1 * 0.5))


@cache
def sizes(model: str, width: int, optim: str, init: str, steps: int = 3) -> dict[str, np.ndarray]:
    """Return the log of the mean size of each layer's output after some steps, and of its change, over 2 seeds."""
    # At a classifier of 0 the logits begin alike at all widths; noise in them would fall like 1 / sqrt(width)
    knobs = {"init": init, "init.head": "zeros", "optim": optim, "optim.weight_decay": 0.0}
    if (model, init) == ("vit", "mup"):
        knobs["init.base_heads"] = 4
    found: dict[str, list[list[float]]] = {}
    for seed in range(2):
        experiment = of_width(model, width, seed=seed, **knobs, **{"optim.lr": RATES[model, optim]})
        for name, (before, after) in outputs(experiment, steps).items():
            found.setdefault(name, []).append([float(after.abs().mean()), float((after - before).abs().mean())])
    return {name: np.log(np.maximum(pairs, 1e-12)).mean(axis=0) for name, pairs in found.items()}


def outputs(experiment: Experiment, steps: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the output of each layer on the first batch before and after some steps on it."""
    model, optimizer = experiment.learner.model.train(), experiment.learner.optimizer
    images, labels = next(experiment.batches.stream(0, 1))
    seen: list[dict[str, torch.Tensor]] = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(lambda _, __, out, name=name: seen[-1].__setitem__(name, out.detach()))
    for _ in range(steps + 1):
        seen.append({})
        loss = F.cross_entropy(model(images), labels)
        if len(seen) <= steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: (seen[0][name], seen[-1][name]) for name in seen[0]}


def slopes(model: str, optim: str, init: str) -> dict[str, np.ndarray]:
    """Return the slopes of the log sizes of each layer's output and of its change over the log of the width."""
    rows = [sizes(model, width, optim, init) for width in WIDTHS[model]]
    logs = np.log(WIDTHS[model])
    return {name: np.polyfit(logs, [row[name] for row in rows], 1)[0] for name in rows[0]}


@pytest.mark.parametrize(
    ("model", "optim"),
    [
        pytest.param(
            *pair, marks=() if pair in (("mlp", "adam"), ("mlp", "sgd"), ("vit", "adam")) else pytest.mark.slow
        )
        for pair in RATES
    ],
)
def test_coordinate_check(model: str, optim: str) -> None:
    """With mup the outputs of every layer and the change of the logits have one size at all widths; Adam's grow else.

    Without mup, the learning rate that suits one width is too large for a wider one.
    """
    found, standard = slopes(model, optim, "mup"), slopes(model, optim, "kaiming")
    assert {name for name, (size, _) in found.items() if abs(size) > 0.1} == set()
    assert abs(found["head"][1]) < 0.1
    assert standard["head"][0] > 0.3
    if optim == "adam":
        # The first layer reads pixels, whose number is the same
        assert all(change > 0.25 for _, change in list(standard.values())[1:])


@pytest.mark.parametrize("model", WIDE)
def test_at_the_base_width_it_is_kaiming_bit_for_bit(model: str) -> None:
    """The same weights, rates, logged rows and predictions after three steps."""
    knobs = {**QUIET, "model": model, **WIDE[model](32), "optim": "adamw", "steps": 3, "data.batch_size": 16}
    _, standard = uninterrupted({**knobs, "init": "kaiming"}, 3)
    experiment, same = uninterrupted({**knobs, "init": "mup", "init.base_width": 32}, 3)
    assert same == standard
    assert {group["label"] for group in experiment.learner.optimizer.param_groups} == {"default"}


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    knobs = small({"model": "vit", **WIDE["vit"](64), "init": "mup", "optim": "adam", "steps": 4})
    assert interrupted(knobs, 2, 4, tmp_path) == uninterrupted(knobs, 4)[1]


def test_rules_no_decay_and_layer_decay_multiply(tmp_path: Path) -> None:
    """A rule of 0.5 with decay of 3, stages of 0.1 a stage, and mup's factors at 4 times the width."""
    words = ["model=mlp", "model.hidden=[128,128]", "norm=none", "augment=[]", "probe=[]", "optim=adamw", "init=mup"]
    words += ["optim.lr=1.0", "optim.weight_decay=0.01", "optim.rules=[{match:fc2,lr:0.5,weight_decay:3}]"]
    weights = tmp_path / "weights.pt"
    plain = assemble(job(*words).config)
    rates, decays = rates_of(plain), rates_of(plain, "weight_decay")
    assert rates["hidden.fc2.linear.weight"] == pytest.approx(0.5 / 4)
    assert decays["hidden.fc2.linear.weight"] == pytest.approx(0.01 * 3 * 4)
    assert (rates["hidden.fc2.linear.bias"], decays["hidden.fc2.linear.bias"]) == (0.5, 0.0)
    assert rates["head.weight"] == pytest.approx(1 / 4) and decays["head.weight"] == pytest.approx(0.04)
    torch.save(plain.learner.model.state_dict(), weights)
    staged = [*words, f"init_from={weights}", "transfer=layerwise", "transfer.layer_decay=0.1"]
    layered = rates_of(assemble(job(*staged).config))
    without = rates_of(assemble(job(*(word.replace("init=mup", "init=kaiming") for word in staged)).config))
    factors = {name: 1 / 4 if name in ("hidden.fc2.linear.weight", "head.weight") else 1.0 for name in layered}
    assert layered == pytest.approx({name: rate * factors[name] for name, rate in without.items()})
    assert len(set(without.values())) > 2


def test_a_run_shows_the_factors_and_logs_the_rates(tmp_path: Path) -> None:
    words = ["model=mlp", "model.hidden=[64,64]", "norm=none", "optim=adamw", "init=mup", "steps=2", "log_every=1"]
    quiet = ["augment=[]", "probe=[]", "figures=never", "predictions=never", "test=never", "scheduler=constant"]
    done = command(*words, *quiet, "name=wide", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "init=mup: 2 times as wide as the base model (init.base_width=32)" in done.stderr
    assert "decay lr x0.5, weight decay x2: 2 tensors, 4,736 parameters, lr 0.0025, weight decay 0.02" in done.stderr
    rows = (tmp_path / "outputs" / "wide" / "metrics.jsonl").read_text()
    assert '"train/lr/default-x0.5": 0.0025' in rows and '"train/lr/default": 0.005' in rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=torchvision", "init=mup"), "init=mup: no rule for the widths of model=torchvision"),
        (("model=vit", "init=mup", "init.base_heads=5"), "init.base_heads: got 5, must divide init.base_width (32)"),
        (("init=mup", "init.base_width=0"), "init.base_width: got 0"),
    ],
)
def test_what_has_no_rule_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
