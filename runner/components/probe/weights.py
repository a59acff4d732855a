"""How large the weights are, and how far a step moves them."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from runner.components.probe.norms import named, norms, tags, with_whole
from runner.components.probe.sample import sample
from runner.engine.contracts import Numbers, Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt

GUIDES = {f"ratio/log10/_guide/1e{power}": float(power) for power in (-4, -3, -2)}  # a chart shows them as lines
ZERO = 1e-8  # a weight tensor whose values are on average (of order 1 or 2) no larger has no ratio: it is zero


@register("probe")
def update_ratio(*, every: PositiveInt, norm: Literal["l2", "l1", "both"]) -> Probe:
    """Return a probe of |update| / |weights before it| of each weight tensor, and of all together as `_global`.

    The update is the difference of the weights, so it holds whatever the optimizer, clipping and decay made of the
    gradient. Tensors of fewer than two dimensions (biases, norms) are left out; a tensor that is zero before the step
    has no ratio, and none is logged. The ratio (L2 where there are both) also comes as its logarithm, with
    constants at 1e-4, 1e-3 and 1e-2 to read it against; about 1e-3 is usual (CS231n, "Ratio of weights:updates").
    """
    orders = [order for order in (1, 2) if norm in (f"l{order}", "both")]

    def watch(watched: Watched) -> Watch:
        weights = {name: p for name, p in watched.parameters.items() if p.requires_grad and p.ndim > 1}
        if not weights:
            yield
            return {}
        now: list[Tensor] = list(weights.values())
        before = [weight.detach().clone() for weight in now]
        yield
        sizes = [weight.numel() for weight in now]
        return {"ratio": Numbers(norms_of_step(now, before, orders), partial(ratios, tuple(weights), sizes, orders))}

    return Probe(every, watch)


@torch.no_grad()
def norms_of_step(now: list[Tensor], before: list[Tensor], orders: list[int]) -> list[Tensor]:
    """Return for each order the norms () of the weights before a step, then for each those of their change.

    `before` is overwritten with the change.
    """
    sizes = [norm for order in orders for norm in norms(before, order)]
    torch._foreach_sub_(before, now)
    return sizes + [norm for order in orders for norm in norms(before, order)]


def ratios(names: tuple[str, ...], sizes: list[int], orders: list[int], measured: list[float]) -> dict[str, float]:
    """Return by tag what the norms of a step say, undefined ratios left out."""
    found, half = dict(GUIDES), len(measured) // 2
    for place, order in enumerate(orders):
        start, stop = place * len(names), (place + 1) * len(names)
        size, moved = (with_whole(part[start:stop], order) for part in (measured[:half], measured[half:]))
        plain, logarithm = tags(f"ratio/l{order}", names), tags("ratio/log10", names)
        for n, (step, weight, count) in enumerate(zip(moved, size, [*sizes, sum(sizes)], strict=True)):
            ratio = step / weight if weight > ZERO * count ** (1 / order) else math.nan
            if not math.isnan(ratio):
                found[plain[n]] = ratio
            if order == orders[-1] and ratio > 0:
                found[logarithm[n]] = math.log10(ratio)
    return found


@register("probe")
def weight_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the L2 norm of each trainable parameter after the step, and of all together as `_global`."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p for name, p in watched.parameters.items() if p.requires_grad}
        if not found:
            return {}
        return {"weight_norm": Numbers(norms(list(found.values())), partial(named, "weight_norm", tuple(found)))}

    return Probe(every, watch)


@register("probe")
def histograms(*, every: PositiveInt, values: PositiveInt) -> Probe:
    """Return a probe of the values of each trainable parameter after the step, at most `values` of each."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p for name, p in watched.parameters.items() if p.requires_grad}
        return {f"weights/{name}": sample(p, values) for name, p in found.items()}

    return Probe(every, watch)
