"""Dropout of units and weights, and the helpers that insert modules into a model's slots.

`p` is always the probability to drop, in [0, 1). `where` names slots: `head` (before the classifier), `fc` (after
hidden fully connected activations) and `block` (after convolutional blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.ramped import RampedDropout, Ramping, RampKnob
from runner.engine.clock import Clock
from runner.engine.contracts import Regularizer
from runner.engine.parts import Slot, fill, slots
from runner.engine.whole_draws import of_weights
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import HalfOpenUnit, NotEmpty

_Where = Annotated[list[Literal["head", "fc", "block"]], NotEmpty()]


@register("regularizer")
def dropout(clock: Clock | None, *, p: HalfOpenUnit, where: _Where, ramp: RampKnob) -> Regularizer:
    """Return inverted dropout: divide surviving units by 1 - p in training (Srivastava et al. 2014, section 10).

    Evaluation is unchanged.

    Args:
        clock: Length of the run; None in a model that only predicts, which has no ramp.
        p: Probability to drop a unit, in [0, 1).
        where: Slots to fill.
        ramp: Duration over which the probability grows linearly from 0 to `p`; null: `p` in each step.

    Raises:
        ConfigError: The model has no open slot of a kind.
    """
    ramping = Ramping(ramp, clock)

    def make() -> nn.Module:
        return ramping.follow(RampedDropout(p)) if ramping.steps else nn.Dropout(p)

    def rewire(model: nn.Module) -> str:
        places = fill_slots("regularizer.dropout.where", model, where, make)
        return f"dropout {p:g} at {count_places(places)} ({', '.join(where)}){ramping}"

    return Regularizer(rewire=rewire, at_step=ramping.at_step)


@register("regularizer")
def dropout2d(clock: Clock | None, *, p: HalfOpenUnit, ramp: RampKnob) -> Regularizer:
    """Return dropout of whole channels after convolutional blocks (SpatialDropout, Tompson et al. 2015, 1411.4280).

    The pixels of a channel resemble each other, so that dropping them one by one drops little. Surviving channels are
    divided by 1 - p. Evaluation is unchanged.

    Args:
        clock: Length of the run; None in a model that only predicts, which has no ramp.
        p: Probability to drop a channel of an example, in [0, 1).
        ramp: Duration over which the probability grows linearly from 0 to `p`; null: `p` in each step.

    Raises:
        ConfigError: The model has no convolutional blocks.
    """
    ramping = Ramping(ramp, clock)

    def make() -> nn.Module:
        return ramping.follow(RampedDropout(p, apart=2)) if ramping.steps else nn.Dropout2d(p)

    def rewire(model: nn.Module) -> str:
        places = fill_slots("regularizer.dropout2d", model, ["block"], make)
        return f"dropout2d {p:g} at {count_places(places)} (block){ramping}"

    return Regularizer(rewire=rewire, at_step=ramping.at_step)


class VanillaDropout(nn.Module):
    """Zero units with probability p in training, and multiply all by 1 - p in evaluation."""

    drops_at_random = True

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x (any shape) with zeros in training, scaled in evaluation."""
        return x * (torch.rand(x.shape, device=x.device) >= self.p) if self.training else x * (1 - self.p)

    def extra_repr(self) -> str:
        """Show p."""
        return f"p={self.p}"


@register("regularizer")
def dropout_vanilla(*, p: HalfOpenUnit, where: _Where) -> Regularizer:
    """Return dropout as first published: no scaling in training, a factor 1 - p in evaluation (arXiv 1207.0580).

    It has the same expectation as `dropout`, at 1 - p times its activations.

    Args:
        p: Probability to drop a unit, in [0, 1).
        where: Slots to fill.

    Raises:
        ConfigError: The model has no open slot of a kind.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_slots("regularizer.dropout_vanilla.where", model, where, lambda: VanillaDropout(p))
        return f"vanilla dropout {p:g} at {count_places(places)} ({', '.join(where)})"

    return Regularizer(rewire=rewire)


@register("regularizer")
def alpha_dropout(*, p: HalfOpenUnit, where: _Where) -> Regularizer:
    """Return alpha dropout: set units to SELU's saturation value, then restore mean and variance (arXiv 1706.02515).

    Made for `activation=selu`. Evaluation is unchanged.

    Args:
        p: Probability to drop a unit, in [0, 1).
        where: Slots to fill.

    Raises:
        ConfigError: The model has no open slot of a kind.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_slots("regularizer.alpha_dropout.where", model, where, lambda: nn.AlphaDropout(p))
        return f"alpha dropout {p:g} at {count_places(places)} ({', '.join(where)})"

    return Regularizer(rewire=rewire)


