"""Probes: what one optimizer step does, read without changing it and without waiting for the device.

Each is a generator with one `yield` (`contracts.Probe`): before it the old weights, after it gradients and new weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

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
def grad_norm(*, every: PositiveInt) -> Probe:
    """Return a probe of the L2 norm of the gradient before clipping: of each parameter, and of all as `_global`."""

    def watch(watched: Watched) -> Watch:
        outcome = yield
        found = {name: p.grad for name, p in watched.model.named_parameters() if p.grad is not None}
        if not found:
            return {}
        norms = torch.stack(torch._foreach_norm(list(found.values())))
        whole = torch.linalg.vector_norm(norms)
        if outcome.grad_norm is not None:  # the gradients were scaled when they were clipped: scale them back
            norms = norms * torch.where(whole > 0, outcome.grad_norm / whole, 1.0)
            whole = outcome.grad_norm
        return {f"grad_norm/{name}": norm for name, norm in zip(found, norms.unbind(), strict=True)} | {
            "grad_norm/_global": whole
        }

    return Probe(every, watch)


@register("probe")
def activations(*, every: PositiveInt) -> Probe:
    """Return a probe of the outputs of each activation, in order of execution, in the step's first forward pass.

    `mean` and `std` are over all outputs. `dead` is the share of units (channels) that gave one value for the whole
    batch: for ReLU those that never fired. `saturated` is the share of outputs at the flat ends of the function, where
    it has ends: tanh beyond 0.99, sigmoid below 0.01 or above 0.99, ReLU at zero.
    """

    def watch(watched: Watched) -> Watch:
        with listening(watched.model) as heard:
            yield
        return heard

    return Probe(every, watch)


@contextmanager
def listening(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Give a mapping that fills with the statistics of a model's activations as they run."""
    heard: dict[str, Tensor] = {}
    passes: list[None] = []

    def listen(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        calls: list[None] = []  # a module may act at several places of one forward pass

        def hear(module: nn.Module, _: Any, output: Tensor) -> None:
            if len(passes) == 1:
                calls.append(None)
                place = name if len(calls) == 1 else f"{name}.call{len(calls)}"
                heard.update({f"activations/{place}/{what}": x for what, x in statistics(module, output).items()})

        return hear

    handles = [model.register_forward_pre_hook(lambda *_: passes.append(None))]
    handles += [m.register_forward_hook(listen(name or "model")) for name, m in model.named_modules() if acts(m)]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def acts(module: nn.Module) -> bool:
    """Tell whether a module is an activation: torch's own but attention, or one that says `activation = True`."""
    torchs = type(module).__module__ == nn.Tanh.__module__ and not isinstance(module, nn.MultiheadAttention)
    return torchs or getattr(module, "activation", None) is True


ENDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-0.99, 0.99),
    nn.Softsign: (-0.99, 0.99),
    nn.Sigmoid: (0.01, 0.99),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.ReLU: (0.0, torch.inf),
    nn.ReLU6: (0.0, 6.0),
}  # at or beyond these outputs the function is flat, or nearly


@torch.no_grad()
def statistics(module: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Return what is said of one activation's outputs (B, units), (B, C, H, W) or (B, tokens, units)."""
    output = output.detach().float()
    variance, mean = torch.var_mean(output, correction=0)
    unit = output.ndim - 1 if output.ndim == 3 else 1
    rest = [axis for axis in range(output.ndim) if axis != unit]
    said = {"mean": mean, "std": variance.sqrt()}
    if type(module) in ENDS:
        low, high = ENDS[type(module)]
        said["saturated"] = ((output <= low) | (output >= high)).float().mean()
    return said | {"dead": (output.amax(rest) == output.amin(rest)).float().mean()}


@register("probe")
def images(*, every: PositiveInt, count: PositiveInt) -> Probe:
    """Return a probe that shows the first `count` images of the batch as the model sees them."""

    def watch(watched: Watched) -> Watch:
        shown = {"images/batch": watched.images[:count].detach().clone()}
        yield
        return shown

    return Probe(every, watch)
