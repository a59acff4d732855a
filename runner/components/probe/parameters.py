"""Probes of the parameters: norms, values and gradients, and how far one step moves the weights.

Norms stay on the device as 0-dim tensors (`Numbers`); ratios and logarithms are computed on the host at the next flush.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Literal

import torch
from torch import Tensor

from runner.engine.contracts import Numbers, Probe, Watch, Watched
from runner.engine.weights import trainable_weights
from runner.registry import register
from runner.schema import PositiveInt

# Tag of the norm of all tensors together; `_` sorts before the parameters' names.
_WHOLE = "_global"
# Constant curves at 1e-4, 1e-3 and 1e-2, drawn in the chart of the ratios as reference lines.
_GUIDES = {f"ratio/log10/_guide/1e{power}": float(power) for power in (-4, -3, -2)}
# Mean size of a tensor's values below which the tensor counts as zero and its ratio is undefined.
_ZERO = 1e-8


@register("probe")
def update_ratio(*, every: PositiveInt, norm: Literal["l2", "l1", "both"]) -> Probe:
    """Return a probe of the ratio |update| / |weights before the step| of each layer's weight and of all as `_global`.

    The update is the difference of the weights, so it includes optimizer, clipping and weight decay. Biases, norms,
    positions, class tokens and other tensors that are no weights of layers are left out. A tensor that is zero before
    the step has no ratio.

    Logs `ratio/l1/<parameter>` and `ratio/l2/<parameter>` as `norm` asks, and `ratio/log10/<parameter>`, the logarithm
    of the L2 ratio if there is one, with constants at 1e-4, 1e-3 and 1e-2 as reference lines. About 1e-3 is usual
    (CS231n, "Ratio of weights:updates").
    """
    orders = [order for order in (1, 2) if norm in (f"l{order}", "both")]

    def watch(watched: Watched) -> Watch:
        chosen = {parameter for weight in trainable_weights(watched.model) for parameter in weight.parameters}
        weights = {name: p for name, p in watched.parameters.items() if p.requires_grad and p in chosen}
        if not weights:
            yield
            return {}
        now: list[Tensor] = list(weights.values())
        before = [weight.detach().clone() for weight in now]
        yield
        sizes = [weight.numel() for weight in now]
        return {"ratio": Numbers(_step_norms(now, before, orders), partial(_ratios, tuple(weights), sizes, orders))}

    return Probe(every, watch)


@torch.no_grad()
def _step_norms(now: list[Tensor], before: list[Tensor], orders: list[int]) -> list[Tensor]:
    """Return the norms () of the weights before a step, order by order, then those of their change.

    Overwrites `before` with the change.
    """
    sizes = [norm for order in orders for norm in _norms(before, order)]
    torch._foreach_sub_(before, now)
    return sizes + [norm for order in orders for norm in _norms(before, order)]


def _ratios(names: tuple[str, ...], sizes: list[int], orders: list[int], measured: list[float]) -> dict[str, float]:
    """Return ratios and logarithms by tag from the norms that `_step_norms` measured; omit undefined ratios."""
    ratios, half = dict(_GUIDES), len(measured) // 2
    for i, order in enumerate(orders):
        start, stop = i * len(names), (i + 1) * len(names)
        norms, updates = (_with_whole(part[start:stop], order) for part in (measured[:half], measured[half:]))
        plain, logarithm = _tags(f"ratio/l{order}", names), _tags("ratio/log10", names)
        for n, (step, weight, count) in enumerate(zip(updates, norms, [*sizes, sum(sizes)], strict=True)):
            ratio = step / weight if weight > _ZERO * count ** (1 / order) else math.nan
            if not math.isnan(ratio):
                ratios[plain[n]] = ratio
            if order == orders[-1] and ratio > 0:
                ratios[logarithm[n]] = math.log10(ratio)
    return ratios


@register("probe")
def weight_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the L2 norm of each trainable parameter after the step.

    Logs `weight_norm/<parameter>`.
    """

    def watch(watched: Watched) -> Watch:
        yield
        selected = {name: p for name, p in watched.parameters.items() if p.requires_grad}
        if not selected:
            return {}
        return {
            "weight_norm": Numbers(_norms(list(selected.values())), partial(_by_tag, "weight_norm", tuple(selected)))
        }

    return Probe(every, watch)


