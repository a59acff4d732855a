"""Config -> Recipe, Learner, data: the only package that knows both configs and the engine.

caching    what computes features before the head once, or why it cannot
checkpoint_size  the bytes of a checkpoint, before the run
data       training, validation and test batches
device     the device of a run
distillation, feature_pairs  the recipe with the teacher of a distillation; the stages whose features it compares
teachers, teacher_images  the teacher: the model of a run or an ensemble; the images that it sees
execution, exact_convolutions  precision, memory format, compile, CUDA graphs; a fault of torch in bfloat16
fit_weights  what of `init_from` goes into the model, by name
folds      the examples of one fold of a cross-validation
invariants  what the checks of the first steps must know of a run, and whose fault a violation is
learner    optimizer, schedule, average, patience
load_data  the data set, its fingerprint, and its labels as a model knows them
metrics    the metrics of each validation, and of the end of a run
model      the model, with its norms, regularizers and initialization
predictor  a trained model with what predictions need, without data
published_weights, read_weights  the files of torchvision's published weights; the tensors that `init_from` names
norms      the check that no norm normalizes a single value
normalization  the statistics that weights were trained with
processes  what several processes change, and what they cannot share
plugin_checks  what components of plugins return, on a few examples
recipe     everything that stays constant, with durations in steps
resize     the size of training images
run_size   the bytes of a run on the disk, before it begins
threads    the number of CPU threads
transfer   the stages of the model, and how each is trained
width      the factors of `init=mup` on learning rates, by the model's width
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

import runner.components  # noqa: F401  (registers them)
from runner.assemble.caching import cache_features
from runner.assemble.data import augmentations, test_batches, train_batches, validation_batches
from runner.assemble.device import device_of
from runner.assemble.distillation import with_teacher
from runner.assemble.execution import convert_model, describe_execution, resolve
from runner.assemble.learner import (
    build_learner,
    describe_host_syncs,
    describe_recalibration,
    describe_snapshots,
)
from runner.assemble.load_data import Loaded, load
from runner.assemble.metrics import describe_metrics, final_metrics
from runner.assemble.model import build_model
from runner.assemble.normalization import describe_own, follows_checkpoint, load_statistics
from runner.assemble.plugin_checks import with_checked_plugins
from runner.assemble.processes import check_shareable
from runner.assemble.read_weights import InitialWeights, read_weights
from runner.assemble.recipe import build_recipe, clock_of_run
from runner.assemble.threads import begin, choose
from runner.assemble.transfer import StagePlans, plan_stages, rows_of
from runner.batch_sizes import check_batch_size
from runner.components.optim.describe_groups import describe
from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Augment, Data
from runner.engine.data_summary import DataSummary, summarize
from runner.engine.feature_cache import NoCache
from runner.engine.fingerprint import Fingerprint
from runner.engine.learner import Learner
from runner.engine.losses import as_loss
from runner.engine.metrics import Metrics
from runner.engine.recipe import Recipe
from runner.engine.world import ALONE, World
from runner.registry import Config, build, build_many
from runner.relations import check_relations
from runner.schema import check
from runner.settings import SETTINGS, Settings

# Where a trial of a search reports its scores.
_Search = Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that a task works with, ready to run."""

    settings: Settings
    world: World
    device: torch.device
    recipe: Recipe
    learner: Learner
    batches: TrainBatches
    # Each by itself, by name: in `batches` adjacent geometric ones are fused.
    augmentations: dict[str, Augment]
    validation: dict[str, EvalBatches]
    # Opens the test split.
    test: Callable[[], EvalBatches] | None
    # All metrics that have a meaning here, for a complete evaluation.
    final_metrics: Callable[[], Metrics]
    loaded: Loaded
    # What computes features before the head once, if `transfer` trains the head alone.
    features: NoCache
    # The table of the stages that `transfer` trains, empty without it.
    stages: list[dict[str, str]]
    # Lines that describe the parts.
    summary: list[str]

    @cached_property
    def data(self) -> DataSummary:
        """Return what the data hold."""
        return summarize(self.loaded.data)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes."""
        return self.data.classes

    @property
    def check_test(self) -> Callable[[], tuple[str, ...]]:
        """Return what checks that the test split can be opened, and gives lines for the summary."""
        return self.loaded.data.check_test

    @property
    def fingerprint(self) -> Fingerprint:
        """Return what identifies the data, wherever they lie."""
        return self.loaded.fingerprint


def assemble(
    config: Config, *, fit: bool = True, search: _Search = None, world: World = ALONE, loaded: Loaded | None = None
) -> Experiment:
    """Build a run from its config; nothing is trained or written.

    Args:
        config: The composed and checked config.
        fit: Compute the preprocessing statistics and read `init_from`; False if a checkpoint will be loaded.
        search: Where a trial of a search reports its scores.
        world: The processes that train together.
        loaded: The data that the config describes, if they are loaded already.

    Raises ConfigError if settings are not supported together, and DataError if data are missing or broken.
    """
    settings, device = _settings_and_device(config, world)
    data, weights = (loaded := loaded or load(config)).data, read_weights(config) if fit else None
    preprocess, before = _build_preprocess(config, data, device, weights, fit=fit)
    batches = train_batches(settings, data, augments := augmentations(config, data), preprocess, device, world)
    model, described = build_model(config, data, batches, made := _regularizers(config, settings, batches), weights)
    plans = _prepare(config, model, settings, data, batches, world)
    untaught = build_recipe(config, settings, data, batches, made, model, device)
    recipe, taught = with_teacher(config, settings, untaught, loaded, model, plans, preprocess, device, fit=fit)
    learner = build_learner(config, settings, recipe, model.to(device), preprocess, batches, plans, search)
    experiment = Experiment(
        settings=settings,
        world=world,
        device=device,
        recipe=recipe,
        learner=learner,
        batches=batches,
        augmentations=augments,
        validation=validation_batches(data, batches, preprocess, device),
        test=test_batches(data, preprocess, device, world),
        final_metrics=partial(final_metrics, config, as_loss(recipe.loss), len(data.classes)),
        loaded=loaded,
        features=cache_features(config, plans, recipe, learner, batches, data),
        stages=rows_of(plans, model, learner.optimizer, recipe.total_steps),
        summary=[*before, *described, *taught, *_describe(model, settings, recipe, learner, device, plans)],
    )
    return with_checked_plugins(config, experiment)


def _settings_and_device(config: Config, world: World) -> tuple[Settings, torch.device]:
    """Return the global settings, checked and resolved for a device, and the device; begin with their threads."""
    settings, device = settings_and_device(config, world)
    begin(settings.threads)
    return settings, device


def settings_and_device(config: Config, world: World = ALONE) -> tuple[Settings, torch.device]:
    """Return the global settings, checked and resolved for a device, and the device."""
    settings = Settings(**{name: check(name, config[name], kind) for name, kind in SETTINGS.items()})
    check_relations("", config, SETTINGS)
    check_batch_size(config)
    check_shareable(config, world)
    device = device_of(settings.device, world)
    return resolve(settings, device), device


def _regularizers(config: Config, settings: Settings, batches: TrainBatches) -> list[Any]:
    """Return the regularizers of a run of this length."""
    return build_many("regularizer", config, clock=clock_of_run(settings, batches))


def _prepare(
    config: Config, model: nn.Module, settings: Settings, data: Data, batches: TrainBatches, world: World
) -> StagePlans:
    """Choose the number of CPU threads for a model, give it its memory format and type, and plan its stages."""
    plans = plan_stages(config, model, data, clock_of_run(settings, batches))
    choose(settings.threads, model, shape=data.shape, examples=batches.batch, world=world)
    convert_model(model, settings)
    return plans


def _build_preprocess(
    config: Config, data: Data, device: torch.device, weights: InitialWeights | None, *, fit: bool
) -> tuple[Any, list[str]]:
    """Return the preprocessing, a `Preprocess` and a module, on a device, and the first summary lines.

    With `fit` it gets those that the weights were trained with, if `transfer` says so, or those of the data.
    """
    preprocess = build("preprocess", config["preprocess"], shape=data.shape)
    lines = None
    if weights is not None and follows_checkpoint(config):
        lines = load_statistics(preprocess, config, weights)
    if fit and lines is None:
        preprocess.fit(data.train)
        lines = describe_own(config, weights)
    preprocess.to(device)
    return preprocess, [*_describe_data(data), *(lines or [])]


def _describe_data(data: Data) -> list[str]:
    """Return the summary lines about the data: what was found, and what is left out."""
    return [summarize(data).line, *data.notes]


def _describe(
    model: nn.Module, settings: Settings, recipe: Recipe, learner: Learner, device: torch.device, plans: StagePlans
) -> list[str]:
    """Return the summary lines about execution and optimizer; the stages of `transfer` have a table instead."""
    return [
        *describe_execution(model, settings, recipe),
        *(describe(learner.optimizer) if not plans.stages else []),
        *describe_host_syncs(learner, device),
        *describe_recalibration(learner),
        *describe_snapshots(learner),
        *describe_metrics(recipe.metrics),
    ]
