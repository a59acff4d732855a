"""What the layers give, seen from inside the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from runner.engine.contracts import Probe, Watch, Watched
from runner.registry import register
from runner.schema import PositiveInt


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
    mean = output.mean()
    std = torch.linalg.vector_norm(output - mean) / output.numel() ** 0.5  # seven times as fast as torch.std on a CPU
    unit = output.ndim - 1 if output.ndim == 3 else 1
    rest = [axis for axis in range(output.ndim) if axis != unit]
    said = {"mean": mean, "std": std}
    if type(module) in ENDS:
        low, high = ENDS[type(module)]
        flat = output <= low if high == torch.inf else (output <= low) | (output >= high)
        said["saturated"] = flat.mean(dtype=torch.float32)
    return said | {"dead": (output.amax(rest) == output.amin(rest)).mean(dtype=torch.float32)}
