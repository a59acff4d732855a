"""Probe of the gradient noise: how much the gradients of micro-batches differ (gradient accumulation)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from runner.engine.contracts import Numbers, Probe, Watch, Watched
from runner.engine.logs.derived import NOISE, SQUARED_GRADIENT
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import PositiveInt


@register("probe")
def gradient_noise(
    accumulate: int | None, has_penalties: bool | None, has_loss_scaler: bool | None, *, every: PositiveInt
) -> Probe:
    """Return a probe of the gradient noise scale from the micro-batches of a step (McCandlish et al. 2018, appendix A).

    The squared norms of the gradients of the micro-batches and of the whole batch give two estimates without bias: the
    squared norm of the true gradient, and the trace of the covariance of one example's gradient. Their ratio of moving
    averages is the batch size up to which larger batches save steps in proportion. The step has no extra pass; a
    measured one needs memory for one more gradient, in float32.

    Logs `gradient_noise/squared_gradient` and `gradient_noise/trace`, which may be negative, and
    `gradient_noise/batch_size`, the ratio of their averages, as long as it is positive.

    Raises:
        ConfigError: There are no micro-batches, or their gradients have more than the examples in them.
    """
    _check(accumulate, has_penalties, has_loss_scaler)

    def watch(watched: Watched) -> Watch:
        parts = [len(part) for part in watched.labels.chunk(accumulate or 1)]
        seen = [_Seen(p, len(parts)) for p in watched.parameters.values() if p.requires_grad]
        try:
            yield
        finally:
            for each in seen:
                each.handle.remove()
        seen = [each for each in seen if each.whole is not None]
        if len(parts) < 2 or not seen:
            return {}
        return {"gradient_noise": Numbers(_squares(seen), partial(_estimates, parts))}

    return Probe(every, watch)


def _check(accumulate: int | None, has_penalties: bool | None, has_loss_scaler: bool | None) -> None:
    """Raise ConfigError if a run has no micro-batches, or ones whose gradients do not come from examples alone."""
    key = "probe.gradient_noise"
    if accumulate == 1:
        raise ConfigError(f"{key}: needs micro-batches; set accumulate=2 and half of data.batch_size, the same step")
    if has_penalties:
        raise ConfigError(f"{key}: not supported with a penalty in the loss (regularizer), whose gradient has no noise")
    if has_loss_scaler:
        raise ConfigError(f"{key}: not supported with precision=fp16, whose loss scaler changes; choose bf16")


class _Seen:
    """The gradients of a parameter in the first passes of a step: sum of squared norms (), and the sum of all."""

    def __init__(self, parameter: nn.Parameter, passes: int) -> None:
        self.whole: Tensor | None = None
        self._left = passes
        self.squares: Tensor
        self.handle: RemovableHandle = parameter.register_hook(self._add)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _add(self, gradient: Tensor) -> None:
        """Add the gradient of a micro-batch; an update may compute further ones at other weights."""
        if not self._left:
            return
        self._left -= 1
        found = gradient.to(torch.float32) if gradient.dtype in (torch.bfloat16, torch.float16) else gradient
        square = found.square().sum()
        if self.whole is None:
            self.whole, self.squares = found.clone(), square
        else:
            self.whole += found
            self.squares = self.squares + square


@torch.no_grad()
def _squares(seen: list[_Seen]) -> list[Tensor]:
    """Return the sum () of the squared norms of the gradients of micro-batches, and that of the whole batch."""
    parts = torch.stack([each.squares for each in seen]).sum()
    whole = torch.stack([each.whole.square().sum() for each in seen if each.whole is not None]).sum()
    return [parts, whole]


def _estimates(sizes: list[int], measured: list[float]) -> Mapping[str, float]:
    """Return the two estimates by tag.

    A micro-batch of b of the B examples has a gradient g' with weight b / B. With the true gradient G and the trace S,
    E sum |g'|^2 = |G|^2 sum (b / B)^2 + S / B, and E |sum g'|^2 = |G|^2 + S / B; so the order of the parts is unneeded.
    """
    parts, whole = measured
    examples = sum(sizes)
    gradient = (whole - parts) / (1 - sum((size / examples) ** 2 for size in sizes))
    return {SQUARED_GRADIENT: gradient, NOISE: examples * (whole - gradient)}
