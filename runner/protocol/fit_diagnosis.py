"""The meaning of a sample that no learning rate fits: the names of known faults, from where the loss ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.protocol.outcome import Advice

# Nats from a plateau that has a name
_NAT = 0.02
# Share of the loss of chance within which nothing was learned
_STILL = 0.05
# Standard deviation of the logits over examples below which they do not depend on the input
_SAME = 1e-3
# Fall of the loss over the last fifth of the points, as a share of it, that goes on
_FALLS = 0.1


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A fault with its name, what it means, and what to try."""

    name: str
    why: str
    advice: Advice


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The facts about the sample.

    Attributes:
        chance: The loss of a model that knows nothing.
        entropy: The entropy of the sample's classes.
        classes: The number of classes K.
        bound: The accuracy that can be reached.
        goal: The training loss to reach.
        softmax: True if the loss is cross-entropy.
    """

    chance: float
    entropy: float
    classes: int
    bound: float
    goal: float
    softmax: bool


def softmax_twice(classes: int) -> float:
    """Return the least cross-entropy of K outputs that are probabilities: ln(e + K - 1) - 1."""
    return math.log(math.e + classes - 1) - 1


def diagnose(rungs: Sequence[Mapping[str, Any]], sample: Sample) -> Diagnosis:
    """Return the fault that the ends of all rungs point at; each rung is a `fit.json` with its `lr`."""
    alive = [rung for rung in rungs if not rung["diverged"] and rung["curve"][-1]["train_loss"] is not None]
    if not alive:
        lower = f"optim.lr={min(rung['lr'] for rung in rungs) / 10:.3g}"
        why = "the loss is not finite at any learning rate of the ladder"
        return _found("diverged", why, "Lower the learning rate, or clip gradients.", lower, "clip=1.0")
    best = min(alive, key=lambda rung: rung["curve"][-1]["train_loss"])
    ends, end = [rung["curve"][-1] for rung in alive], best["curve"][-1]
    return _of_outputs(ends, end, sample) or _of_scores(ends, end, sample) or _of_progress(best)


def _of_outputs(ends: Sequence[Mapping[str, float]], best: Mapping[str, float], sample: Sample) -> Diagnosis | None:
    """Return a fault of what the model computes: it ignores its input, its softmax is doubled, nothing moves."""
    loss, twice = best["train_loss"], softmax_twice(sample.classes)
    if sample.softmax and abs(loss - twice) <= _NAT:
        why = f"the loss stays at ln(e + K - 1) - 1 = {twice:.3f}: the model ends in a softmax, and the loss has one"
        return _found("softmax_twice", why, "Return logits from the model.")
    if all(end["spread"] is not None and end["spread"] < _SAME for end in ends):
        at = f", and the loss ends at H(p) = {sample.entropy:.3f}" if abs(loss - sample.entropy) <= _NAT else ""
        why = f"all examples get the same outputs{at}: the model ignores its input"
        text = "Look for a dead layer, zero weights or inputs that are not passed on; see task=init_report."
        return _found("input_ignored", why, text)
    if all(abs(end["train_loss"] - sample.chance) < _STILL * abs(sample.chance) for end in ends):
        why = "the loss stays at that of chance at every learning rate"
        return _found("no_learning", why, "Check that gradients reach the weights: task=check_init, task=init_report.")
    return None


def _of_scores(ends: Sequence[Mapping[str, float]], best: Mapping[str, float], sample: Sample) -> Diagnosis | None:
    """Return a fault that loss and accuracies show together."""
    loss = best["train_loss"]
    fitted = [end for end in ends if end["train_accuracy"] >= sample.bound]
    if fitted and all(end["eval_accuracy"] < sample.bound for end in fitted):
        share = max(end["eval_accuracy"] for end in fitted)
        why = f"all examples are right in training mode, but {share:.1%} in evaluation mode: a layer differs"
        text = "Look at the statistics of BatchNorm and at dropout; try another norm."
        return _found("eval_mode_differs", why, text, "norm=none")
    if loss <= sample.goal and best["train_accuracy"] < sample.bound:
        right = f"{best['train_accuracy']:.1%} are right"
        why = f"the loss is {loss:.3g}, but {right}: the loss sees other labels than accuracy"
        return _found("labels_or_metric", why, "Look at the order of the classes in the loss.")
    if best["eval_accuracy"] >= sample.bound:
        why = f"all examples are right, but the loss ends at {loss:.3g}, above {sample.goal:.3g}"
        return _found("loss_floor", why, "Check scale and reduction of the loss, and whether it has a floor.")
    return None


def _of_progress(rung: Mapping[str, Any]) -> Diagnosis:
    """Return whether the best rung was still getting better."""
    losses = [point["train_loss"] for point in rung["curve"] if point["train_loss"] is not None]
    before, last = losses[-max(2, len(losses) // 5) - 1 :][0], losses[-1]
    if last < before * (1 - _FALLS):
        why = f"the loss still falls at the end ({before:.3g} -> {last:.3g}, lr {rung['lr']:.3g})"
        return _found("slow", why, "Give it more steps (task.max_steps), or a larger model.")
    why = f"the loss stays at {last:.3g} (lr {rung['lr']:.3g}), between chance and the goal"
    return _found("stuck", why, "Try a larger model, another init or optimizer.", "init=kaiming")


def _found(name: str, why: str, text: str, *overrides: str) -> Diagnosis:
    """Return a diagnosis."""
    return Diagnosis(name=name, why=why, advice=Advice(text=text, overrides=overrides))
