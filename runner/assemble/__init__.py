"""Config -> Recipe, Learner, data: the only package that knows both configs and the engine.

config     what the other files read of a config
data       training, validation and test batches
execution  precision, memory format, compile, CUDA graphs
inventory  the parts of a model that options refer to
learner    optimizer, schedule, average, patience
model      the model, with its norms, regularizers and initialization
norms      the norm layers that a model is given
recipe     everything that stays fixed, durations in steps
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

import runner.components  # noqa: F401  (registers them)
from runner.assemble.config import Config, many
from runner.assemble.data import check_labels, load, test_batches, train_batches, validation_batches
from runner.assemble.execution import convert_model, describe_execution, resolve
from runner.assemble.learner import build_learner, describe_host_syncs
from runner.assemble.model import build_model
from runner.assemble.recipe import build_recipe
from runner.components.optim.groups import describe
from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.learner import Learner
from runner.engine.randomness import key
from runner.engine.recipe import Recipe
from runner.engine.world import ALONE, World
from runner.errors import ConfigError
from runner.registry import build
from runner.relations import check_relations
from runner.schema import check
from runner.settings import SETTINGS, Settings


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a task works with, ready to run."""

    settings: Settings
    world: World
    device: torch.device
    recipe: Recipe
    learner: Learner
    batches: TrainBatches
    validation: dict[str, EvalBatches]
    test: Callable[[], EvalBatches] | None  # opens the test split
    look: Callable[[], tuple[str, ...]]  # checks that it can be opened, and returns lines for the summary
    classes: tuple[str, ...]
    summary: list[str]  # lines that describe what was built


def assemble(
    config: Config, *, fit: bool = True, search: Mapping[str, Any] | None = None, world: World = ALONE
) -> Experiment:
    """Build a run from its config; nothing is trained or written.

    Args:
        config: the composed and checked config.
        fit: False leaves the preprocessing statistics to be loaded.
        search: where a trial of a search reports its scores.
        world: the processes that train together.

    Raises:
        ConfigError: settings that are not supported together.
        DataError: data that are missing or broken.
    """
    settings = Settings(**{name: check(name, config[name], kind) for name, kind in SETTINGS.items()})
    check_relations("", config, SETTINGS)
    device = device_of(settings.device, world)
    settings = resolve(settings, device)
    data = load(config["data"])
    check_labels(data)
    preprocess = build("preprocess", config["preprocess"], shape=data.shape)
    if fit:
        preprocess.fit(data.train)
    preprocess.to(device)
    batches = train_batches(config, settings, data, preprocess, device, world)
    regularizers = many("regularizer", config)
    torch.manual_seed(key(settings.seed, "init"))
    model, summary = build_model(config, data, batches, regularizers)
    convert_model(model, settings)
    recipe = build_recipe(config, settings, data, batches, regularizers, model, device, world)
    learner = build_learner(config, settings, recipe, model.to(device), preprocess, device, search, world)
    return Experiment(
        settings=settings,
        world=world,
        device=device,
        recipe=recipe,
        learner=learner,
        batches=batches,
        validation=validation_batches(data, batches, preprocess, device),
        test=test_batches(data, preprocess, device, world),
        look=data.look,
        classes=data.classes,
        summary=[
            *data.notes,
            *summary,
            *describe_execution(model, settings, recipe),
            *describe(learner.optimizer),
            *describe_host_syncs(learner, device),
        ],
    )


def device_of(word: str, world: World = ALONE) -> torch.device:
    """Return the device that a word names, with its number; `auto` is the first available of cuda, mps and cpu.

    Without a number each process on a machine gets a GPU of its own.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if word == "auto":
        word = next(kind for kind, found in available.items() if found)
    device = world.device(torch.device(word))
    if not available[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        found = ", ".join(kind for kind, here in available.items() if here)
        raise ConfigError(f"device: got '{word}', must be auto or one that this machine has ({found})")
    # As its tensors name it: cuda:0, not cuda.
    return torch.empty(0, device=device).device
