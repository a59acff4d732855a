"""Maximal update parametrization: the weights of a model of any width, so that learning rates carry over."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

from torch import nn

from runner.components.init.gains import Gain
from runner.components.init.layers import Head, set_head
from runner.components.init.variance_scaling import kaiming
from runner.engine.contracts import Init
from runner.engine.weights import classifiers
from runner.registry import register
from runner.relations import Divides
from runner.schema import PositiveInt


@register("init")
def mup(
    width_ratio: float | None,
    *,
    base_width: PositiveInt,
    base_heads: Annotated[PositiveInt | None, Divides("base_width")],
    gain: Gain,
    bias: float,
    head: Head,
) -> Init:
    """Draw Kaiming's weights with a smaller classifier, and set the learning rate of each parameter by its width.

    Maximal update parametrization (Yang and Hu 2021, arXiv 2011.14522; Yang et al. 2022, arXiv 2203.03466, table 3):
    hyperparameters that are tuned at one width are good at others. The base model is the same config with the model's
    first width at `base_width` and all others in the same ratio; there it equals `kaiming` with mode=fan_in. At r times
    its width, the standard deviation of the classifier is that of the base model over r. The factors on learning rates
    and weight decay depend on the optimizer (`runner/components/optim/width_rules.py`); attention divides its scores by
    the features of a head, not by their square root.

    Args:
        width_ratio: The model's first width over that of the base model; None counts as 1.
        base_width: Width of the base model: channels of the first stage, features of a token, or the first of a list.
        base_heads: Attention heads of the base model; null: as many as the model has.
        gain: Factor on the standard deviation, > 0, or whose it is, see `gains.py`.
        bias: Value of all biases.
        head: Classifier weights of the base model, see the package.
    """
    ratio = width_ratio or 1.0
    draw = kaiming(mode="fan_in", gain=gain, bias=bias, head=None)

    def init(model: nn.Module) -> None:
        draw(model)
        set_head(model, head, ratio)
        for weight in classifiers(model) if head is None and ratio != 1 else ():
            if not weight.is_kept:
                # Kaiming's standard deviation falls with the square root of the width already
                weight.write(weight.read().detach() / sqrt(ratio))

    return init
