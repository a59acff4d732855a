"""How wide a model is next to its base model, and what follows for each parameter (`init=mup`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WidthRatio:
    """The inputs and the outputs of a parameter, each as a multiple of those in the base model.

    A side that does not grow with the width (pixels, classes) has 1. A vector has outputs only.
    """

    fan_in: float
    fan_out: float


@dataclass(frozen=True)
class WidthFactor:
    """The factors on the learning rate and the weight decay of a parameter."""

    lr: float
    weight_decay: float

    def title(self, *, decays: bool) -> str:
        """Return the factors in words, that on weight decay only if the parameter decays; empty if they are 1."""
        found = {"lr": self.lr, "weight decay": self.weight_decay if decays else 1.0}
        return ", ".join(f"{name} x{factor:g}" for name, factor in found.items() if factor != 1)

    @property
    def label(self) -> str:
        """Return the factor on the learning rate for a tag of the log; empty if it is 1."""
        return f"x{self.lr:g}" if self.lr != 1 else ""


SAME_WIDTH = WidthFactor(1.0, 1.0)
