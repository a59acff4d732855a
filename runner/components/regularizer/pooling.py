"""Fractional max pooling: pooling regions of random sizes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.places import counted
from runner.engine.contracts import Regularizer
from runner.engine.parts import fill, pool_calls
from runner.errors import ConfigError
from runner.registry import register

Size = tuple[int, ...]


class FractionalPool(nn.Module):
    """Two fractional 2x2 max poolings by about sqrt(2) each, to the size that the pooling they replace gives.

    At a ratio of exactly 2 nothing would be random. Maps too small for two get one, or the old pooling.
    """

    def __init__(self, replaced: nn.MaxPool2d) -> None:
        super().__init__()
        self.replaced = replaced

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps: random regions in training, fixed ones in evaluation."""
        size = tuple(x.shape[2:])
        target = tuple(self.replaced(x.new_empty(1, 1, *size, device="meta")).shape[2:])
        way = route(size, target)
        if not way:
            return self.replaced(x)  # type: ignore[no-any-return]
        for smaller in way:
            samples = None if self.training else x.new_full((*x.shape[:2], 2), 0.5)
            x = F.fractional_max_pool2d(x, 2, smaller, _random_samples=samples)
        return x


def route(size: Size, target: Size) -> list[Size]:
    """Return the sizes to pool to, one after the other, none if 2x2 regions do not fit."""
    between = tuple(round((n * m) ** 0.5) for n, m in zip(size, target, strict=True))
    if smaller(between, size) and smaller(target, between):
        return [between, target]
    return [target] if smaller(target, size) else []


def smaller(size: Size, other: Size) -> bool:
    """Tell whether a size is below another in both directions."""
    return all(n < m for n, m in zip(size, other, strict=True))


@register("regularizer")
def fractional_pooling() -> Regularizer:
    """Return fractional max pooling (Graham 2014, arXiv 1412.6071) in place of each max pooling that shrinks its maps.

    Overlapping 2x2 regions at random places, drawn for each example and channel; sizes stay what they were. Evaluation
    uses fixed regions. Raises ConfigError for a model without max pooling, or with some that is called as a function.
    """

    def rewire(model: nn.Module) -> str:
        if places := pool_calls(model):
            what = f"the model calls max_pool2d as a function at {counted(places)}, which it cannot replace"
            raise ConfigError(f"regularizer.fractional_pooling: {what}")
        sites = model.named_modules(remove_duplicate=False)
        found = [(name, m) for name, m in sites if isinstance(m, nn.MaxPool2d) and shrinks(m)]
        if not found:
            raise ConfigError("regularizer.fractional_pooling: the model has no max pooling to replace")
        for name, pool in found:
            fill(model, name, FractionalPool(pool))
        return f"fractional max pooling at {counted(len(found))}"

    return Regularizer(rewire=rewire)


def shrinks(pool: nn.MaxPool2d) -> bool:
    """Tell whether a pooling makes maps smaller in both directions."""
    stride = pool.stride if isinstance(pool.stride, tuple) else (pool.stride,)
    return min(stride) > 1
