"""DropConnect: weights, not units, are zeroed at random in training."""

from __future__ import annotations

from typing import Annotated, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.places import counted
from runner.engine.contracts import Regularizer
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import HalfOpenUnit, NotEmpty


class DropConnectLinear(nn.Linear):
    """A linear layer that draws the weights it uses anew in every training step."""

    drop: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with some weights zero and the others scaled up."""
        return F.linear(x, F.dropout(self.weight, self.drop, self.training), self.bias)


class DropConnectConv2d(nn.Conv2d):
    """A convolution that draws the weights it uses anew in every training step."""

    drop: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output with some weights zero and the others scaled up."""
        out: Tensor = self._conv_forward(x, F.dropout(self.weight, self.drop, self.training), self.bias)
        return out


TWINS: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "linear": {nn.Linear: DropConnectLinear},
    "conv": {nn.Conv2d: DropConnectConv2d},
}


@register("regularizer")
def dropconnect(*, p: HalfOpenUnit, layers: Annotated[list[Literal["linear", "conv"]], NotEmpty()]) -> Regularizer:
    """Return DropConnect on the weights (not the biases) of the layers named (Wan et al. 2013).

    One mask per step for the whole batch (the paper draws one per example), the weights that stay are divided by 1 - p,
    and evaluation uses all of them (the paper samples a Gaussian there). The names in the model's state stay as they
    were. Raises ConfigError where the model has no such layer.
    """

    def rewire(model: nn.Module) -> str:
        found = {kind: [m for m in model.modules() if type(m) in TWINS[kind]] for kind in layers}
        for kind, modules in found.items():
            if not modules:
                raise ConfigError(f"regularizer.dropconnect.layers: the model has no plain {kind} layer")
            for module in modules:
                module.__class__ = TWINS[kind][type(module)]  # keeps parameters, hooks and names as they are
                module.drop = p  # type: ignore[assignment]
        total = sum(len(modules) for modules in found.values())
        return f"dropconnect {p:g} at {counted(total)} ({', '.join(found)})"

    return Regularizer(rewire=rewire)
