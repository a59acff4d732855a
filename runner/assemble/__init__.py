"""Config -> Recipe, Learner, data: the only place that knows both worlds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import runner.components  # noqa: F401  (registers them)
from runner.assemble.config import Config, many
from runner.assemble.data import check_labels, load, test_batches, train_batches, validation_batches
from runner.assemble.learner import build_learner, waits
from runner.assemble.model import build_model
from runner.assemble.recipe import build_recipe
from runner.assemble.speed import lay_out, settle, words
from runner.components.optim.groups import describe
from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.learner import Learner
from runner.engine.randomness import key
from runner.engine.recipe import Recipe
from runner.errors import ConfigError
from runner.registry import build
from runner.relations import check_relations
from runner.schema import check
from runner.settings import SETTINGS, Settings


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a task works with, ready to run."""

    settings: Settings
    device: torch.device
    recipe: Recipe
    learner: Learner
    batches: TrainBatches
    validation: dict[str, EvalBatches]
    test: Callable[[], EvalBatches] | None  # opens the test split
    look: Callable[[], tuple[str, ...]]  # makes sure that it can be, and returns what the summary says of it
    classes: tuple[str, ...]
    summary: list[str]  # what was built, in words


def assemble(config: Config, *, fit: bool = True, search: Mapping[str, Any] | None = None) -> Experiment:
    """Build a run from its config; nothing is trained or written.

    `fit=False` leaves the preprocessing statistics to be loaded; `search` is what the run reports its scores to. Raises
    ConfigError for what does not fit together, DataError for data that are missing or broken.
    """
    settings = Settings(**{name: check(name, config[name], kind) for name, kind in SETTINGS.items()})
    check_relations("", config, SETTINGS)
    device = device_of(settings.device)
    settings = settle(settings, device)
    data = load(config["data"])
    check_labels(data)
    preprocess = build("preprocess", config["preprocess"], shape=data.shape)
    if fit:
        preprocess.fit(data.train)
    preprocess.to(device)
    batches = train_batches(config, settings, data, preprocess, device)
    regularizers = many("regularizer", config)
    torch.manual_seed(key(settings.seed, "init"))
    model, summary = build_model(config, data, batches, regularizers)
    lay_out(model, settings)
    recipe = build_recipe(config, settings, data, batches, regularizers, model, device)
    learner = build_learner(config, settings, recipe, model.to(device), preprocess, device, search)
    return Experiment(
        settings=settings,
        device=device,
        recipe=recipe,
        learner=learner,
        batches=batches,
        validation=validation_batches(data, batches, preprocess, device),
        test=test_batches(data, preprocess, device),
        look=data.look,
        classes=data.classes,
        summary=[
            *data.notes,
            *summary,
            *words(model, settings, recipe),
            *describe(learner.optimizer),
            *waits(learner, device),
        ],
    )


def device_of(word: str) -> torch.device:
    """Return the device that a word names, with its number; `auto` takes the first there is of cuda, mps and cpu."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if word == "auto":
        word = next(kind for kind, found in there.items() if found)
    device = torch.device(word)
    if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        found = ", ".join(kind for kind, here in there.items() if here)
        raise ConfigError(f"device: got '{word}', must be auto or one that this machine has ({found})")
    return torch.empty(0, device=device).device  # as its tensors name it: cuda:0, not cuda
