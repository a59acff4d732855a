"""Stochastic depth: residual branches are skipped at random in training."""

from __future__ import annotations

from torch import nn

from runner.components.regularizer.places import counted, missing
from runner.engine.contracts import Regularizer
from runner.engine.parts import fill, slots
from runner.registry import register
from runner.schema import HalfOpenUnit


@register("regularizer")
def stochastic_depth(*, p: HalfOpenUnit) -> Regularizer:
    """Return stochastic depth: residual branch l of L is dropped per example with probability p * l / L.

    Huang et al. 2016 (arXiv 1603.09382, eq. 4), with the surviving branches divided by their probability in training
    instead of scaled in evaluation. Raises ConfigError for a model without residual branches.
    """

    def rewire(model: nn.Module) -> str:
        from torchvision.ops import StochasticDepth

        places = slots(model, "residual")
        if not places:
            raise missing("regularizer.stochastic_depth", model, "residual")
        for depth, (name, _) in enumerate(places, 1):
            fill(model, name, StochasticDepth(p * depth / len(places), mode="row"))
        return f"stochastic depth {p / len(places):g} to {p:g} at {counted(len(places))} (residual)"

    return Regularizer(rewire=rewire)
