"""Judges the evidence of the first steps on the host, and raises a Violation for what cannot be right.

A check alarms only where nothing legitimate explains what it sees: gradients of zero, a learning rate of 0, steps that
rounding swallows, steps that a loss scaler skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.engine.invariants.evidence import Evidence, Sampled
from runner.engine.invariants.known import Formula, Known
from runner.engine.invariants.violation import Violation

_Array = NDArray[Any]

# The smallest step of an optimizer, as a share of lr * min(1, |gradient|): Adadelta's first is 0.003
_SMALLEST_SHARE = 1e-3
# Relative error of a sum of gradient norms, in float32 and in half precision
_ROUNDING, _HALF_ROUNDING = 1e-3, 2e-2
# Share of the way that the weights went, by which an average may be off, and the rounding errors of its sums
_WAY, _ULPS = 0.01, 32
# Natural logarithm of the chance at which two random batches or masks may be equal
_CHANCE = -30.0


def _parts_of(where: Sampled, values: _Array) -> Sequence[_Array]:
    """Return the elements of each tensor of a sample."""
    return np.split(values, where.ends[:-1]) if where.names else []


def _is_finite(evidence: Evidence) -> bool:
    """True if the loss and the gradients of a step were finite, so that it was made."""
    found = evidence.host
    return bool(np.isfinite(found["loss"]) and np.isfinite(found["norms"]).all() and np.isfinite(found["grad"]).all())


def _unmoved(evidence: Evidence) -> list[str]:
    """Return the trained tensors that did not change, though their gradient says that they must."""
    found, where = evidence.host, evidence.trained
    names = []
    before, after, gradients = (_parts_of(where, found[key]) for key in ("before", "after", "grad"))
    for name, w, new, g, rate, tensor in zip(
        where.names, before, after, gradients, evidence.rates, where.tensors, strict=True
    ):
        if (w != new).any():
            continue
        info = _limits(str(tensor.dtype).removeprefix("torch."))
        smallest = _SMALLEST_SHARE * rate * np.minimum(1.0, np.abs(g.astype(np.float64)))
        if (smallest > np.maximum(info[0] * np.abs(w.astype(np.float64)), info[1])).any():
            names.append(name)
    return names


def _limits(dtype: str) -> tuple[float, float]:
    """Return the distance of 1 to the next number of a type, and its smallest normal number."""
    known = {"float16": (2.0**-10, 2.0**-14), "bfloat16": (2.0**-7, 2.0**-126), "float64": (2.0**-52, 2.0**-1022)}
    return known.get(dtype, (2.0**-23, 2.0**-126))


def _check_moves(steps: Sequence[Evidence], *, each: bool) -> None:
    """Raise if a trained tensor does not move, in one step, or unless `each` in all of them.

    An optimizer of a plugin may collect the gradients of several steps.
    """
    # A loss scaler skips one step; without one, no step is made after the first that is not finite
    finite = [one for one in steps if _is_finite(one)]
    if finite and "scale" not in finite[0].host:
        finite = finite[: next((i for i, one in enumerate(steps) if not _is_finite(one)), len(steps))]
    still = [(one, _unmoved(one)) for one in finite]
    for one, names in still if each else still[-1:]:
        always = names if each else [n for n in names if all(n in others for _, others in still)]
        if always:
            more = f" and {len(always) - 1} more" if len(always) > 1 else ""
            problem = f"the weight {always[0]}{more} did not change, though its gradient is finite and not zero"
            raise Violation("moves", one.step, problem, "the optimizer's step", ("optim", "update"))


def _check_frozen(evidence: Evidence) -> None:
    """Raise if the optimizer changed a tensor that is frozen."""
    where, found = evidence.frozen, evidence.host
    for name, w, new in zip(
        where.names, _parts_of(where, found["frozen"]), _parts_of(where, found["frozen_after"]), strict=True
    ):
        if not np.array_equal(w, new, equal_nan=True):
            problem = f"the weight {name} is frozen and changed"
            raise Violation("frozen", evidence.step, problem, "the optimizer's step", ("optim", "update"))


def _check_gradients(evidence: Evidence, *, has_clip: bool) -> None:
    """Raise if gradients were left from the step before, are still scaled, or are above the limit of clipping."""
    found, step = evidence.host, evidence.step
    if np.any(found.get("left", 0.0)):
        problem = "the gradients of the step before were not cleared, so that the new ones are added to them"
        raise Violation("gradients_cleared", step, problem, "zero_grad of the optimizer", ("optim", "update"))
    if "clipped" in found and found["scale"] != 1.0 and _are_equal(found["arrived"], found["clipped"]):
        problem = f"the gradients still have the loss scaler's factor of {found['scale']:g} where they are clipped"
        raise Violation("unscaled", step, problem, "the loss scaler and the update", ("update",))
    if has_clip and "excess" not in found:
        raise Violation("clip", step, "the gradients were not clipped", "the update and clip", ("update",))
    if has_clip and _is_finite(evidence) and found["excess"] > 1 + _tolerance(evidence):
        problem = f"the gradients are {found['excess']:.4g} times the limit after clipping"
        raise Violation("clip", step, problem, "clip and clip_by", ("update",))


def _are_equal(some: _Array, others: _Array) -> bool:
    """True if numbers that are finite and not zero, of which there are some, are equal."""
    known = np.isfinite(some) & (some != 0)
    return bool(known.any() and np.array_equal(some[known], others[known]))


def _tolerance(evidence: Evidence) -> float:
    """Return the relative error of a norm of gradients."""
    half = any(p.dtype.itemsize < 4 for p in evidence.trained.tensors)
    return _HALF_ROUNDING if half else _ROUNDING


def _check_weights(evidence: Evidence) -> None:
    """Raise if the losses of a step, or a penalty, do not enter its gradients exactly once."""
    found = evidence.host
    for key, value in found.items():
        what, _, number = key.partition(" ")
        if what not in ("loss_weight", "penalty_weight") or not np.isfinite(value):
            continue
        if abs(value - 1) > _ROUNDING:
            words = "the loss enters" if what == "loss_weight" else f"penalty {number} enters"
            problem = f"{words} the gradients {value:.4g} times, must be once"
            kinds = ("loss", "update") if what == "loss_weight" else ("regularizer", "update")
            raise Violation(what, evidence.step, problem, "how micro-batches (accumulate) are added up", kinds)


def check_labels(evidence: Evidence, found: _Array, known: Known) -> None:
    """Raise if labels are out of range; soft ones must not be below 0, and have a sum of 1."""
    low, high, *sums = found.tolist()
    classes = known.classes
    # Torch's own losses leave out the label -100
    if not sums and ((low < 0 and low != -100) or high >= classes):
        problem = f"labels are from {low:g} to {high:g}, must be from 0 to {classes - 1}"
    elif sums and known.soft_labels and (low < -_ROUNDING or max(abs(each - 1) for each in sums) > _HALF_ROUNDING):
        problem = f"soft labels have a smallest value of {low:.4g} and sums from {sums[0]:.4g} to {sums[1]:.4g}"
    else:
        return
    raise Violation("labels", evidence.step, problem, "mix and the data set's labels", ("mix", "data"))


def _check_batches(steps: Sequence[Evidence]) -> None:
    """Raise if all of at least three steps had the same batch."""
    pairs = [one.host["repeated"] for one in steps[1:] if "repeated" in one.host]
    if len(pairs) < max(2, len(steps) - 1):
        return
    if all(labels and (images or chance < _CHANCE) for labels, images, chance in pairs):
        problem = f"the batch is the same as in step {steps[0].step}"
        raise Violation("batches", steps[-1].step, problem, "the order of the training examples", ("data", "augment"))


def _check_average(steps: Sequence[Evidence], formula: Formula) -> None:
    """Raise if averaged weights are not the sum of the weights so far that the formula of the average says."""
    models = {steps[0].step - 1: steps[0].host["model"], **{one.step: one.host["model_after"] for one in steps}}
    if len({each.shape for each in models.values()} | {one.host["average"].shape for one in steps}) > 1:
        return
    for one in steps:
        weights = formula(one.step)
        if weights is None or not weights.keys() <= models.keys():
            continue
        known = np.stack([models[step].astype(np.float64) for step in models if step <= one.step])
        expected = sum(factor * models[step].astype(np.float64) for step, factor in weights.items())
        way, size = known.max(0) - known.min(0), np.abs(known).max(0)
        off = np.abs(one.host["average"] - expected) > _WAY * way + _ULPS * 2.0**-23 * size
        if off.any():
            problem = (
                f"{int(off.sum())} of {off.size} averaged weights that were looked at are not what their formula says"
            )
            raise Violation("average", one.step, problem, "average and when it is updated", ("average",))


def _check_masks(steps: Sequence[Evidence]) -> None:
    """Raise if a dropout layer drops the same units in all steps; codes: 1 dropped, 0 kept, 2 unknown."""
    for key, first in steps[0].host.items():
        if not key.startswith("mask "):
            continue
        codes: list[_Array] = [one.host[key] for one in steps if key in one.host]
        if not 1 < len(codes) == len(steps) or any(code.shape != first.shape for code in codes):
            continue
        known = np.all([code != 2 for code in codes], axis=0)
        share = first[known].mean() if known.any() else 0.0
        chance = known.sum() * np.log(max(1 - 2 * share * (1 - share), 1e-9))
        if chance < _CHANCE and all(np.array_equal(code[known], first[known]) for code in codes):
            problem = f"the dropout layer {key.partition(' ')[2]} drops the same units as in step {steps[0].step}"
            raise Violation("dropout", steps[-1].step, problem, "the seeds of the steps", ("model", "regularizer"))


def check_all(steps: Sequence[Evidence], known: Known) -> None:
    """Raise a Violation if an invariant does not hold in the first steps."""
    for one in steps:
        _check_gradients(one, has_clip=known.excess is not None)
        _check_weights(one)
        check_labels(one, one.host["labels"], known)
        _check_frozen(one)
    _check_moves(steps, each=known.each_step)
    _check_batches(steps)
    _check_masks(steps)
    if known.formula:
        _check_average(steps, known.formula)
