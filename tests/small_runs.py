"""Small experiments in process: configs from the YAML files, a few steps, and their complete results."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from running import ROOT, job

from runner import numerics
from runner.assemble import Experiment, assemble
from runner.engine.batches import EvalBatches
from runner.engine.contracts import Numbers
from runner.engine.logs.log import Log
from runner.engine.losses import Prediction
from runner.engine.parts import mode
from runner.engine.saving import checkpoint
from runner.engine.saving.state import flatten
from runner.engine.train import train
from runner.tasks import start
from runner.tasks.restore import restore

CONF = ROOT / "conf"
MANY = ("augment", "regularizer", "probe", "metric")
ONE = (
    "data", "preprocess", "model", "activation", "norm", "init", "optim", "scheduler", "loss", "mix", "average",
    "predict", "update", "transfer", "distillation", "resize", "strategy",
)  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": [8, 16], "hidden": [16]},
    "mlp": {"hidden": [16, 16]},
    "patch_cnn": {"channels": [8, 8]},
    "resnet": {"width": 8},
    "resnet9": {"width": 8},
    "torchvision": {"arch": "shufflenet_v2_x0_5"},
    "vgg": {"width": 8, "hidden": [16]},
    "vit": {"dim": 16, "depth": 2, "heads": 2, "patch": 4},
    "wide_resnet": {"depth": 10, "widen": 1},
}  # knobs that make a model quick; every width is a multiple of 8, for norm=group
BASE = {"model": "mlp", "augment": [], "probe": [], "device": "cpu", "data.batch_size": 16, "validate_every": "1steps"}
EXAMPLES = 16  # of each split, that a small experiment is scored on


@cache
def option_yaml(kind: str, name: str) -> Any:
    """Return the content of an option's YAML."""
    return yaml.safe_load((CONF / kind / f"{name}.yaml").read_text())


@cache
def default_config() -> dict[str, Any]:
    """Return the config of an empty command line."""
    return job().config