class DropConnectLinear(nn.Linear):
    """Linear layer that zeroes random weights in every training step."""

    drops_at_random = True
    drop: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (B, out) with some weights zero and the others scaled up."""
        with of_weights():
            weight = F.dropout(self.weight, self.drop, self.training)
        return F.linear(x, weight, self.bias)


class DropConnectConv2d(nn.Conv2d):
    """Convolution that zeroes random weights in every training step."""

    drops_at_random = True
    drop: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (B, out, H, W) with some weights zero and the others scaled up."""
        with of_weights():
            weight = F.dropout(self.weight, self.drop, self.training)
        out: Tensor = self._conv_forward(x, weight, self.bias)
        return out


_DROPCONNECT_CLASSES: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "linear": {nn.Linear: DropConnectLinear},
    "conv": {nn.Conv2d: DropConnectConv2d},
}


@register("regularizer")
def dropconnect(*, p: HalfOpenUnit, layers: Annotated[list[Literal["linear", "conv"]], NotEmpty()]) -> Regularizer:
    """Return DropConnect: zero random weights, not biases, in training (Wan et al. 2013).

    One mask per step serves the whole batch (the paper draws one per example). Surviving weights are divided by 1 - p.
    Evaluation uses all weights (the paper samples a Gaussian). Parameter names stay the same. Layers of other classes
    keep their weights (parametrized ones, the output of torch's attention); the summary counts them.

    Args:
        p: Probability to drop a weight, in [0, 1).
        layers: Kinds of layers: `linear`, `conv` or both.

    Raises:
        ConfigError: The model has no such layer.
    """

    def rewire(model: nn.Module) -> str:
        targets = {kind: [m for m in model.modules() if type(m) in _DROPCONNECT_CLASSES[kind]] for kind in layers}
        for kind, modules in targets.items():
            if not modules:
                raise ConfigError(f"regularizer.dropconnect.layers: the model has no plain {kind} layer")
            for module in modules:
                # A new class keeps parameters, hooks and names
                module.__class__ = _DROPCONNECT_CLASSES[kind][type(module)]
                module.drop = p  # type: ignore[assignment]
        total = sum(len(modules) for modules in targets.values())
        others = _count_others(model, layers)
        kept = f"; {others} of other classes not" if others else ""
        return f"dropconnect {p:g} at {count_places(total)} ({', '.join(targets)}){kept}"

    return Regularizer(rewire=rewire)


def _count_others(model: nn.Module, layers: Sequence[Literal["linear", "conv"]]) -> int:
    """Return the number of layers of these kinds whose class cannot be replaced: parametrized ones, among others."""
    plain = tuple(kind for word in layers for kind in _DROPCONNECT_CLASSES[word])
    replaced = tuple(kind for word in layers for kind in _DROPCONNECT_CLASSES[word].values())
    return sum(isinstance(module, plain) and not isinstance(module, replaced) for module in model.modules())


def fill_slots(key: str, model: nn.Module, where: Sequence[str], make: Callable[[], nn.Module]) -> int:
    """Fill every open slot of the kinds `where` with a module each and return their number.

    Raises:
        ConfigError: The model has no open slot of a kind; the message starts with the config key `key`.
    """
    targets = [(kind, slots(model, kind)) for kind in dict.fromkeys(where)]
    for kind, places in targets:
        if not places:
            raise missing_slot(key, model, kind)
    for _, places in targets:
        for name, _slot in places:
            fill(model, name, make())
    return sum(len(places) for _, places in targets)


def missing_slot(key: str, model: nn.Module, kind: str) -> ConfigError:
    """Return the error for a kind of slot that the model lacks or that another regularizer has filled."""
    free = sorted({m.where for m in model.modules() if isinstance(m, Slot)})
    return ConfigError(f"{key}: the model has no open slot '{kind}' (open slots: {', '.join(free) or 'none'})")


def count_places(places: int) -> str:
    """Return a count in words: `1 place`, `2 places`."""
    return f"{places} place{'s' if places != 1 else ''}"
