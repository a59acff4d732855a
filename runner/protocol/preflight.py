"""Checks of an untrained model: its inputs, gradients, batch independence, optimizer and BatchNorms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from runner.assemble import Experiment
from runner.engine.parts import BATCH_NORMS, mode
from runner.printing import counted
from runner.protocol.outcome import Criterion, Level

# Names that one line lists at most
_MOST = 5
# Rounds of small steps after which a parameter that is still without gradient gets none
_ROUNDS = 4
# Largest change of a parameter in such a step
_NUDGE = 1e-2
# Standard deviation and mean beyond which inputs are not normalized at all
_FAR = 10.0


def preflight(experiment: Experiment, images: Tensor, labels: Tensor, *, transfers: bool) -> list[Criterion]:
    """Return the criteria of one batch (B, C, H, W) with its labels (B,); weights change, so the model is used up.

    `transfers` is True if the config freezes stages.
    """
    model = experiment.learner.model
    return [
        *input_criteria(images),
        independence_criterion(model, images, experiment.recipe.autocast),
        *_optimizer_criteria(experiment),
        _frozen_criterion(model, transfers=transfers),
        *_batch_norm_criteria(experiment),
        _gradient_criterion(experiment, images, labels),
    ]


def input_criteria(images: Tensor) -> list[Criterion]:
    """Return the criteria that inputs are finite, differ, and are centered and scaled in each channel."""
    finite = bool(torch.isfinite(images).all())
    if not finite or bool((images == images[:1]).all()):
        why = "all inputs of the batch are equal: is preprocessing or loading broken?" if finite else "NaN or infinity"
        return [Criterion(name="inputs", value="equal" if finite else "not finite", threshold="finite, different",
                          level=Level.FAIL if len(images) > 1 or not finite else Level.PASS, why=why)]  # fmt: skip
    by_channel = images.transpose(0, 1).flatten(1)
    mean, std = by_channel.mean(1), by_channel.std(1)
    worst_mean, low, high = float(mean.abs().max()), float(std.min()), float(std.max())
    normal = worst_mean <= 0.5 and low >= 0.3 and high <= 3
    level = Level.PASS if normal else Level.WARN if max(worst_mean, high) > _FAR else Level.HINT
    return [
        Criterion(
            name="inputs",
            value=f"|mean| up to {worst_mean:.3g}, std {low:.3g} to {high:.3g}",
            threshold="|mean| <= 0.5, std 0.3 to 3 per channel",
            level=level,
            why="" if normal else "inputs are not centered and scaled; preprocess=standardize does both",
            source="CS231n, neural-networks-2",
        )
    ]


def independence_criterion(
    model: nn.Module, images: Tensor, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Criterion:
    """Return the criterion that in evaluation the outputs of an example depend on no other example."""
    few = images[:4].detach().clone().requires_grad_()
    name, threshold = "examples are independent", "no gradient at another example, in evaluation"
    if len(few) < 2:
        return Criterion(name=name, value="one example", threshold=threshold, level=Level.SKIP)
    with mode(model, training=False), torch.enable_grad():
        with autocast():
            outputs = model(few)
        (gradient,) = torch.autograd.grad(outputs[0].float().sum(), few, allow_unused=True)
    mixed = 0.0 if gradient is None else float(gradient[1:].abs().max())
    return Criterion(
        name=name,
        value=f"{mixed:.3g}",
        threshold=threshold,
        level=Level.FAIL if mixed else Level.PASS,
        why="the model mixes examples of a batch: look for a view or a mean over the wrong axis" if mixed else "",
        source="Karpathy 2019",
    )


def _optimizer_criteria(experiment: Experiment) -> list[Criterion]:
    """Return the criteria that the optimizer has each trainable parameter once, with a learning rate above 0."""
    groups = experiment.learner.optimizer.param_groups
    names = {id(p): name for name, p in experiment.learner.model.named_parameters() if p.requires_grad}
    held = Counter(id(p) for group in groups for p in group["params"])
    missing = [name for key, name in names.items() if not held[key]]
    twice = [names.get(key, "?") for key, count in held.items() if count > 1]
    problem = [*(["not in the optimizer: " + _listed(missing)] if missing else []),
               *(["twice in the optimizer: " + _listed(twice)] if twice else [])]  # fmt: skip
    still = [group.get("name", "?") for group in groups if group.get("initial_lr", group["lr"]) == 0]
    every = len(still) == len(groups)
    return [
        Criterion(
            name="optimizer has each parameter once",
            value=f"{len(names) - len(missing)} of {len(names)}",
            threshold="all, once",
            level=Level.FAIL if problem else Level.PASS,
            why="; ".join(problem),
        ),
        Criterion(
            name="learning rates",
            value=f"{max(group.get('initial_lr', group['lr']) for group in groups):g}",
            threshold="above 0",
            level=Level.PASS if not still else Level.FAIL if every else Level.WARN,
            why=f"the learning rate is 0 in {_listed(still)}: nothing can be learned there" if still else "",
        ),
    ]


def _frozen_criterion(model: nn.Module, *, transfers: bool) -> Criterion:
    """Return the criterion that all parameters are trained, unless the config freezes some."""
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    total = sum(1 for _ in model.parameters())
    level = Level.PASS if not frozen else Level.HINT if transfers else Level.WARN
    why = f"frozen: {_listed(frozen)}" + ("" if transfers else ", although transfer=none") if frozen else ""
    return Criterion(
        name="trainable parameters",
        value=f"{total - len(frozen)} of {total}",
        threshold="all, unless transfer freezes some",
        level=Level.FAIL if total and len(frozen) == total else level,
        why=why,
    )


def _batch_norm_criteria(experiment: Experiment) -> list[Criterion]:
    """Return the criterion that BatchNorm sees enough examples; none for a model without BatchNorm."""
    if not any(isinstance(module, BATCH_NORMS) for module in experiment.learner.model.modules()):
        return []
    batches = experiment.batches
    last = (batches.examples_per_epoch - 1) % batches.batch + 1
    parts = torch.arange(batches.batch).chunk(experiment.recipe.accumulate)
    usual = len(parts[0])
    least = len(torch.arange(last).chunk(experiment.recipe.accumulate)[-1])
    level = Level.WARN if usual == 1 or least == 1 else Level.HINT if usual < 8 else Level.PASS
    few = least if least == 1 else usual
    why = f"BatchNorm has a (micro-)batch of {few}: its statistics are noise; norm=group has none"
    return [
        Criterion(
            name="examples of a BatchNorm",
            value=f"{usual}, in the last step of an epoch {least}",
            threshold="8 and more",
            level=level,
            why="" if level is Level.PASS else why,
        )
    ]


def _gradient_criterion(experiment: Experiment, images: Tensor, labels: Tensor) -> Criterion:
    """Return the criterion that gradients reach every parameter, if not at once then after a few small steps.

    A residual branch whose last layer begins at zero gets gradients once that layer has moved: such parameters are
    listed. What still has none is never trained.
    """
    model = experiment.learner.model
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    first = still = _without_gradient(experiment, images, labels, trainable)
    broken = [name for name, p in trainable.items() if p.grad is not None and not torch.isfinite(p.grad).all()]
    for _ in range(_ROUNDS):
        if not still or broken:
            break
        _nudge(trainable.values())
        still = [name for name in still if name in _without_gradient(experiment, images, labels, trainable)]
    value = f"{len(trainable) - len(first)} of {len(trainable)}"
    threshold = "all, at once or after a few steps"
    name = "gradients reach each parameter"
    if broken:
        return Criterion(name=name, value=value, threshold=threshold, level=Level.FAIL,
                         why=f"NaN or infinity in the gradient of {_listed(broken)}")  # fmt: skip
    if still:
        return Criterion(name=name, value=value, threshold=threshold, level=Level.FAIL,
                         why=f"no gradient reaches {_listed(still)}")  # fmt: skip
    late = f"{_listed(first)}: no gradient before a layer that begins at zero has moved" if first else ""
    return Criterion(name=name, value=value, threshold=threshold, level=Level.PASS, why=late)


def _without_gradient(
    experiment: Experiment, images: Tensor, labels: Tensor, trainable: Mapping[str, Tensor]
) -> list[str]:
    """Return the names of the parameters whose gradient is zero or missing; the gradients stay."""
    recipe, model = experiment.recipe, experiment.learner.model
    for parameter in trainable.values():
        parameter.grad = None
    recipe.reseed(0)
    with mode(model, training=True), torch.enable_grad(), recipe.autocast():
        loss = recipe.loss(model(images), labels)
    if loss.requires_grad:
        torch.autograd.backward(loss)
    return [name for name, p in trainable.items() if p.grad is None or not p.grad.any()]


@torch.no_grad()
def _nudge(parameters: Iterable[Tensor]) -> None:
    """Move each parameter with a gradient a little against it."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.any():
            parameter -= _NUDGE * parameter.grad / parameter.grad.abs().max()


def _listed(names: Sequence[str]) -> str:
    """Return names in a line, of many the first ones."""
    more = f" and {counted(len(names) - _MOST, 'other')}" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
