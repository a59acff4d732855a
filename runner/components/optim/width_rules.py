"""How an optimizer follows the width of a model: the factors of maximal update parametrization (`init=mup`).

Yang and Hu 2021 (arXiv 2011.14522) and Yang et al. 2022 (Tensor Programs V, arXiv 2203.03466, table 3), in the form
without multipliers in the forward pass. `in` and `out` are the inputs and outputs of a weight as multiples of those in
the base model; biases, norms and positions have 1 input.

| steps | learning rate | weight decay |
|---|---|---|
| proportional to the gradient (`_GRADIENT`) | out / in | in / out |
| of a size that is independent of the gradient's (`_NORMALIZED`) | 1 / in | L2: in / out; decoupled: in |

So a step changes the outputs of every layer by an amount that is independent of the width. L2 stays in proportion to
the gradient. Decoupled decay, which shrinks a weight by lr * weight_decay in a step, is independent of the width.
"""

from __future__ import annotations

from collections.abc import Callable

from runner.engine.width import WidthFactor, WidthRatio
from runner.errors import ConfigError

_Rule = Callable[[WidthRatio], WidthFactor]


def _gradient(ratio: WidthRatio) -> WidthFactor:
    """Return the factors for steps that are proportional to the gradient, with L2 regularization."""
    return WidthFactor(lr=ratio.fan_out / ratio.fan_in, weight_decay=ratio.fan_in / ratio.fan_out)


def _normalized(ratio: WidthRatio) -> WidthFactor:
    """Return the factors for steps whose size does not depend on the gradient's, with L2 regularization."""
    return WidthFactor(lr=1 / ratio.fan_in, weight_decay=ratio.fan_in / ratio.fan_out)


def _decoupled(ratio: WidthRatio) -> WidthFactor:
    """Return the factors for such steps with weight decay of lr * weight_decay."""
    return WidthFactor(lr=1 / ratio.fan_in, weight_decay=ratio.fan_in)


_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("sgd", "momentum", "nesterov", "schedulefree_sgd"), _gradient),
    **dict.fromkeys(("adam", "nadam", "adamax", "adagrad", "rmsprop"), _normalized),
    **dict.fromkeys(("adamw", "lion", "schedulefree"), _decoupled),
}
# Why runner's other optimizers have no rule
_NO_RULE = {
    "adafactor": "whose steps are relative to the size of the weights",
    "lamb": "whose steps are relative to the size of the weights",
    "muon": "whose steps are orthogonal matrices",
    "muon_sgd": "whose steps are orthogonal matrices",
    "radam": "whose first steps are proportional to the gradient and later ones are not",
}


def width_factor(optim: str, ratio: WidthRatio) -> WidthFactor:
    """Return the factors of an optimizer for a parameter.

    Raises:
        ConfigError: The optimizer has no rule.
    """
    if optim not in _RULES:
        why = f", {_NO_RULE[optim]}" if optim in _NO_RULE else ""
        raise ConfigError(
            f"init=mup: no rule for optim={optim}{why}; expected optim={', '.join(sorted(_RULES))}, "
            "or choose another init"
        )
    return _RULES[optim](ratio)
