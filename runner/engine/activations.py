"""Statistics of a model's activations in one forward pass, and of the gradients at their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_Hook = Callable[[str, nn.Module, Tensor], None]  # (name of the call, activation module, its output)

# Absolute value below which an output is nearly zero.
_NEAR_ZERO = 0.01
_BINS = 51
# On a CPU torch reduces a matrix along its rows 50 times as fast with 32 columns as with 16.
_MIN_COLUMNS = 32

# An output at or beyond these bounds is saturated: there the function is (nearly) flat. The zeros of ReLU and ReLU6
# do not count: they are what these are for, and `dead` counts the units that give nothing else.
SATURATION: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-0.99, 0.99),
    nn.Softsign: (-0.99, 0.99),
    nn.Sigmoid: (0.01, 0.99),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.ReLU6: (-torch.inf, 6.0),
}

_NamedModules = list[tuple[str, nn.Module]]


def activation_modules(model: nn.Module) -> _NamedModules:
    """Return the activation modules of a model with their names."""
    return [(name or "model", module) for name, module in model.named_modules() if is_activation(module)]


@contextmanager
def activation_hooks(model: nn.Module, modules: _NamedModules, hook: _Hook) -> Iterator[None]:
    """Call `hook` after each call of `modules` in the model's first forward pass, in order of execution.

    The hook gets the name of the module; the second call of a module in the pass is named `<name>.call2`.
    """
    passes: list[None] = []

    def forward_hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        # One forward pass may call a module several times.
        calls: list[None] = []

        def call_hook(module: nn.Module, _: Any, output: Tensor) -> None:
            if len(passes) == 1:
                calls.append(None)
                hook(name if len(calls) == 1 else f"{name}.call{len(calls)}", module, output)

        return call_hook

    handles = [model.register_forward_pre_hook(lambda *_: passes.append(None))]
    handles += [module.register_forward_hook(forward_hook(name)) for name, module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_activation(module: nn.Module) -> bool:
    """Return True for torch's activations and for modules with the attribute `activation = True`."""
    # torch defines MultiheadAttention in the same file as its activations.
    of_torch = type(module).__module__ == nn.Tanh.__module__ and not isinstance(module, nn.MultiheadAttention)
    return of_torch or getattr(module, "activation", None) is True


@torch.no_grad()
def statistics(module: nn.Module, output: Tensor) -> dict[str, Tensor]:
    """Return the statistics of an activation's output as 0-dim tensors on its device.

    Args:
        module: The activation.
        output: Its output: (B, units), (B, C, H, W) or (B, tokens, units).

    Returns:
        `mean` and `std` over all outputs; `dead`, the share of units with the same value for the whole batch;
        `saturated`, the share of outputs at or beyond the bounds in `SATURATION`, for the functions listed there.
    """
    output = output.detach().float()
    mean = output.mean()
    # Seven times as fast as torch.std on a CPU.
    std = torch.linalg.vector_norm(output - mean) / output.numel() ** 0.5
    stats = {"mean": mean, "std": std}
    if type(module) in SATURATION:
        low, high = SATURATION[type(module)]
        # The comparison as float ones and zeros is ten times as fast as with bools on a CPU.
        stats["saturated"] = (output.clone().le_(low) + output.clone().ge_(high)).mean()
    smallest, largest = unit_extremes(output, output.ndim - 1 if output.ndim == 3 else 1)
    return stats | {"dead": (smallest == largest).mean(dtype=torch.float32)}


