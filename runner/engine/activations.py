"""Statistics of the activations of a model in one forward pass, and of the gradients that reach them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_Listener = Callable[[str, nn.Module, Tensor], None]  # (name of the call, activation module, its output)

# Absolute value below which an output is nearly zero.
_NEAR_ZERO = 0.01
_BINS = 51
# Columns from which on torch reduces a table at full speed on a CPU: fifty times the speed at 16 columns.
_WIDE = 32

# Outputs at or beyond which the function is flat, or nearly.
ENDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-0.99, 0.99),
    nn.Softsign: (-0.99, 0.99),
    nn.Sigmoid: (0.01, 0.99),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.ReLU: (0.0, torch.inf),
    nn.ReLU6: (0.0, 6.0),
}

_Places = list[tuple[str, nn.Module]]


def places(model: nn.Module) -> _Places:
    """Return the activation modules of a model with their names."""
    return [(name or "model", module) for name, module in model.named_modules() if acts(module)]


@contextmanager
def listening(model: nn.Module, places: _Places, listener: _Listener) -> Iterator[None]:
    """Call `listener` for each activation among `places` in the model's first forward pass, in order of execution.

    The name of a call is the module's; the second call of a module in the pass is `<name>.call2`.
    """
    passes: list[None] = []

    def listen(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        # One forward pass may call a module several times.
        calls: list[None] = []

        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            if len(passes) == 1:
                calls.append(None)
                listener(name if len(calls) == 1 else f"{name}.call{len(calls)}", module, output)

        return hook

    handles = [model.register_forward_pre_hook(lambda *_: passes.append(None))]
    handles += [module.register_forward_hook(listen(name)) for name, module in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def acts(module: nn.Module) -> bool:
    """Return whether a module is an activation: one of torch's (not attention), or one with `activation = True`."""
    torchs = type(module).__module__ == nn.Tanh.__module__ and not isinstance(module, nn.MultiheadAttention)
    return torchs or getattr(module, "activation", None) is True


@torch.no_grad()
def statistics(module: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Return the statistics of an activation's output (B, units), (B, C, H, W) or (B, tokens, units), as 0-dim tensors.

    Returns:
        `mean`, `std`; `dead`, the share of units with one value for the whole batch; `saturated`, the share of outputs
        at the flat ends, for functions in `ENDS`.
    """
    output = output.detach().float()
    mean = output.mean()
    # Seven times as fast as torch.std on a CPU.
    std = torch.linalg.vector_norm(output - mean) / output.numel() ** 0.5
    found = {"mean": mean, "std": std}
    if type(module) in ENDS:
        low, high = ENDS[type(module)]
        # Ones and zeros as floats: ten times as fast as bools on a CPU.
        flat = output.clone().le_(low)
        found["saturated"] = (flat if high == torch.inf else flat + output.clone().ge_(high)).mean()
    least, most = extremes(output, output.ndim - 1 if output.ndim == 3 else 1)
    return found | {"dead": (least == most).mean(dtype=torch.float32)}


def extremes(output: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest output of each unit; the units lie along the axis `unit`."""
    units = output.shape[unit]
    if output.ndim == 2 and units >= _WIDE:
        return output.amin(0), output.amax(0)
    last = output.movedim(unit, -1)
    if not last.is_contiguous():
        rest = [axis for axis in range(output.ndim) if axis != unit]
        return output.amin(rest), output.amax(rest)
    rows = last.reshape(-1, units)
    while rows.shape[1] < _WIDE and rows.shape[0] % 2 == 0:
        rows = rows.reshape(len(rows) // 2, -1)
    least, most = rows.amin(0), rows.amax(0)
    return (least, most) if len(least) == units else (least.view(-1, units).amin(0), most.view(-1, units).amax(0))


@dataclass(frozen=True)
class Layer:
    """One activation on one batch: shares of all its outputs, gradients of each example's own loss."""

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
class _Output:
    """An activation's output, kept until its gradient is known."""

    name: str
    module: nn.Module
    output: Tensor


def measure(model: nn.Module, images: Tensor, cotangent: Callable[[Tensor, Tensor], Tensor]) -> list[Layer]:
    """Return the numbers of each activation of the model for a batch, in order of execution.

    The model runs once, in its present mode; its parameters get no gradient.

    Args:
        model: The model.
        images: The batch (B, ...).
        cotangent: Returns the scalar to differentiate from the model's output and the output of its last activation.
    """
    heard: list[_Output] = []
    with listening(model, places(model), lambda name, module, output: heard.append(_Output(name, module, output))):
        # An input that requires a gradient gives frozen layers gradients too.
        logits = model(images.detach().requires_grad_())
    if not heard:
        return []
    scalar = cotangent(logits, heard[-1].output)
    gradients = torch.autograd.grad(scalar, [each.output for each in heard], allow_unused=True)
    return [
        _describe(each, torch.zeros_like(each.output) if gradient is None else gradient)
        for each, gradient in zip(heard, gradients, strict=True)
    ]


@torch.no_grad()
def _describe(heard: _Output, gradient: Tensor) -> Layer:
    """Return the numbers of one activation."""
    output = heard.output.detach().float()
    numbers = {name: float(value) for name, value in statistics(heard.module, output).items()}
    two_ended = ENDS.get(type(heard.module), (0.0, torch.inf))[1] < torch.inf
    counts, edges = _histogram(output, ENDS.get(type(heard.module)))
    return Layer(
        name=heard.name,
        kind=type(heard.module).__name__,
        shape=tuple(output.shape[1:]),
        mean=numbers["mean"],
        std=numbers["std"],
        saturated=numbers["saturated"] if two_ended else None,
        zero=float((output == 0).float().mean()),
        near_zero=float((output.abs() < _NEAR_ZERO).float().mean()),
        dead=numbers["dead"],
        grad_std=float(gradient.float().std(correction=0)),
        grad_norm=float(torch.linalg.vector_norm(gradient.float()) / len(gradient) ** 0.5),
        counts=counts,
        edges=edges,
    )


def _histogram(output: Tensor, ends: tuple[float, float] | None) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Return the counts of the nonzero values in `_BINS` bins, and the first and last edge.

    The bins cover the range of a function with two flat ends, else the range of the values.
    """
    values = output[torch.isfinite(output) & (output != 0)].cpu()
    if values.numel() == 0:
        return (0.0,) * _BINS, (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if ends is not None and ends[1] < torch.inf:
        low, high = (round(end) for end in ends)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return tuple(torch.histc(values, _BINS, low, high).tolist()), (low, high)
