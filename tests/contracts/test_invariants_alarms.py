"""The invariants of the first steps alarm for no option, and change no number of a run."""

from __future__ import annotations

import math

import pytest
import torch
from cases import OPTIONS, PICTURES, choices, weights_file
from checked_runs import run_checked
from running import ROOT, starter
from small_runs import config, small
from torch import nn

from runner.assemble import assemble
from runner.registry import register

STEPS = 4
# One option of each kind, and those that move weights, masks or averages in a way of their own
SLICE = [
    ("optim", "adam"),
    ("optim", "muon"),
    ("optim", "schedulefree"),
    ("update", "sam"),
    ("average", "swa"),
    ("average", "lookahead"),
    ("average", "swag"),
    ("average", "snapshots"),
    ("predict", "mc_dropout"),
    ("mix", "cutmix"),
    ("regularizer", "dropout2d"),
    ("regularizer", "max_norm"),
    ("transfer", "staged"),
    ("transfer", "feature_extraction"),
    ("distillation", "logits"),
    ("norm", "batch"),
    ("loss", "hinge"),
    ("init", "residual"),
]


def same_with_and_without(made, tmp_path):
    checked, plain = (run_checked(made, STEPS, tmp_path / str(on), checks=on) for on in (True, False))
    assert checked.state == plain.state
    assert checked.printed == plain.printed
    assert checked.rows == plain.rows


@pytest.mark.parametrize(("kind", "name"), SLICE)
def test_an_option_raises_no_alarm_and_keeps_its_numbers(kind, name, tmp_path):
    same_with_and_without(choices(kind, name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_no_option_raises_an_alarm_or_changes_its_numbers(kind, name, tmp_path):
    same_with_and_without(choices(kind, name), tmp_path)


# As large as CIFAR-10's pictures
CIFAR_LIKE = ("data=synthetic", "data.kind=shapes", "data.size=32", "data.train=128", "data.val=32", "data.test=32")
RECIPES = {
    "digits": (),
    "snapshot_ensemble": (),
    "search_lr_wd": ("hydra.mode=RUN",),
    "grid_vs_random": ("task=train",),
    "transfer_tour": ("task=train",),
    "finetune": ("model=mlp", "model.hidden=[16,16]", "init_from={weights}"),
    "linear_probe": ("model=mlp", "model.hidden=[16,16]", "init_from={weights}"),
    "search_finetune": ("model=mlp", "model.hidden=[16,16]", "init_from={weights}", "hydra.mode=RUN"),
    "cifar10_resnet": (*CIFAR_LIKE, "data.batch_size=32"),
    "speedrun_cifar10": (*CIFAR_LIKE, "data.batch_size=32", "model.channels=[16,16]"),
}
SLOW = ("cifar10_resnet", "speedrun_cifar10", "search_finetune", "transfer_tour", "finetune", "snapshot_ensemble")


def test_every_recipe_is_trained_here():
    # lecture_init trains nothing: its task is a report on initializations
    assert {*RECIPES, "lecture_init"} == {path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml")}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in RECIPES])
def test_no_recipe_raises_an_alarm(name, tmp_path):
    words = [word.format(weights=weights_file()) for word in RECIPES[name]]
    quick = ("steps=4", "validate_every=2steps", "figures=never", "predictions=never", "test=never")
    assert starter(tmp_path / "run", f"recipe={name}", *quick, *words)() == 0


class Tied(nn.Module):
    """Two layers with one weight, a weight norm, a lazily made buffer and a frozen layer."""

    def __init__(self, shape, classes):
        super().__init__()
        size = math.prod(shape)
        self.first, self.second = nn.Linear(size, size), nn.Linear(size, size)
        self.second.weight = self.first.weight
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(size, 16))
        self.frozen = nn.Linear(16, 16).requires_grad_(False)
        self.gate = nn.Parameter(torch.zeros(()))
        self.behind = nn.Linear(16, 16)
        self.unused = nn.Linear(3, 3)
        self.head = nn.Linear(16, classes)
        self.target = nn.Parameter(torch.zeros(16), requires_grad=False)

    def forward(self, images):
        found = self.normed(self.second(self.first(images.flatten(1)).relu()).relu())
        if self.training:
            with torch.no_grad():  # as a teacher inside a model moves
                self.target.lerp_(found.mean(0).to(self.target.dtype), 0.1)
        return self.head(self.frozen(found) + self.gate * self.behind(found))


ODD = {
    "tied weights": {},
    "a gate of zero": {"optim": "adam"},
    "SAM": {"update": "sam"},
    "a loss scaler": {"precision": "fp16", "clip": 1.0},
    "bf16 weights": {"precision": "pure_bf16"},
    "micro-batches": {"accumulate": 3, "clip": 0.1, "clip_by": "value"},
    "adaptive clipping": {"clip": 0.01, "clip_by": "agc"},
    "frozen at first": {"optim.rules": [{"match": "head", "active": ["2steps", None]}]},
    "a warm-up from 0": {"scheduler.warmup": "3steps", "scheduler.warmup_start": 1e-6},
    "mean of the last weights": {"average": "polyak", "average.last": "3steps", "average.blocks": 3},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_models_raise_no_alarm(name, tmp_path, monkeypatch):
    register("model", "tied_model")(lambda shape, num_classes: Tied(shape, num_classes))
    # As strict as with a model of runner
    monkeypatch.setattr("runner.assemble.invariants._is_plugins", lambda kind, name: False)
    values = config(small({"model": "linear", "steps": STEPS, "data.batch_size": 16, **ODD[name]}))
    values["model"] = {"name": "tied_model"}
    run_checked(values, STEPS, tmp_path / "run", experiment=assemble(values))


LIBRARY = {
    "torchvision": {"model": "torchvision", **PICTURES},
    "compiled": {"compile": True},
    "features cached": {"transfer": "feature_extraction", "init_from": "{weights}"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARY)
def test_models_of_libraries_raise_no_alarm(name, tmp_path, monkeypatch):
    monkeypatch.setattr("runner.engine.forward.BACKEND", "aot_eager")
    choices = {key: weights_file() if value == "{weights}" else value for key, value in LIBRARY[name].items()}
    same_with_and_without(small(choices), tmp_path)
