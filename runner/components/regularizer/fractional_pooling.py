"""Fractional max pooling: pooling regions of random sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.dropout import count_places
from runner.engine.contracts import Regularizer
from runner.engine.parts import fill, pool_calls
from runner.errors import ConfigError
from runner.registry import register

_Size = tuple[int, ...]


class FractionalPool(nn.Module):
    """Two fractional 2x2 max poolings by about sqrt(2) each, to the output size of the pooling they replace.

    A ratio of exactly 2 would leave nothing random. Maps too small for two poolings get one, or the replaced pooling.
    """

    def __init__(self, replaced: nn.MaxPool2d) -> None:
        super().__init__()
        self.replaced = replaced

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps (B, C, H', W'): random regions in training, fixed ones in evaluation."""
        size = tuple(x.shape[2:])
        target = tuple(self.replaced(x.new_empty(1, 1, *size, device="meta")).shape[2:])
        way = _pooling_sizes(size, target)
        if not way:
            return self.replaced(x)  # type: ignore[no-any-return]
        for smaller in way:
            shape = (*x.shape[:2], 2)
            # As torch draws them by default, but where other processes of the run can draw them, too
            samples = torch.rand(shape, dtype=x.dtype, device=x.device) if self.training else x.new_full(shape, 0.5)
            x = F.fractional_max_pool2d(x, 2, smaller, _random_samples=samples)
        return x


def _pooling_sizes(size: _Size, target: _Size) -> list[_Size]:
    """Return the successive sizes to pool to; empty if 2x2 regions do not fit."""
    between = tuple(round((n * m) ** 0.5) for n, m in zip(size, target, strict=True))
    if _is_smaller(between, size) and _is_smaller(target, between):
        return [between, target]
    return [target] if _is_smaller(target, size) else []


def _is_smaller(size: _Size, other: _Size) -> bool:
    """Return True if a size is below another in both directions."""
    return all(n < m for n, m in zip(size, other, strict=True))


@register("regularizer")
def fractional_pooling() -> Regularizer:
    """Return fractional max pooling in place of each strided max pooling (Graham 2014, arXiv 1412.6071).

    Overlapping 2x2 regions are drawn per example and channel; output sizes stay the same. Evaluation uses fixed
    regions.

    Raises:
        ConfigError: The model has no strided max pooling, or calls it as a function.
    """

    def rewire(model: nn.Module) -> str:
        if places := pool_calls(model):
            what = f"the model calls max_pool2d as a function at {count_places(places)}, which it cannot replace"
            raise ConfigError(f"regularizer.fractional_pooling: {what}")
        sites = model.named_modules(remove_duplicate=False)
        pools = [(name, m) for name, m in sites if isinstance(m, nn.MaxPool2d) and _shrinks(m)]
        if not pools:
            raise ConfigError("regularizer.fractional_pooling: the model has no max pooling to replace")
        for name, pool in pools:
            fill(model, name, FractionalPool(pool))
        return f"fractional max pooling at {count_places(len(pools))}"

    return Regularizer(rewire=rewire)


def _shrinks(pool: nn.MaxPool2d) -> bool:
    """Return True if a pooling makes maps smaller in both directions."""
    stride = pool.stride if isinstance(pool.stride, tuple) else (pool.stride,)
    return min(stride) > 1
