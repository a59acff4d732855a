"""How large the weights are, and how far a step moves them."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from runner.components.probe.sample import sample
from runner.engine.contracts import Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt

GUIDES = {"1e-4": -4.0, "1e-3": -3.0, "1e-2": -2.0}  # log10 of the ratios that a chart shows as lines
ZERO = 1e-8  # a weight tensor whose values are on average (of order 1 or 2) no larger has no ratio: it is zero


@register("probe")
def update_ratio(*, every: PositiveInt, norm: Literal["l2", "l1", "both"]) -> Probe:
    """Return a probe of |update| / |weights before it| of each weight tensor, and of all together as `_global`.

    The update is the difference of the weights, so it holds whatever the optimizer, clipping and decay made of the
    gradient. Tensors of fewer than two dimensions (biases, norms) are left out; a tensor that is zero before the step
    has no ratio (NaN, which the log drops). The ratio (L2 where there are both) also comes as its logarithm, with
    constants at 1e-4, 1e-3 and 1e-2 to read it against; about 1e-3 is usual (CS231n, "Ratio of weights:updates").
    """
    orders = [order for order in (1, 2) if norm in (f"l{order}", "both")]
    guides = {f"ratio/log10/_guide/{name}": torch.tensor(power) for name, power in GUIDES.items()}
    least_of = cache(least)

    def watch(watched: Watched) -> Watch:
        weights = {name: p.detach() for name, p in watched.parameters.items() if p.requires_grad and p.ndim > 1}
        if not weights:
            yield
            return {}
        now = list(weights.values())
        before = [weight.clone() for weight in now]
        yield
        change = list(torch._foreach_sub(now, before))
        sizes, device = tuple(weight.numel() for weight in now), now[0].device
        found = {f"l{order}": relative(change, before, order, least_of(sizes, order, device)) for order in orders}
        ratio = found[f"l{orders[-1]}"]
        found["log10"] = torch.where(ratio > 0, ratio.log10(), torch.nan)  # none where nothing moved
        names = [*weights, "_global"]
        return guides | {
            f"ratio/{what}/{name}": value
            for what, values in found.items()
            for name, value in zip(names, values.unbind(), strict=True)
        }

    return Probe(every, watch)


def relative(change: list[Tensor], before: list[Tensor], order: int, least: Tensor) -> Tensor:
    """Return the norm of each change over the norm of its weight, and of all together (n + 1); NaN below `least`."""
    norms = torch.stack(torch._foreach_norm([*change, *before], order)).view(2, -1)
    moved, size = torch.cat([norms, torch.linalg.vector_norm(norms, order, dim=1, keepdim=True)], dim=1)
    return torch.where(size > least, moved / size, torch.nan)


def least(sizes: tuple[int, ...], order: int, device: torch.device) -> Tensor:
    """Return the norms (n + 1) up to which weights of these sizes, and all together, count as zero."""
    norms = torch.tensor([ZERO * n ** (1 / order) for n in (*sizes, sum(sizes))])
    return norms.to(device, non_blocking=True)


@register("probe")
def weight_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the L2 norm of each trainable parameter after the step, and of all together as `_global`."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p.detach() for name, p in watched.parameters.items() if p.requires_grad}
        if not found:
            return {}
        norms = torch.stack(torch._foreach_norm(list(found.values())))
        named = dict(zip(found, norms.unbind(), strict=True))
        whole = torch.linalg.vector_norm(norms)
        return {f"weight_norm/{name}": norm for name, norm in named.items()} | {"weight_norm/_global": whole}

    return Probe(every, watch)


@register("probe")
def histograms(*, every: PositiveInt, values: PositiveInt) -> Probe:
    """Return a probe of the values of each trainable parameter after the step, at most `values` of each."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p for name, p in watched.parameters.items() if p.requires_grad}
        return {f"weights/{name}": sample(p, values) for name, p in found.items()}

    return Probe(every, watch)
