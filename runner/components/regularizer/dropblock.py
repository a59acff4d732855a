"""DropBlock: squares of feature maps are zeroed at random in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.places import counted, fill_all
from runner.engine.contracts import Regularizer
from runner.registry import register
from runner.schema import HalfOpenUnit, PositiveInt


class DropBlock(nn.Module):
    """Zero squares in each feature map and scale the rest, so that a share of about p is dropped.

    Own code because torchvision's refuses even squares, to which it shrinks its own on small maps.
    """

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
        rate = self.p * h * w / (size**2 * corners[0] * corners[1])  # eq. 1
        seeds = (torch.rand(b, c, *corners, device=x.device) < rate).to(x.dtype)
        kept = 1 - F.max_pool2d(F.pad(seeds, [size - 1] * 4), size, stride=1)
        return x * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp_min(1)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show p and the size."""
        return f"p={self.p}, size={self.size}"


@register("regularizer")
def dropblock(*, p: HalfOpenUnit, size: PositiveInt) -> Regularizer:
    """Return DropBlock after convolutional blocks (Ghiasi et al. 2018, arXiv 1810.12890, algorithm 1).

    Squares of `size` pixels (no larger than the map), drawn for each example and channel; blocks overlap, so that a
    little less than p is dropped. Evaluation changes nothing. Raises ConfigError for a model without blocks.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_all("regularizer.dropblock", model, ["block"], lambda: DropBlock(p, size))
        return f"dropblock {p:g} of size {size} at {counted(places)} (block)"

    return Regularizer(rewire=rewire)
