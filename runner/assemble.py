"""Config -> Recipe, Learner, data: the only file that knows both worlds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

import runner.components  # noqa: F401  (registers them)
from runner.components.optim.groups import describe
from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Data, Mix, Preprocess, Regularizer
from runner.engine.learner import Learner, Patience
from runner.engine.randomness import key, order, reseeder, stepwise
from runner.engine.recipe import Recipe
from runner.errors import ConfigError
from runner.registry import asks, build
from runner.schema import SETTINGS, Settings, check, steps_of

Config = Mapping[str, Any]


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
    classes: tuple[str, ...]
    summary: list[str]  # what was built, in words


def assemble(config: Config, *, fit: bool = True) -> Experiment:
    """Build a run from its config; nothing is trained or written.

    `fit=False` leaves the preprocessing statistics to be loaded. Raises ConfigError for what does not fit together,
    DataError for data that are missing or broken.
    """
    settings = Settings(**{name: check(name, config[name], kind) for name, kind in SETTINGS.items()})
    device = device_of(settings.device)
    data: Data = build("data", config["data"])
    preprocess = build("preprocess", config["preprocess"], shape=data.shape)
    if fit:
        preprocess.fit(data.train)
    preprocess.to(device)
    batches = train_batches(config, settings, data, preprocess, device)
    regularizers = many("regularizer", config)
    torch.manual_seed(key(settings.seed, "init"))
    model, summary = build_model(config, data, batches, regularizers)
    recipe = build_recipe(config, settings, data, batches, regularizers, device)
    learner = build_learner(config, settings, recipe, model.to(device), preprocess, device)
    return Experiment(
        settings=settings,
        device=device,
        recipe=recipe,
        learner=learner,
        batches=batches,
        validation=validation_batches(data, preprocess, device),
        test=test_batches(data, preprocess, device),
        classes=data.classes,
        summary=[*summary, *describe(learner.optimizer)],
    )


def device_of(word: str) -> torch.device:
    """Return the device that a word names; `auto` takes the first of cuda, mps and cpu that is there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if word == "auto":
        return torch.device(next(kind for kind, found in there.items() if found))
    device = torch.device(word)
    if not there[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        found = ", ".join(kind for kind, here in there.items() if here)
        raise ConfigError(f"device: got '{word}', must be auto or one that this machine has ({found})")
    return device


def many(kind: str, config: Config, **context: Any) -> list[Any]:
    """Build the parts of a pick-many group in the order given."""
    chosen = config[kind] or {}
    return [
        build(kind, {"name": name, **(knobs or {})}, key=f"{kind}.{name}", **context) for name, knobs in chosen.items()
    ]


def train_batches(
    config: Config, settings: Settings, data: Data, preprocess: Preprocess, device: torch.device
) -> TrainBatches:
    """Return the training split as augmented batches, one per optimizer step."""
    return TrainBatches(
        data.train,
        batch=data.batch_size * settings.accumulate,
        seed=settings.seed,
        augments=many("augment", config, shape=data.shape),
        preprocess=preprocess,
        device=device,
    )


def validation_batches(data: Data, preprocess: Preprocess, device: torch.device) -> dict[str, EvalBatches]:
    """Return the validation split, and as many training examples, clean, to compare it with."""
    size = min(len(data.train.labels), len(data.val.labels))
    some = order(0, 0, len(data.train.labels))[:size].sort().values
    make = partial(EvalBatches, batch=max(data.batch_size, 256), preprocess=preprocess, device=device)
    return {"train": make(data.train, index=some), "val": make(data.val)}


def test_batches(data: Data, preprocess: Preprocess, device: torch.device) -> Callable[[], EvalBatches] | None:
    """Return a function that opens the test split, or None where the data have none."""
    opened = data.test
    if opened is None:
        return None
    return lambda: EvalBatches(opened(), batch=max(data.batch_size, 256), preprocess=preprocess, device=device)


def build_model(
    config: Config, data: Data, batches: TrainBatches, regularizers: list[Regularizer]
) -> tuple[nn.Module, list[str]]:
    """Return the initialised, rewired model on the CPU and what was done to it in words."""
    model: nn.Module = build(
        "model",
        config["model"],
        shape=data.shape,
        num_classes=len(data.classes),
        activation=partial(build, "activation", config["activation"]),
        norm=build("norm", config["norm"]),
    )
    rewired = [regularizer.rewire(model) for regularizer in regularizers if regularizer.rewire]
    context: dict[str, Any] = {}
    if asks("init", config["init"]["name"], "images"):
        context["images"] = next(batches.stream(0, 1))[0].cpu()
    build("init", config["init"], **context)(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    return model, [f"{config['model']['name']}: {count:,} parameters", *rewired]


def build_recipe(
    config: Config,
    settings: Settings,
    data: Data,
    batches: TrainBatches,
    regularizers: list[Regularizer],
    device: torch.device,
) -> Recipe:
    """Return what stays fixed, with every duration turned into steps."""
    per_epoch = batches.steps_per_epoch
    total = settings.steps or max(1, round(settings.epochs * per_epoch))
    steps = partial(steps_of, total_steps=total, steps_per_epoch=per_epoch, batch=batches.batch)
    classes = len(data.classes)
    return Recipe(
        seed=settings.seed,
        total_steps=total,
        steps_per_epoch=per_epoch,
        validate_every=max(1, steps(settings.validate_every)),
        checkpoint_every=max(1, steps(settings.checkpoint_every)),
        log_every=settings.log_every,
        accumulate=settings.accumulate,
        loss=build("loss", config["loss"], num_classes=classes),
        mix=keyed(build("mix", config["mix"], num_classes=classes), settings.seed),
        predict=build("predict", config["predict"]),
        penalties=[r.penalty for r in regularizers if r.penalty],
        constraints=[r.constrain for r in regularizers if r.constrain],
        probes=many("probe", config),
        clip=clipper(settings.clip),
        autocast=autocaster(settings.precision, device),
        reseed=reseeder(settings.seed, device),
    )


def keyed(mix: Mix, seed: int) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
    """Return the mix as a function of the step."""
    key_of = stepwise(seed, "mix")
    return lambda images, labels, step: mix(images, labels, key_of(step))


def clipper(limit: float | None) -> Callable[[nn.Module], Tensor | None]:
    """Return what clips all gradients together by their L2 norm and returns the norm before, or does nothing."""
    if limit is None:
        return lambda model: None
    return lambda model: nn.utils.clip_grad_norm_(model.parameters(), limit)


def autocaster(precision: str, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return a maker of the autocast context of a precision; fp32 needs none."""
    if precision == "fp32":
        return contextlib.nullcontext
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return lambda: torch.autocast(device.type, dtype)


def build_learner(
    config: Config,
    settings: Settings,
    recipe: Recipe,
    model: nn.Module,
    preprocess: nn.Module,
    device: torch.device,
) -> Learner:
    """Return all that changes, at step 0."""
    fused = device.type in ("cpu", "cuda", "mps") or None
    optimizer = build("optim", config["optim"], model=model, fused=fused)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    batch = config["data"]["batch_size"] * settings.accumulate
    durations = {"total_steps": recipe.total_steps, "steps_per_epoch": recipe.steps_per_epoch, "batch": batch}
    return Learner(
        model=model,
        preprocess=preprocess,
        optimizer=optimizer,
        schedule=build("scheduler", config["scheduler"], **durations),
        scaler=GradScaler(device.type, enabled=settings.precision == "fp16"),
        average=build("average", config["average"], model=model, optimizer=optimizer, **durations),
        patience=Patience(settings.monitor, limit=settings.patience),
    )
