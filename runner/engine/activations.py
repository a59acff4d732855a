"""What the activations of a model give in one forward pass, and what gradient reaches them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Hear = Callable[[str, nn.Module, Tensor], None]  # (place, activation, its output)

NEAR_ZERO = 0.01  # an output is nearly zero below this size
BINS = 51
WIDE = 32  # columns from which on torch goes through a table at full speed on a CPU: fifty times that for 16

ENDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-0.99, 0.99),
    nn.Softsign: (-0.99, 0.99),
    nn.Sigmoid: (0.01, 0.99),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.ReLU: (0.0, torch.inf),
    nn.ReLU6: (0.0, 6.0),
}  # at or beyond these outputs the function is flat, or nearly


Places = list[tuple[str, nn.Module]]


def places(model: nn.Module) -> Places:
    """Return the activations of a model with their names."""
    return [(name or "model", module) for name, module in model.named_modules() if acts(module)]


@contextmanager
def listening(model: nn.Module, places: Places, hear: Hear) -> Iterator[None]:
    """Have `hear` told of each activation among `places` in the model's first forward pass, in order of execution.

    A place is the module's name; the second call of one module in the pass is `<name>.call2`.
    """
    passes: list[None] = []

    def listen(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        calls: list[None] = []  # a module may act at several places of one forward pass

        def heard(module: nn.Module, _: Any, output: Tensor) -> None:
            if len(passes) == 1:
                calls.append(None)
                hear(name if len(calls) == 1 else f"{name}.call{len(calls)}", module, output)

        return heard

    handles = [model.register_forward_pre_hook(lambda *_: passes.append(None))]
    handles += [module.register_forward_hook(listen(name)) for name, module in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def acts(module: nn.Module) -> bool:
    """Tell whether a module is an activation: torch's own but attention, or one that says `activation = True`."""
    torchs = type(module).__module__ == nn.Tanh.__module__ and not isinstance(module, nn.MultiheadAttention)
    return torchs or getattr(module, "activation", None) is True


@torch.no_grad()
def statistics(module: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Return what is said of one activation's outputs (B, units), (B, C, H, W) or (B, tokens, units)."""
    output = output.detach().float()
    mean = output.mean()
    std = torch.linalg.vector_norm(output - mean) / output.numel() ** 0.5  # seven times as fast as torch.std on a CPU
    said = {"mean": mean, "std": std}
    if type(module) in ENDS:
        low, high = ENDS[type(module)]
        flat = output.clone().le_(low)  # ones and zeros in floats, ten times as fast as bools on a CPU
        said["saturated"] = (flat if high == torch.inf else flat + output.clone().ge_(high)).mean()
    least, most = extremes(output, output.ndim - 1 if output.ndim == 3 else 1)
    return said | {"dead": (least == most).mean(dtype=torch.float32)}


def extremes(output: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest output of each unit, which lie along the axis `unit`."""
    units = output.shape[unit]
    if output.ndim == 2 and units >= WIDE:
        return output.amin(0), output.amax(0)
    last = output.movedim(unit, -1)
    if not last.is_contiguous():
        rest = [axis for axis in range(output.ndim) if axis != unit]
        return output.amin(rest), output.amax(rest)
    rows = last.reshape(-1, units)
    while rows.shape[1] < WIDE and rows.shape[0] % 2 == 0:
        rows = rows.reshape(len(rows) // 2, -1)
    least, most = rows.amin(0), rows.amax(0)
    return (least, most) if len(least) == units else (least.view(-1, units).amin(0), most.view(-1, units).amax(0))


@dataclass(frozen=True)
class Layer:
    """One activation on one batch: shares are of all its outputs, gradients those of each example's own loss."""

    name: str
    kind: str  # class of the module
    shape: tuple[int, ...]  # of one example's output
    mean: float
    std: float
    saturated: float | None  # at the flat ends; None where the function has not two of them
    zero: float  # exactly
    near_zero: float
    dead: float  # units with one value for the whole batch
    grad_std: float
    grad_norm: float  # root mean square over the examples of the L2 norm of an example's gradient
    counts: tuple[float, ...]  # of a histogram of what is not exactly zero
    edges: tuple[float, float]  # where the histogram begins and ends


@dataclass
class Heard:
    """One activation's output, to be described once the gradient is there."""

    name: str
    module: nn.Module
    output: Tensor


def measure(model: nn.Module, images: Tensor, cotangent: Callable[[Tensor, Tensor], Tensor]) -> list[Layer]:
    """Return what each activation of the model gives for a batch (B, ...), in order of execution.

    `cotangent(logits, last)` returns the scalar that is differentiated, from the model's output and that of its last
    activation. The model is run once, in the mode that it is in; its parameters get no gradient.
    """
    heard: list[Heard] = []
    with listening(model, places(model), lambda name, module, output: heard.append(Heard(name, module, output))):
        logits = model(images.detach().requires_grad_())  # so that frozen layers have gradients too
    if not heard:
        return []
    scalar = cotangent(logits, heard[-1].output)
    gradients = torch.autograd.grad(scalar, [each.output for each in heard], allow_unused=True)
    return [
        describe(each, torch.zeros_like(each.output) if gradient is None else gradient)
        for each, gradient in zip(heard, gradients, strict=True)
    ]


@torch.no_grad()
def describe(heard: Heard, gradient: Tensor) -> Layer:
    """Return one activation's numbers."""
    output = heard.output.detach().float()
    said = {name: float(value) for name, value in statistics(heard.module, output).items()}
    two_ended = ENDS.get(type(heard.module), (0.0, torch.inf))[1] < torch.inf
    counts, edges = histogram(output, ENDS.get(type(heard.module)))
    return Layer(
        name=heard.name,
        kind=type(heard.module).__name__,
        shape=tuple(output.shape[1:]),
        mean=said["mean"],
        std=said["std"],
        saturated=said["saturated"] if two_ended else None,
        zero=float((output == 0).float().mean()),
        near_zero=float((output.abs() < NEAR_ZERO).float().mean()),
        dead=said["dead"],
        grad_std=float(gradient.float().std(correction=0)),
        grad_norm=float(torch.linalg.vector_norm(gradient.float()) / len(gradient) ** 0.5),
        counts=counts,
        edges=edges,
    )


def histogram(output: Tensor, ends: tuple[float, float] | None) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Return how the values that are not zero spread over `BINS` bins, and the first and last edge.

    A function with two ends has bins over all of its range, any other over the values' own.
    """
    values = output[torch.isfinite(output) & (output != 0)].cpu()
    if values.numel() == 0:
        return (0.0,) * BINS, (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if ends is not None and ends[1] < torch.inf:
        low, high = (round(end) for end in ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return tuple(torch.histc(values, BINS, low, high).tolist()), (low, high)