def unit_extremes(output: Tensor, unit: int) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest output of each unit, each (units,).

    Args:
        output: An activation's output.
        unit: The axis of the units (channels).
    """
    units = output.shape[unit]
    if output.ndim == 2 and units >= _MIN_COLUMNS:
        return output.amin(0), output.amax(0)
    last = output.movedim(unit, -1)
    if not last.is_contiguous():
        other_axes = [axis for axis in range(output.ndim) if axis != unit]
        return output.amin(other_axes), output.amax(other_axes)
    # Several rows are joined into one until the matrix has enough columns.
    rows = last.reshape(-1, units)
    while rows.shape[1] < _MIN_COLUMNS and rows.shape[0] % 2 == 0:
        rows = rows.reshape(len(rows) // 2, -1)
    low, high = rows.amin(0), rows.amax(0)
    return (low, high) if len(low) == units else (low.view(-1, units).amin(0), high.view(-1, units).amax(0))


@dataclass(frozen=True)
class Layer:
    """The statistics of one activation on one batch.

    Attributes:
        name: The name of the module, with `.call2` for its second call.
        kind: The class of the module.
        shape: The shape of one example's output.
        mean: The mean over all outputs.
        std: The standard deviation over all outputs.
        saturated: The share of saturated outputs; None unless the function is in `SATURATION`.
        zero: The share of outputs that are exactly zero.
        near_zero: The share of outputs of an absolute value below 0.01.
        dead: The share of units with the same value for the whole batch.
        grad_std: The standard deviation of the gradient at the outputs.
        grad_norm: The root mean square over the examples of the L2 norm of an example's gradient.
        counts: The histogram of the nonzero outputs.
        edges: The first and the last edge of the histogram.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    std: float
    saturated: float | None
    zero: float
    near_zero: float
    dead: float
    grad_std: float
    grad_norm: float
    counts: tuple[float, ...]
    edges: tuple[float, float]


@dataclass
class _Output:
    """An activation's output, kept until its gradient is known."""

    name: str
    module: nn.Module
    output: Tensor


def measure(model: nn.Module, images: Tensor, objective: Callable[[Tensor, Tensor], Tensor]) -> list[Layer]:
    """Return the statistics of each activation of the model on a batch, in order of execution.

    The model runs one forward and one backward pass in its current mode. The `grad` of its parameters does not change.

    Args:
        model: The model.
        images: The batch (B, ...).
        objective: (logits, output of the last activation) -> scalar to differentiate.
    """
    outputs: list[_Output] = []

    def keep(name: str, module: nn.Module, output: Tensor) -> None:
        outputs.append(_Output(name, module, output))

    with activation_hooks(model, activation_modules(model), keep):
        # An input that requires a gradient gives frozen layers gradients too.
        logits = model(images.detach().requires_grad_())
    if not outputs:
        return []
    scalar = objective(logits, outputs[-1].output)
    gradients = torch.autograd.grad(scalar, [each.output for each in outputs], allow_unused=True)
    return [
        _describe(each, torch.zeros_like(each.output) if gradient is None else gradient)
        for each, gradient in zip(outputs, gradients, strict=True)
    ]


@torch.no_grad()
def _describe(call: _Output, gradient: Tensor) -> Layer:
    """Return the statistics of one call of an activation; `gradient` has the shape of its output."""
    output = call.output.detach().float()
    stats = {name: float(value) for name, value in statistics(call.module, output).items()}
    bounds = SATURATION.get(type(call.module))
    counts, edges = _histogram(output, bounds)
    return Layer(
        name=call.name,
        kind=type(call.module).__name__,
        shape=tuple(output.shape[1:]),
        mean=stats["mean"],
        std=stats["std"],
        saturated=stats.get("saturated"),
        zero=float((output == 0).float().mean()),
        near_zero=float((output.abs() < _NEAR_ZERO).float().mean()),
        dead=stats["dead"],
        grad_std=float(gradient.float().std(correction=0)),
        grad_norm=float(torch.linalg.vector_norm(gradient.float()) / len(gradient) ** 0.5),
        counts=counts,
        edges=edges,
    )


def _histogram(output: Tensor, bounds: tuple[float, float] | None) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Return the counts of the finite nonzero values in `_BINS` bins, and the first and last edge.

    The bins cover the range of the function if both its bounds are finite, else the range of the values.
    """
    values = output[torch.isfinite(output) & (output != 0)].cpu()
    if values.numel() == 0:
        return (0.0,) * _BINS, (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if bounds is not None and bounds[0] > -torch.inf:
        low, high = (round(bound) for bound in bounds)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return tuple(torch.histc(values, _BINS, low, high).tolist()), (low, high)
