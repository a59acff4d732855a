"""A small sample of the training examples: its choice, the training on it, and how well a model fits it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from runner.assemble import Experiment
from runner.assemble.load_data import Loaded
from runner.components.data.splitting import split_order, stratified_sample
from runner.engine.batches import EvalBatches
from runner.engine.contracts import Images, Split
from runner.engine.parts import mode
from runner.engine.randomness import generator
from runner.engine.short_run import short_run
from runner.errors import Diverged

# Passes between two evaluations, as a share of those made
_PAUSE = 0.2
_DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
# Wrong examples that a record names
_MOST_WRONG = 20


def with_sample(loaded: Loaded, count: int) -> Loaded:
    """Return data whose training and validation split are the same sample, with each class in its share.

    The choice depends on the number of the examples only. All are taken if there are no more than `count`.
    """
    train = loaded.data.train
    labels = train.labels.cpu()
    present = int((labels.bincount() > 0).sum())
    count = min(max(count, present), len(labels))
    index = stratified_sample(labels, split_order(range(len(labels))), count)
    # In folders of classes neighbors have one class, and BatchNorm would see it alone in a batch
    index = index[torch.randperm(len(index), generator=generator(0, "sample"))]
    sample = Images(train.fetch(index.to(train.labels.device)).cpu(), labels[index])
    return Loaded(replace(loaded.data, train=sample, val=sample, test=None, found=None), loaded.fingerprint)


def with_permuted_labels(loaded: Loaded, seed: int) -> Loaded:
    """Return data whose training labels are permuted, so that nothing can be learned but the class frequencies."""
    train = loaded.data.train
    order = torch.randperm(len(train.labels), generator=generator(seed, "permuted"))
    permuted = _Labelled(train, train.labels[order.to(train.labels.device)])
    data = replace(loaded.data, train=permuted, test=None, found=None)
    return Loaded(data, loaded.fingerprint)


def blind(experiment: Experiment) -> None:
    """Replace all training and evaluation images of an experiment on a sample by one gray image."""
    split = experiment.batches.split
    pixels = split.fetch(torch.arange(len(split.labels), device=split.labels.device))
    same = Images(torch.zeros_like(pixels), split.labels)
    experiment.batches.split = same
    for batches in experiment.validation.values():
        batches.split = same


class _Labelled:
    """A split with other labels."""

    def __init__(self, split: Split, labels: Tensor) -> None:
        self._split, self.labels = split, labels

    def fetch(self, index: Tensor, *more: Any) -> Tensor:
        """Return the images (B, C, H, W) of the examples at `index` (B,)."""
        return self._split.fetch(index, *more)

    def __getattr__(self, name: str) -> Any:
        """Return anything else that the split has."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._split, name)


def reachable_accuracy(split: Split) -> float:
    """Return the accuracy that no model exceeds: equal images with different labels cannot all be right."""
    pixels = split.fetch(torch.arange(len(split.labels), device=split.labels.device)).cpu().flatten(1).numpy()
    labels = defaultdict[bytes, Counter[int]](Counter)
    for row, label in zip(pixels, split.labels.tolist(), strict=True):
        labels[row.tobytes()][label] += 1
    return sum(max(found.values()) for found in labels.values()) / len(split.labels)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The end of a fit: an accuracy in evaluation mode, and a training loss; None for no such end."""

    accuracy: float
    loss: float | None


def fit(experiment: Experiment, goal: Goal) -> dict[str, Any]:
    """Train on the examples of an experiment until the goal is reached or its steps are made; return what happened.

    Returns:
        `curve`: points with `step`, `train_loss`, `train_accuracy` (training mode), `eval_loss`, `eval_accuracy`,
        `spread` (of the logits over examples); `reached`; `diverged`; `wrong`: the places of wrong examples.
    """
    _without_dropout(experiment.learner.model)
    recipe, learner, batches = experiment.recipe, experiment.learner, experiment.batches
    curve, passes, reached, diverged = [_point(experiment)], 0, False, False
    while learner.step < recipe.total_steps and not reached:
        more = max(1, int(passes * _PAUSE))
        steps = min(more * batches.steps_per_epoch, recipe.total_steps - learner.step)
        try:
            short_run(recipe, learner, batches, steps=steps)
        except Diverged:
            diverged = True
            break
        passes += more
        point = _point(experiment)
        curve.append(point)
        reached = point["eval_accuracy"] >= goal.accuracy and (goal.loss is None or point["train_loss"] <= goal.loss)
    return {"reached": reached, "diverged": diverged, "curve": curve, "wrong": _wrong(experiment)}


def _without_dropout(model: nn.Module) -> None:
    """Turn off the dropout that a model brings along."""
    for module in model.modules():
        if isinstance(module, _DROPOUT):
            module.p = 0.0


def _point(experiment: Experiment) -> dict[str, float]:
    """Return the scores of a model on its training examples, in training mode and in evaluation mode."""
    learner, batches = experiment.learner, experiment.batches
    sample = EvalBatches(batches.split, batch=batches.batch, preprocess=batches.preprocess, device=experiment.device)
    buffers = {name: value.clone() for name, value in learner.model.named_buffers()}
    training = _scores(experiment, learner.model, sample, training=True)
    with torch.no_grad():
        # The statistics of BatchNorm are those of training alone
        for name, value in learner.model.named_buffers():
            value.copy_(buffers[name])
    evaluation = _scores(experiment, learner.average.module, experiment.validation["val"], training=False)
    return {
        "step": learner.step,
        "train_loss": training["loss"],
        "train_accuracy": training["accuracy"],
        "eval_loss": evaluation["loss"],
        "eval_accuracy": evaluation["accuracy"],
        "spread": training["spread"],
    }


@torch.no_grad()
def _scores(experiment: Experiment, model: nn.Module, sample: EvalBatches, *, training: bool) -> Mapping[str, float]:
    """Return mean loss, accuracy, and the spread of the logits over examples."""
    recipe, losses, right, rows = experiment.recipe, 0.0, 0, []
    with mode(model, training=training):
        for images, labels in sample:
            with recipe.autocast():
                logits = model(images).float()
                losses += float(recipe.loss(logits, labels)) * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            rows.append(logits)
    z = torch.cat(rows)
    spread = float(z.std(0, correction=0).max())
    return {
        "loss": losses / len(z),
        "accuracy": right / len(z),
        "spread": spread if math.isfinite(spread) else math.nan,
    }


@torch.no_grad()
def _wrong(experiment: Experiment) -> list[int]:
    """Return the places in the sample of the first examples that evaluation gets wrong."""
    found, start = [], 0
    with mode(experiment.learner.average.module, training=False) as model, experiment.recipe.autocast():
        for images, labels in experiment.validation["val"]:
            wrong = (model(images).argmax(1) != labels).nonzero().flatten().tolist()
            found += [start + place for place in wrong]
            start += len(labels)
    return found[:_MOST_WRONG]
