"""Checks of what the components of plugins return: their types when they are built, their tensors on a few examples.

Components of runner are tested, so nothing here runs for them. `runner.engine.contracts` says what each kind returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from runner.engine.contracts import Augment, Data, Draws, Probe, Regularizer
from runner.engine.distillation import Distillation
from runner.engine.losses import Loss, Prediction
from runner.engine.stage_plan import Transfer
from runner.errors import brief, type_name
from runner.registry import Config, check_products, find, is_plugins, names, wrong_product

if TYPE_CHECKING:
    from runner.assemble import Experiment

_Problem = str | None

# Examples on which components are tried before step 1
_EXAMPLES = 4
_CALLABLE = "a function, see `runner.engine.contracts`"


def _of_type(kind: type | tuple[type, ...], words: str) -> Callable[[Any], _Problem]:
    """Return a check that a component returns an object of a type."""
    return lambda made: None if isinstance(made, kind) else f"returned {_shown(made)}, must return {words}"


def _function(made: Any) -> _Problem:
    return None if callable(made) else f"returned {_shown(made)}, must return {_CALLABLE}"


def _average(made: Any) -> _Problem:
    needed = ("module", "update", "state_dict", "load_state_dict")
    missing = next((name for name in needed if not hasattr(made, name)), None)
    return f"returned {_shown(made)} without '{missing}', must return an Average" if missing else None


def _tracker(made: Any) -> _Problem:
    needed = ("from_first_row", "start", "log", "finish", "close")
    missing = next((name for name in needed if not hasattr(made, name)), None)
    return f"returned {_shown(made)} without '{missing}', must return a Tracker" if missing else None


def _preprocess(made: Any) -> _Problem:
    if isinstance(made, nn.Module) and hasattr(made, "fit"):
        return None
    return f"returned {_shown(made)}, must return a torch.nn.Module with a method fit(train)"


def _data(made: Any) -> _Problem:
    """Return what is wrong with a data set: its type, its labels or its images."""
    if not isinstance(made, Data):
        return f"returned {_shown(made)}, must return a Data, see `runner.engine.contracts`"
    for name, split in (("train", made.train), ("val", made.val)):
        labels, classes = split.labels, len(made.classes)
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1 or not len(labels):
            return f"has the labels {_shown(labels)} in {name}, must be one int64 per example (N,)"
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            return f"has labels from {int(labels.min())} to {int(labels.max())} in {name}, must be 0 to {classes - 1}"
        images = split.fetch(torch.arange(min(2, len(labels)), device=labels.device))
        wanted = (min(2, len(labels)), *made.shape)
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.shape != wanted:
            return f"has the images {_shown(images)} in {name}, must be uint8 {wanted} for its shape {made.shape}"
    return None


for _kind, _check in {
    "model": _of_type(nn.Module, "a torch.nn.Module"),
    "activation": _of_type(nn.Module, "a torch.nn.Module"),
    "optim": _of_type(Optimizer, "a torch.optim.Optimizer"),
    "augment": _of_type(Augment, "an Augment"),
    "regularizer": _of_type(Regularizer, "a Regularizer"),
    "probe": _of_type(Probe, "a Probe"),
    "distillation": _of_type((Distillation, NoneType), "a Distillation"),
    "average": _average,
    "tracker": _tracker,
    "transfer": _of_type(Transfer, "a Transfer"),
    "preprocess": _preprocess,
    "data": _data,
    **dict.fromkeys(("norm", "init", "scheduler", "loss", "mix", "predict", "update", "resize"), _function),
}.items():
    check_products(_kind, _check)


def with_checked_plugins(config: Config, experiment: Experiment) -> Experiment:
    """Return an experiment whose components of plugins work on a few examples; nothing in it has changed.

    Raises:
        PluginError: in one line, with the file and line of a component that returns something wrong.
    """
    if not (kinds := {kind: name for kind, name in _chosen(config) if is_plugins(find(kind, name))}):
        return experiment
    model, recipe = experiment.learner.model, experiment.recipe
    training = model.training
    devices = [experiment.device] if experiment.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        images, labels = next(iter(experiment.validation["val"]))
        images, labels = images[:_EXAMPLES], labels[:_EXAMPLES]
        for kind, name, problem in _first_problems(experiment, kinds, images, labels):
            if problem:
                raise wrong_product(kind, name, problem)
        model.eval()
        try:
            with recipe.autocast():
                _try_model(experiment, kinds, images, labels)
        finally:
            model.train(training)
    return experiment


def _chosen(config: Config) -> list[tuple[str, str]]:
    """Return kind and name of the components of a config that a run is built from."""
    groups = [(kind, values) for kind, values in config.items() if isinstance(values, Mapping) and names(kind)]
    several = [(kind, str(name)) for kind, values in groups if "name" not in values for name in values]
    single = [(kind, str(values["name"])) for kind, values in groups if "name" in values and kind != "task"]
    return [*single, *several]


def _first_problems(
    experiment: Experiment, kinds: Mapping[str, str], images: Tensor, labels: Tensor
) -> Iterator[tuple[str, str, _Problem]]:
    """Yield kind and name of what comes before the model, with what is wrong with it."""
    if name := kinds.get("preprocess"):
        yield "preprocess", name, _images(images, images)
    if name := kinds.get("scheduler"):
        factor = experiment.learner.schedule(0)
        yield "scheduler", name, None if isinstance(factor, (int, float)) else _returned(factor, "a number")
    for name, augment in experiment.augmentations.items():
        if is_plugins(find("augment", name)):
            yield "augment", name, _augmented(experiment, augment)
    for kind in ("mix", "resize"):
        if name := kinds.get(kind):
            yield kind, name, _mixed(experiment.recipe.mix(images, labels, 0), images, labels)


def _augmented(experiment: Experiment, augment: Augment) -> _Problem:
    """Return what is wrong with the images of an augmentation."""
    train = experiment.loaded.data.train
    raw = train.fetch(torch.arange(min(_EXAMPLES, len(train.labels)), device=train.labels.device))
    raw = raw.to(experiment.device)
    uniform = torch.rand(len(raw), augment.uniforms, device=raw.device)
    return _images(augment.apply(raw, Draws(uniform, 0)), raw)


def _images(given: Any, like: Tensor) -> _Problem:
    """Return what is wrong with a batch of images that was made of another."""
    wanted = f"images ({len(like)}, C, H, W) on {like.device}"
    fits = isinstance(given, Tensor) and given.ndim == 4 and len(given) == len(like) and given.device == like.device
    return None if fits else _returned(given, wanted)


def _mixed(given: Any, images: Tensor, labels: Tensor) -> _Problem:
    """Return what is wrong with mixed images and labels."""
    if not isinstance(given, tuple) or len(given) != 2:
        return _returned(given, "two tensors: images, labels")
    if problem := _images(given[0], images):
        return problem
    fits = isinstance(given[1], Tensor) and len(given[1]) == len(labels) and given[1].device == labels.device
    return None if fits else _returned(given[1], f"labels ({len(labels)},) or ({len(labels)}, K) on {labels.device}")


def _try_model(experiment: Experiment, kinds: Mapping[str, str], images: Tensor, labels: Tensor) -> None:
    """Raise PluginError if the model, its activation, the loss, the prediction or a penalty returns something wrong."""
    model, recipe, classes = experiment.learner.model, experiment.recipe, len(experiment.classes)
    if not {"model", "activation", "norm", "loss", "predict", "regularizer"} & kinds.keys():
        return
    logits = model(images)
    wanted = (len(images), classes)
    if "model" in kinds and not _is_floats(logits, wanted, images):
        raise wrong_product("model", kinds["model"], _returned(logits, f"logits {wanted} on {images.device}"))
    if "loss" in kinds:
        loss = recipe.loss.train if isinstance(recipe.loss, Loss) else recipe.loss
        if not _is_floats(value := loss(logits, labels), (), images):
            raise wrong_product("loss", kinds["loss"], _returned(value, f"the mean loss () on {images.device}"))
    if "predict" in kinds:
        predicted = recipe.predict(model, images)
        log_p = predicted.log_p if isinstance(predicted, Prediction) else predicted
        if not isinstance(predicted, Prediction) and not _is_floats(log_p, wanted, images):
            raise wrong_product("predict", kinds["predict"], _returned(log_p, f"log-probabilities {wanted}"))
    for penalty in recipe.penalties if "regularizer" in kinds else ():
        if not _is_floats(value := penalty(model), (), images):
            raise wrong_product("regularizer", kinds["regularizer"], _returned(value, "a penalty ()"))


def _is_floats(given: Any, shape: tuple[int, ...], like: Tensor) -> bool:
    """Return True if something is a tensor of floating-point numbers of a shape, on the device of another."""
    return (
        isinstance(given, Tensor) and given.shape == shape and given.is_floating_point() and given.device == like.device
    )


def _returned(given: Any, wanted: str) -> str:
    return f"returned {_shown(given)}, must return {wanted}"


def _shown(given: Any) -> str:
    """Return an object in words: type, shape and device of a tensor, the class of anything else."""
    if isinstance(given, Tensor):
        return f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)} on {given.device}"
    if given is None:
        return "None"
    return brief(f"a {type_name(given)}")
