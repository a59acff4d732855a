"""Scales the weights of a model's layers until each layer has output variance 1, in one forward pass (for `lsuv`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from runner.components.init.layers import WeightLayer, weight_layers
from runner.engine.parts import has_running_statistics, mode
from runner.errors import ConfigError


@torch.no_grad()
def scale_to_unit_variance(model: nn.Module, images: Tensor) -> list[str]:
    """Divide each layer's weight by the std of its output, in the order of the calls; return the layers not called.

    Biases are zero. Running statistics are afterwards what they were.
    """
    scaler = _Scaler(model)
    with _batch_statistics(model), ExitStack() as hooks:
        for handle in scaler.attach():
            hooks.callback(handle.remove)
        model(images)
    return scaler.unscaled()


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let norms use the statistics of the batch, as in training, and all else run as in evaluation."""
    norms = [module for module in model.modules() if has_running_statistics(module)]
    saved = [(buffer, buffer.clone()) for module in norms for buffer in module.buffers(recurse=False)]
    with mode(model, training=False):
        for module in norms:
            module.training = True
        yield
    for buffer, values in saved:
        buffer.copy_(values)


class _Scaler:
    """Hooks that scale each weight at the first call of its layer."""

    def __init__(self, model: nn.Module) -> None:
        self._layers: dict[nn.Module, list[WeightLayer]] = {}
        for layer in weight_layers(model):
            self._layers.setdefault(layer.module, []).append(layer)
        self._waiting = {layer.target.name for layers in self._layers.values() for layer in layers}

    def unscaled(self) -> list[str]:
        """Return the names of the weights that no call has scaled."""
        return sorted(self._waiting)

    def attach(self) -> Iterator[RemovableHandle]:
        """Yield the handles of the hooks."""
        # The projection behind attention is no module that attention calls
        behind: dict[nn.Module, nn.Module] = {
            m.out_proj: m for m in self._layers if isinstance(m, nn.MultiheadAttention)
        }
        for module, layers in self._layers.items():
            if isinstance(module, nn.MultiheadAttention):
                yield module.register_forward_pre_hook(self._before_attention(layers), with_kwargs=True)
            else:
                yield behind.get(module, module).register_forward_hook(self._after(layers[0]))

    def _after(self, layer: WeightLayer) -> Callable[[nn.Module, Any, Any], Any]:
        """Return a hook that scales a layer by its output, and the output with it."""

        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if layer.target.name not in self._waiting:
                return None
            first = output[0] if isinstance(output, tuple) else output
            std = self._scale([layer], [first])
            return (first / std, *output[1:]) if isinstance(output, tuple) else first / std

        return hook

    def _before_attention(self, layers: list[WeightLayer]) -> Callable[[nn.Module, Any, dict[str, Any]], None]:
        """Return a hook that scales the projections of query, key and value by what they will give."""

        def hook(module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
            if layers[0].target.name in self._waiting:
                given = {**dict(zip(("query", "key", "value"), inputs, strict=False)), **named}
                outputs = [
                    functional.linear(given[word], layer.weight)
                    for word, layer in zip(("query", "key", "value"), layers, strict=True)
                ]
                self._scale(layers, outputs)

        return hook

    def _scale(self, layers: list[WeightLayer], outputs: list[Tensor]) -> Tensor:
        """Divide weights by the stds of their outputs; return the last std."""
        std = torch.ones(())
        for layer, output in zip(layers, outputs, strict=True):
            name, std = layer.target.name, output.std()
            if not (std.isfinite() and std > 0):
                raise ConfigError(f"init=lsuv: all outputs of {name} are equal on the first batch; choose another init")
            layer.weight.div_(std)
            if not layer.store():
                raise ConfigError(
                    f"init=lsuv: not supported with the parametrization {layer.target.how} of {name}, "
                    "which fixes the size of the weight; choose another init"
                )
            self._waiting.discard(name)
        return std
