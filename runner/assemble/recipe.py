"""The recipe: all durations in steps; a part that is not used is a null object."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from runner.assemble.execution import forward_of
from runner.assemble.metrics import validation_metrics
from runner.assemble.processes import division_of
from runner.assemble.resize import build_resize, resized
from runner.engine.batches import TrainBatches
from runner.engine.clipping import Clip, clip_adaptive, clip_norm, clip_value, no_clipping
from runner.engine.clock import Clock
from runner.engine.contracts import Data, Mix, Predict, Probe, Regularizer
from runner.engine.division import Division
from runner.engine.losses import Loss, as_loss
from runner.engine.monitor import Monitor
from runner.engine.randomness import reseeder, step_keys
from runner.engine.recipe import Batch, Recipe
from runner.engine.saving.cadence import Automatic, Cadence, Every
from runner.engine.weights import classifiers
from runner.engine.world import World
from runner.errors import ConfigError
from runner.registry import Config, build, build_many
from runner.settings import NO_LIKELIHOOD, Settings


def build_recipe(
    config: Config,
    settings: Settings,
    data: Data,
    batches: TrainBatches,
    regularizers: list[Regularizer],
    model: nn.Module,
    device: torch.device,
) -> Recipe:
    """Return everything that stays constant in a run, with all durations in steps."""
    clock = clock_of_run(settings, batches)
    loss = _build_loss(config, settings, data)
    division = division_of(config, settings, batches, loss)
    resize = build_resize(config, data, batches, model, clock)
    full, steps, smaller = batches.size_of(0), clock.total_steps, getattr(resize, "end", 0)
    forward, compiled = forward_of(model, settings, shape=data.shape, batch=full, steps=steps, smaller=smaller)
    return Recipe(
        seed=settings.seed,
        total_steps=clock.total_steps,
        steps_per_epoch=clock.steps_per_epoch,
        validate_every=clock.interval(settings.validate_every),
        cadence=_cadence(settings, clock, batches.world),
        log_every=settings.log_every,
        loss=loss,
        mix=resized(_build_mix(config, settings, data, clock, division), resize),
        predict=build_predict(config, model, data.shape, loss),
        penalties=[r.penalty for r in regularizers if r.penalty],
        constraints=[r.constrain for r in regularizers if r.constrain],
        at_step=[r.at_step for r in regularizers if r.at_step],
        probes=_build_probes(config, settings, regularizers),
        clip=_clipper(settings, model),
        autocast=autocaster(settings.precision, device, cache=not settings.cuda_graphs),
        reseed=reseeder(settings.seed, device, rank=division.draws_as),
        division=division,
        forward=forward,
        compiled=compiled,
        update=build("update", config["update"]),
        metrics=validation_metrics(config, loss, len(data.classes)),
    )


def _build_probes(config: Config, settings: Settings, regularizers: list[Regularizer]) -> list[Probe]:
    """Return the probes, which may ask how the gradients of a step are made."""
    context = {
        "accumulate": settings.accumulate,
        "has_penalties": any(each.penalty for each in regularizers),
        "has_loss_scaler": settings.precision == "fp16",
    }
    return build_many("probe", config, **context)


def clock_of_run(settings: Settings, batches: TrainBatches) -> Clock:
    """Return the length of a run."""
    per_epoch = batches.steps_per_epoch
    return Clock(settings.steps or max(1, round(settings.epochs * per_epoch)), per_epoch, batches.batch)


def _cadence(settings: Settings, clock: Clock, world: World) -> Cadence:
    """Return when checkpoints are saved."""
    if settings.checkpoint_every == "auto":
        return Automatic(clock.steps_per_epoch, clock.total_steps, world)
    return Every(clock.interval(settings.checkpoint_every), clock.total_steps)


def _build_loss(config: Config, settings: Settings, data: Data) -> Loss:
    """Return the loss; raises ConfigError if the monitored score has no meaning for it."""
    counts = _class_counts(config["loss"], data)
    loss = as_loss(build("loss", config["loss"], num_classes=len(data.classes), class_counts=counts))
    if loss.log_probabilities is None and Monitor(settings.monitor).metric == "nll":
        name = config["loss"]["name"]
        raise ConfigError(f"monitor: got '{settings.monitor}', must be another one with loss={name}: {NO_LIKELIHOOD}")
    return loss


def build_predict(config: Config, model: nn.Module, shape: tuple[int, int, int], loss: Loss) -> Predict:
    """Return the prediction method; raises ConfigError if it does not go with the model or the average."""
    if config["predict"]["name"] == "swag" and config["average"]["name"] != "swag":
        raise ConfigError("predict=swag: requires average=swag, which collects the moments of the weights")
    predict: Predict = build("predict", config["predict"], model=model, shape=shape, loss=loss)
    return predict


def _class_counts(loss: Config, data: Data) -> Tensor:
    """Return the number of training examples per class (K,); raise ConfigError if classes would be balanced twice."""
    if data.sampling == loss.get("class_weights") == "balanced":
        raise ConfigError(
            "loss.class_weights: got 'balanced' with data.sampling=balanced, which draws all classes equally often; "
            "choose one of the two"
        )
    return data.train.labels.bincount(minlength=len(data.classes))


def _build_mix(
    config: Config, settings: Settings, data: Data, clock: Clock, division: Division
) -> Callable[[Tensor, Tensor, int], Batch]:
    """Return the mix as a function of the step.

    A mix may have an `end`: a number of steps after which batches stay as they are, and processes exchange none.
    """
    mix: Mix = build("mix", config["mix"], num_classes=len(data.classes), shape=data.shape, clock=clock)
    key_of, end = step_keys(settings.seed, "mix"), getattr(mix, "end", None)
    last = 0 if config["mix"]["name"] == "none" else math.inf if end is None else end
    mixed = division.mixed(lambda images, labels, step: mix(images, labels, key_of(step)))
    return lambda images, labels, step: mixed(images, labels, step) if step < last else (images, labels)


def _clipper(settings: Settings, model: nn.Module) -> Clip:
    """Return the gradient clipping; AGC leaves the classifier out, as in its paper (arXiv 2102.06171, section 4.1)."""
    if settings.clip is None:
        return no_clipping
    if settings.clip_by != "agc":
        return (clip_norm if settings.clip_by == "norm" else clip_value)(settings.clip)
    clipped = clipped_parameters(model)
    if not clipped:
        raise ConfigError(
            "clip_by: got 'agc', which leaves the classifier out, and the model has no other trainable parameter; "
            "choose norm or value"
        )
    return clip_adaptive(clipped, settings.clip)


def clipped_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the trainable parameters that AGC clips: all but those of the classifier."""
    excluded = {p for layer in classifiers(model) for p in layer.module.parameters()}
    return [p for p in model.parameters() if p.requires_grad and p not in excluded]


def autocaster(
    precision: str, device: torch.device, *, cache: bool
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return a function that creates the autocast context of a precision; CUDA graphs need `cache=False`."""
    if precision == "fp32":
        return contextlib.nullcontext
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return lambda: torch.autocast(device.type, dtype, cache_enabled=cache)