@register("probe")
def histograms(*, every: PositiveInt, values: PositiveInt) -> Probe:
    """Return a probe of the values of each trainable parameter after the step.

    Logs the histogram `weights/<parameter>` of at most `values` values, evenly spread over the parameter.
    """

    def watch(watched: Watched) -> Watch:
        yield
        selected = {name: p for name, p in watched.parameters.items() if p.requires_grad}
        return {f"weights/{name}": _sample(p, values) for name, p in selected.items()}

    return Probe(every, watch)


@register("probe")
def grad_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the gradient's L2 norm before clipping, per parameter and of all together.

    A norm that is not finite is left out: that of a step which the loss scaler of fp16 skipped.

    Logs `grad_norm/<parameter>` and `grad_norm/_global`.
    """

    def watch(watched: Watched) -> Watch:
        outcome = yield
        selected = {name: p.grad for name, p in watched.parameters.items() if p.grad is not None}
        if not selected:
            return {}
        before = outcome.grad_norm
        if before is not None and before.ndim == 1:
            numbers = list(before.unbind())
        else:
            numbers = _norms(list(selected.values())) + ([] if before is None else [before.detach()])
        return {"grad_norm": Numbers(numbers, partial(_unclipped, tuple(selected)))}

    return Probe(every, watch)


def _unclipped(names: tuple[str, ...], numbers: list[float]) -> dict[str, float]:
    """Return the norms before clipping by tag, without those that are not finite.

    Args:
        names: The parameters.
        numbers: Their norms, then, if clipping by the global norm scaled them, the norm of all together before that.
    """
    clipped, before = numbers[: len(names)], numbers[len(names) :]
    whole = math.hypot(*clipped)
    # Clipping by the global norm scaled all gradients by one factor.
    scale = before[0] / whole if before and whole > 0 else 1.0
    unclipped = _by_tag("grad_norm", names, [norm * scale for norm in clipped])
    unclipped |= {f"grad_norm/{_WHOLE}": norm for norm in before}
    # The loss scaler of fp16 skips a step with infinite gradients, and they would hide the rest of the curve
    return {tag: norm for tag, norm in unclipped.items() if math.isfinite(norm)}


@register("probe")
def gradients(*, every: PositiveInt, values: PositiveInt) -> Probe:
    """Return a probe of the gradient's values after clipping.

    Logs the histogram `gradients/<parameter>` of at most `values` values, evenly spread over the parameter.
    """

    def watch(watched: Watched) -> Watch:
        yield
        selected = {name: p.grad for name, p in watched.parameters.items() if p.grad is not None}
        return {f"gradients/{name}": _sample(gradient, values) for name, gradient in selected.items()}

    return Probe(every, watch)


@torch.no_grad()
def _norms(tensors: Sequence[Tensor], order: int = 2) -> list[Tensor]:
    """Return the norm () of each tensor, in at least float32."""
    half = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)
    return list(torch._foreach_norm(list(tensors), order, dtype=torch.float32 if half else None))


def _with_whole(numbers: list[float], order: int = 2) -> list[float]:
    """Append the norm of all tensors together to their norms."""
    whole = math.hypot(*numbers) if order == 2 else math.fsum(numbers)
    return [*numbers, whole]


@lru_cache
def _tags(group: str, names: tuple[str, ...]) -> list[str]:
    """Return the tags of the named tensors and of all together; cached, since the names never change in a run."""
    return [f"{group}/{name}" for name in (*names, _WHOLE)]


def _by_tag(group: str, names: tuple[str, ...], numbers: list[float]) -> dict[str, float]:
    """Return L2 norms by tag, with the norm of all tensors together."""
    return dict(zip(_tags(group, names), _with_whole(numbers), strict=True))


def _sample(tensor: Tensor, count: int) -> Tensor:
    """Return a copy (n,) of at most `count` values of a tensor, evenly spread."""
    size = tensor.numel()
    stride = -(-size // count)
    # A stride that shares a factor with the size would visit only some columns of a matrix.
    while stride > 1 and math.gcd(stride, size) > 1:
        stride += 1
    return tensor.detach().reshape(-1)[::stride].clone()
