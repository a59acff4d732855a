"""Structured dropout: squares of feature maps (DropBlock) and whole residual branches (stochastic depth)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.dropout import count_places, fill_slots, missing_slot
from runner.engine.contracts import Regularizer
from runner.engine.parts import fill, slots
from runner.registry import register
from runner.schema import HalfOpenUnit, PositiveInt


class DropBlock(nn.Module):
    """Zero squares of each feature map and scale up the rest, so that about a share p is dropped.

    torchvision's version rejects even sizes, to which it shrinks its own on small maps.
    """

    drops_at_random = True

    def __init__(self, p: float, size: int) -> None:
        super().__init__()
        self.p, self.size = p, size

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W) with squares of zeros in training, x in evaluation."""
        if not self.training:
            return x
        b, c, h, w = x.shape
        size = min(self.size, h, w)
        corners = (h - size + 1, w - size + 1)
        # Equation 1 of the paper
        rate = self.p * h * w / (size**2 * corners[0] * corners[1])
        seeds = (torch.rand(b, c, *corners, device=x.device) < rate).to(x.dtype)
        kept = 1 - F.max_pool2d(F.pad(seeds, [size - 1] * 4), size, stride=1)
        return x * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp_min(1)).to(x.dtype)

    def extra_repr(self) -> str:
        """Return p and size for `repr`."""
        return f"p={self.p}, size={self.size}"


@register("regularizer")
def dropblock(*, p: HalfOpenUnit, size: PositiveInt) -> Regularizer:
    """Return DropBlock after convolutional blocks (Ghiasi et al. 2018, arXiv 1810.12890, algorithm 1).

    Squares are drawn per example and channel. They overlap, so that slightly less than p is dropped. Evaluation is
    unchanged.

    Args:
        p: Share of each map to drop, in [0, 1).
        size: Side of a square in pixels of the map, >= 1; clipped to the map.

    Raises:
        ConfigError: The model has no convolutional blocks.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_slots("regularizer.dropblock", model, ["block"], lambda: DropBlock(p, size))
        return f"dropblock {p:g} of size {size} at {count_places(places)} (block)"

    return Regularizer(rewire=rewire)


@register("regularizer")
def stochastic_depth(*, p: HalfOpenUnit) -> Regularizer:
    """Return stochastic depth: drop residual branch l of L per example with probability p * l / L.

    In training surviving branches are divided by their survival probability; the paper scales in evaluation instead
    (Huang et al. 2016, arXiv 1603.09382, eq. 4).

    Args:
        p: Probability to drop the last branch, in [0, 1).

    Raises:
        ConfigError: The model has no residual branches.
    """

    def rewire(model: nn.Module) -> str:
        from torchvision.ops import StochasticDepth

        places = slots(model, "residual")
        if not places:
            raise missing_slot("regularizer.stochastic_depth", model, "residual")
        for depth, (name, _) in enumerate(places, 1):
            fill(model, name, StochasticDepth(p * depth / len(places), mode="row"))
        return f"stochastic depth {p / len(places):g} to {p:g} at {count_places(len(places))} (residual)"

    return Regularizer(rewire=rewire)