def config(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that the front door makes of `choices`: a group's option or options, or a dotted key's value.

    It takes a hundredth of the front door's time; a test holds the two against each other.
    """
    made = copy.deepcopy(default_config())
    for key, value in choices.items():
        if key in MANY:
            made[key] = {name: knobs for each in value for name, knobs in copy.deepcopy(option_yaml(key, each)).items()}
        elif key in ONE:
            made[key] = copy.deepcopy(option_yaml(key, value))
    for key, value in choices.items():
        if key not in (*MANY, *ONE):
            *path, last = key.split(".")
            place = made
            for word in path:
                place = place[word]
            assert not path or last in place or key in default_config(), key
            place[last] = copy.deepcopy(value)
    return made


def command_line_words(choices: Mapping[str, Any]) -> list[str]:
    """Return the same choices as words of a command line."""
    return [f"{key}={parsed_value(value)}" for key, value in choices.items()]


def parsed_value(value: Any) -> str:
    """Return a value as the command line parses it."""
    if isinstance(value, list):
        return f"[{','.join(map(parsed_value, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{parsed_value(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def small(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return choices completed to a run of milliseconds: a small model, small batches, no default extras."""
    complete = {**BASE, **choices}
    knobs = {f"model.{key}": value for key, value in SMALL.get(complete["model"], {}).items()}
    return {**knobs, **complete}


def write_color_images(folder: Path, seed: int = 0) -> str:
    """Write 60 noisy color pictures of three classes, 40 x 36 pixels, and return their folder."""
    from PIL import Image

    random = np.random.default_rng(seed)
    for number in range(60):
        pixels = random.integers(0, 128, (36, 40, 3), dtype=np.uint8)
        pixels[..., number % 3] += 96
        path = folder / "rgb"[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return str(folder)


def write_teacher(folder: Path, *words: str) -> str:
    """Train a small model in a folder for a few steps, as a teacher for distillation, and return the folder."""
    quick = ("model=mlp", "model.hidden=[16]", "augment=[]", "probe=[]", "steps=3", "test=never", "figures=never")
    made = {word.partition("=")[0]: word for word in (*quick, "predictions=never", "keep=best", *words)}
    if "model=linear" in words:
        del made["model.hidden"]
    assert start(job(*made.values(), f"hydra.run.dir={folder}")) == 0
    return str(folder)


def build(choices: Mapping[str, Any], *, fit: bool = True) -> Experiment:
    """Assemble choices and let their scores look at a few examples only."""
    experiment = assemble(config(choices), fit=fit)
    for split in experiment.validation.values():
        split.index = split.index[:EXAMPLES]
    return experiment


class RecordedRows(list):
    """A sink that records the rows of a log: (step, tag, value as bytes or text)."""

    def write(self, rows) -> None:
        for row in rows:
            self += [(row.step, tag, as_bits(value)) for tag, value in row.values.items()]

    def close(self) -> None:
        pass


def as_bits(value: Any) -> Any:
    """Return a value as something that compares bit for bit (NaN with itself too)."""
    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy has no bfloat16
        return (str(value.dtype), tuple(value.shape), raw.numpy().tobytes())
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tobytes())
    return repr(value)


def train_to(experiment: Experiment, until: int, log: Log) -> None:
    """Train with the real loop up to a step, with a validation after each step."""
    recipe = replace(experiment.recipe, total_steps=until)
    parts = experiment.features.parts(recipe, experiment.learner, experiment.batches, experiment.validation)
    train(*parts, log, lambda: None)
    log.positions()  # as a checkpoint does: closes the row of the last step


@dataclass(frozen=True)
class RunResults:
    """The complete results of a run, for comparison bit for bit: weights and state, log-probabilities, logged rows.

    `rows` leaves out the tags of `time/`, on which no two runs agree; `tags` has every tag with its steps.
    """

    state: dict[str, Any]
    printed: Any
    rows: list[tuple[int, str, Any]]
    tags: frozenset[tuple[int, str]]


def results_of(experiment: Experiment, rows: RecordedRows) -> RunResults:
    """Return the results of a run so far."""
    timeless = [row for row in rows if not row[1].startswith("time/")]
    return RunResults(
        checkpoint_content(experiment),
        as_bits(log_probabilities(experiment)),
        timeless,
        frozenset(row[:2] for row in rows),
    )


def checkpoint_content(experiment: Experiment) -> dict[str, Any]:
    """Return everything that a checkpoint holds, by name."""
    weights = experiment.learner.weights()
    tensors, tree = flatten(experiment.learner.state_dict(), weights)
    return {**{name: as_bits(t) for name, t in {**weights, **tensors}.items()}, "tree": json.dumps(tree)}


@torch.no_grad()
def log_probabilities(experiment: Experiment, split: str = "val") -> torch.Tensor:
    """Return the log-probabilities of the split's first examples, as evaluation has them."""
    model, batches = experiment.learner.average.module, experiment.validation[split]
    assert isinstance(batches, EvalBatches)
    experiment.recipe.reseed(-1)
    with mode(model, training=False), experiment.recipe.autocast():
        return torch.cat([_scores(experiment.recipe.predict(model, images)) for images, _ in batches])


def _scores(prediction: Prediction) -> torch.Tensor:
    """Return the log-probabilities of a prediction, the logits if it has none."""
    return (prediction.logits if prediction.log_p is None else prediction.log_p).float()


def uninterrupted(choices: Mapping[str, Any], count: int) -> tuple[Experiment, RunResults]:
    """Run `count` steps without interruption."""
    experiment = build(choices)
    return experiment, results_after(experiment, count)


def results_after(experiment: Experiment, count: int) -> RunResults:
    """Run `count` steps with a new experiment, and return the results."""
    rows = RecordedRows()
    train_to(experiment, count, Log(screens=[rows]))
    return results_of(experiment, rows)


def interrupted(choices: Mapping[str, Any], at: int, count: int, folder: Path) -> RunResults:
    """Run up to a step, save a checkpoint, read it into a fresh assembly, and go on to `count` steps."""
    rows = RecordedRows()
    experiment, log = build(choices), Log(screens=[rows])
    train_to(experiment, at, log)
    learner = experiment.learner
    saved = {"learner": learner.state_dict(), "log": log.state_dict()}
    files = {"keep": learner.kept_steps, "earlier": learner.earlier_weights(experiment.recipe.cadence.held)}
    meta = {numerics.META: numerics.current()}
    checkpoint.save(folder, at, learner.weights(), saved, logs={}, meta=meta, **files)
    snapshot = checkpoint.load(folder)
    experiment, log = build(choices, fit=False), Log(screens=[rows])
    restore(folder, experiment.learner, snapshot, config(choices))
    log.load_state_dict(snapshot.state["log"])
    train_to(experiment, count, log)
    return results_of(experiment, rows)


def probe_values(values):
    """Return the tensors that a probe logs by tag, with `Numbers` turned into scalars."""
    found = {}
    for tag, value in values.items():
        if isinstance(value, Numbers):
            assert not any(tensor.ndim or tensor.requires_grad for tensor in value.tensors)
            numbers = [tensor.item() for tensor in value.tensors]
            found |= {each: torch.tensor(number) for each, number in value.to_scalars(numbers).items()}
        else:
            found[tag] = value
    return found
