"""How large the weights are, and how far a step moves them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from runner.components.probe.sample import sample
from runner.engine.contracts import Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt

GUIDES = {"1e-4": -4.0, "1e-3": -3.0, "1e-2": -2.0}  # log10 of the ratios that a chart shows as lines
ZERO = 1e-8  # a weight tensor of at most this root mean square counts as zero: it has no ratio


@register("probe")
def update_ratio(*, every: PositiveInt, norm: Literal["l2", "l1", "both"]) -> Probe:
    """Return a probe of |update| / |weights before it| of each weight tensor, and of all together as `_global`.

    The update is the difference of the weights, so it holds whatever the optimizer, clipping and decay made of the
    gradient. Tensors of fewer than two dimensions (biases, norms) are left out; a tensor that is zero before the step
    has no ratio (NaN, which the log drops). Each ratio also comes as its logarithm, with constants at 1e-4, 1e-3 and
    1e-2 to read it against; about 1e-3 is usual (CS231n, "Ratio of weights:updates").
    """
    orders = [order for order in (2, 1) if norm in (f"l{order}", "both")]
    guides = {f"ratio/log10/_guide/{name}": torch.tensor(power) for name, power in GUIDES.items()}

    def watch(watched: Watched) -> Watch:
        weights = {name: p.detach() for name, p in watched.model.named_parameters() if p.requires_grad and p.ndim > 1}
        if not weights:
            yield
            return {}
        now = list(weights.values())
        before = [weight.clone() for weight in now]
        yield
        ratios: dict[str, Tensor] = {}
        change = list(torch._foreach_sub(now, before))
        for order in orders:
            named = dict(zip([*weights, "_global"], relative(change, before, order), strict=True))
            ratios |= {f"ratio/l{order}/{name}": ratio for name, ratio in named.items()}
            log = "log10" if order == orders[0] else f"log10_l{order}"
            ratios |= {f"ratio/{log}/{name}": logarithm(ratio) for name, ratio in named.items()}
        return ratios | guides

    return Probe(every, watch)


def relative(change: list[Tensor], before: list[Tensor], order: int) -> list[Tensor]:
    """Return the norm of each change over the norm of its weight, then the same of all together."""
    moved = torch.stack(torch._foreach_norm(change, order))
    size = torch.stack(torch._foreach_norm(before, order))
    spread = torch.stack(torch._foreach_div(torch._foreach_norm(before), [w.numel() ** 0.5 for w in before]))
    each = torch.where(spread > ZERO, moved / size, torch.nan)
    whole = torch.linalg.vector_norm(moved, order) / torch.linalg.vector_norm(size, order)
    return [*each.unbind(), whole]


def logarithm(ratio: Tensor) -> Tensor:
    """Return log10, undefined (NaN) where nothing moved."""
    return torch.where(ratio > 0, ratio.log10(), torch.nan)


@register("probe")
def weight_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the L2 norm of each trainable parameter after the step, and of all together as `_global`."""

    def watch(watched: Watched) -> Watch:
        yield
        found = {name: p.detach() for name, p in watched.model.named_parameters() if p.requires_grad}
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
        found = {name: p for name, p in watched.model.named_parameters() if p.requires_grad}
        return {f"weights/{name}": sample(p, values) for name, p in found.items()}

    return Probe(every, watch)
