"""The masks of dropout layers, read by hooks; a compiled forward pass has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from runner.engine.invariants.evidence import few

_LAYERS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
# Units of a layer that are looked at
_UNITS = 4096
# Layers that are looked at
_MOST_LAYERS = 8


class Masks:
    """Hooks on dropout layers that keep which units their first call in a step drops."""

    def __init__(self, model: nn.Module) -> None:
        self._codes: dict[str, Tensor] = {}
        layers = [(name, m) for name, m in model.named_modules() if type(m) in _LAYERS and 0 < m.p < 1]
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(self._hook(f"mask {name}")) for name, layer in layers[:_MOST_LAYERS]
        ]

    def begin(self) -> None:
        """Forget the masks of the step before."""
        self._codes = {}

    def take(self) -> dict[str, Tensor]:
        """Return the masks of this step by layer: 1 dropped, 0 kept, 2 unknown since the input was zero."""
        return self._codes

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, key: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if key in self._codes or not layer.training or not isinstance(output, Tensor) or not args:
                return
            given, found = _units(layer, args[0]), _units(layer, output)
            self._codes[key] = torch.where(given == 0, 2, (found == 0).to(torch.int8)).to(torch.int8)

        return hook


def _units(layer: nn.Module, tensor: Tensor) -> Tensor:
    """Return few units of a tensor (n,): its elements, or one number for each channel that is dropped as a whole."""
    found = tensor.detach()
    if type(layer) is not nn.Dropout and found.ndim > 2:
        found = found.flatten(2).abs().amax(2)
    return few(found, _UNITS)
