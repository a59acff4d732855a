"""Structured dropout: squares of feature maps (DropBlock) and whole residual branches (stochastic depth)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.dropout import count_places, fill_slots, missing_slot
from runner.components.regularizer.ramped import RampedDropout, Ramping, RampKnob
from runner.engine.clock import Clock
from runner.engine.contracts import Regularizer
from runner.engine.parts import fill, slots
from runner.engine.ramps import Ramped
from runner.engine.whole_draws import drawn_for_all
from runner.registry import register
from runner.schema import HalfOpenUnit, PositiveInt


class DropBlock(Ramped):
    """Zero squares of each feature map and scale up the rest, so that about a share p is dropped.

    torchvision's version rejects even sizes, to which it shrinks its own on small maps.
    """

    def __init__(self, p: float, size: int, *, ramped: bool = False) -> None:
        super().__init__(p, ramped=ramped)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, H, W) with squares of zeros in training, x in evaluation."""
        if not self.training:
            return x
        b, c, h, w = x.shape
        size = min(self.size, h, w)
        corners = (h - size + 1, w - size + 1)
        # Equation 1 of the paper
        rate = self.rate * h * w / (size**2 * corners[0] * corners[1])

        def factors(examples: int) -> Tensor:
            seeds = (torch.rand(examples, c, *corners, device=x.device) < rate).to(x.dtype)
            kept = 1 - F.max_pool2d(F.pad(seeds, [size - 1] * 4), size, stride=1)
            return kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp_min(1)).to(x.dtype)

        # The share that is kept is that of the whole batch
        return x * drawn_for_all(b, factors)

    def extra_repr(self) -> str:
        """Return p and size for `repr`."""
        return f"p={self.p}, size={self.size}"


@register("regularizer")
def dropblock(clock: Clock | None, *, p: HalfOpenUnit, size: PositiveInt, ramp: RampKnob) -> Regularizer:
    """Return DropBlock after convolutional blocks (Ghiasi et al. 2018, arXiv 1810.12890, algorithm 1).

    Squares are drawn per example and channel. They overlap, so that slightly less than p is dropped. Evaluation is
    unchanged.

    Args:
        clock: Length of the run; None in a model that only predicts, which has no ramp.
        p: Share of each map to drop, in [0, 1).
        size: Side of a square in pixels of the map, >= 1; clipped to the map.
        ramp: Duration over which the share grows linearly from 0 to `p`, as in the paper; null: `p` in each step.

    Raises:
        ConfigError: The model has no convolutional blocks.
    """
    ramping = Ramping(ramp, clock)

    def make() -> nn.Module:
        return ramping.follow(DropBlock(p, size, ramped=True)) if ramping.steps else DropBlock(p, size)

    def rewire(model: nn.Module) -> str:
        places = fill_slots("regularizer.dropblock", model, ["block"], make)
        return f"dropblock {p:g} of size {size} at {count_places(places)} (block){ramping}"

    return Regularizer(rewire=rewire, at_step=ramping.at_step)


@register("regularizer")
def stochastic_depth(clock: Clock | None, *, p: HalfOpenUnit, ramp: RampKnob) -> Regularizer:
    """Return stochastic depth: drop residual branch l of L per example with probability p * l / L.

    In training surviving branches are divided by their survival probability; the paper scales in evaluation instead
    (Huang et al. 2016, arXiv 1603.09382, eq. 4).

    Args:
        clock: Length of the run; None in a model that only predicts, which has no ramp.
        p: Probability to drop the last branch, in [0, 1).
        ramp: Duration over which each probability grows linearly from 0, as in ScheduledDropPath (Zoph et al. 2018,
            arXiv 1707.07012); null: the same in each step.

    Raises:
        ConfigError: The model has no residual branches.
    """
    ramping = Ramping(ramp, clock)

    def rewire(model: nn.Module) -> str:
        from torchvision.ops import StochasticDepth

        places = slots(model, "residual")
        if not places:
            raise missing_slot("regularizer.stochastic_depth", model, "residual")
        for depth, (name, _) in enumerate(places, 1):
            own = p * depth / len(places)
            ramped = ramping.follow(RampedDropout(own, apart=1)) if ramping.steps else None
            fill(model, name, ramped or StochasticDepth(own, mode="row"))
        return f"stochastic depth {p / len(places):g} to {p:g} at {count_places(len(places))} (residual){ramping}"

    return Regularizer(rewire=rewire, at_step=ramping.at_step)
