"""Parameter groups: weight decay, rules and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from runner import components  # noqa: F401  (registers all)
from runner.components.optim.describe_groups import describe
from runner.errors import ConfigError
from runner.registry import build, names

CONF = Path(__file__).parents[2] / "conf" / "optim"


def knobs(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((CONF / f"{name}.yaml").read_text()), **changes}


def optimizer(name: str, model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    return build("optim", knobs(name, **changes), model=model, fused=None)


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
        "no_decay: 4 tensors (2 bias, 2 norm), 34 parameters, lr 0.05, weight decay 0",
    ]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"match": "nothing"}, "optim.rules[0].match: 'nothing' matches no trainable parameter of the model"),
        ({"match": "("}, "optim.rules[0].match: got '(', must be a regular expression for names of tensors"),
        ({"lr": 2}, "optim.rules[0].match: got null, must be a regular expression"),
        ({"match": "5", "lr": "high"}, "optim.rules[0].lr: got 'high', must be a number"),
        ({"match": "5", "lr_mult": 2}, "optim.rules[0].lr_mult: unknown key"),
        ({"match": "5", "until": "soon"}, "optim.rules[0].until: got 'soon', must be a duration like 500steps"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        optimizer("sgd", convnet(), rules=[rule])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_rule_that_matches_nothing_lists_the_names_that_are_most_like_it_first() -> None:
    names = [name for name, _ in convnet().named_parameters()]
    with pytest.raises(ConfigError) as caught:
        optimizer("sgd", convnet(), rules=[{"match": "^layer.5.wieght"}])
    listed = str(caught.value).partition("; the model has ")[2].split(", ")
    assert sorted(listed) == sorted(names) and len(names) <= 8
    assert listed[0] == "5.weight"
    large = nn.ModuleDict({f"block{i}": nn.Linear(2, 2) for i in range(100)})
    with pytest.raises(ConfigError) as caught:
        optimizer("sgd", large, rules=[{"match": "blok42.w"}])
    assert "; the model has block42.bias, block42.weight, " in str(caught.value)
    assert str(caught.value).endswith(", ... 192 more")


def test_a_model_without_trainable_tensors_is_refused() -> None:
    with pytest.raises(ConfigError, match="no trainable parameter"):
        optimizer("adam", convnet().requires_grad_(False))
