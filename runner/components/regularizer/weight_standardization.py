"""Weight standardization: convolutions whose filters have mean 0 and variance 1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from runner.components.regularizer.dropout import count_places
from runner.engine.contracts import Regularizer
from runner.engine.parts import is_norm
from runner.engine.weights import classifiers
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive


class StandardizedConv2d(nn.Conv2d):
    """Convolution that shifts and scales each filter to mean 0 and variance 1 before it uses it."""

    standardizes_weight = True
    weight_eps: float

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (B, out, H, W)."""
        # A batch norm of one example whose channels are the filters
        filters = self.weight.flatten(1)[None]
        standard = F.batch_norm(filters, None, None, training=True, eps=self.weight_eps)
        out: Tensor = self._conv_forward(x, standard.view_as(self.weight), self.bias)
        return out


@register("regularizer")
def weight_standardization(*, eps: Positive) -> Regularizer:
    """Return weight standardization of convolutions: filters of mean 0 and variance 1 (Qiao et al. 2019, 1903.10520).

    Made for `norm=group` with small batches; it works with every norm. Parameters keep their names and are the weights
    before standardization: those that an initialization draws and that decay. The classifier, and filters of a single
    weight, are left as they are. The summary counts them, and layers of other classes.

    Args:
        eps: Constant added to the variance of a filter, > 0.

    Raises:
        ConfigError: The model has no norm, so that nothing would set the size of its activations; or no convolution.
    """

    def rewire(model: nn.Module) -> str:
        if not any(map(is_norm, model.modules())):
            raise ConfigError(
                "regularizer.weight_standardization: requires a model with norms, which set the size of the outputs; "
                "choose norm=group"
            )
        heads = {head.module for head in classifiers(model)}
        convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in heads]
        chosen = [m for m in convolutions if type(m) is nn.Conv2d and m.weight[0].numel() > 1]
        if not chosen:
            raise ConfigError("regularizer.weight_standardization: the model has no plain convolution")
        for module in chosen:
            # A new class keeps parameters, hooks and names
            module.__class__ = StandardizedConv2d
            module.weight_eps = eps  # type: ignore[assignment]
        others = len(convolutions) - len(chosen)
        return f"weight standardization at {count_places(len(chosen))}{f'; {others} others not' if others else ''}"

    return Regularizer(rewire=rewire)
