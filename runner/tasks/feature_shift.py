"""How far features on new data are from those that a model was trained on, by the running statistics of its norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.engine.batches import EvalBatches
from runner.engine.parts import BATCH_NORMS, mode


@dataclass
class _Sums:
    """Sums of the inputs of a norm and of their squares per channel, and the number of values of a channel."""

    first: Tensor
    second: Tensor
    count: int = 0

    def add(self, inputs: Tensor) -> None:
        """Add inputs (B, C, ...)."""
        x = inputs.detach().double().transpose(0, 1).flatten(1)
        self.first += x.sum(1).cpu()
        self.second += x.square().sum(1).cpu()
        self.count += x.shape[1]


@torch.no_grad()
def feature_shift(
    model: nn.Module, batches: EvalBatches, autocast: Callable[[], AbstractContextManager[None]]
) -> float | None:
    """Return the distance of features to those of the training, in standard deviations of these.

    For each channel at the input of a BatchNorm it is the Wasserstein distance of two normal distributions, that of
    the running statistics and that of these data: sqrt((difference of means)^2 + (difference of sds)^2) / sd. The
    distance is the median over all channels. None without a BatchNorm with running statistics.
    """
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS) and m.running_mean is not None]
    with mode(model, training=False), _summed(norms) as sums:
        for images, _ in batches:
            with autocast():
                model(images)
    found = [_distances(norm, own) for norm, own in sums.items() if own.count]
    return float(torch.cat(found).median()) if found else None


@contextmanager
def _summed(norms: Sequence[nn.Module]) -> Iterator[dict[nn.Module, _Sums]]:
    """Sum what norms read while the model runs."""
    sums = {norm: _Sums(*torch.zeros(2, len(norm.running_mean), dtype=torch.double)) for norm in norms}  # type: ignore[arg-type]
    handles = [norm.register_forward_pre_hook(lambda module, inputs: sums[module].add(inputs[0])) for norm in norms]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def _distances(norm: nn.Module, sums: _Sums) -> Tensor:
    """Return the distance of each channel (C,)."""
    mean, variance = (getattr(norm, name).detach().double().cpu() for name in ("running_mean", "running_var"))
    own = sums.first / sums.count
    spread = (sums.second / sums.count - own**2).clamp_min(0).sqrt()
    sd = (variance + float(norm.eps)).sqrt()  # type: ignore[arg-type]
    found: Tensor = ((own - mean) ** 2 + (spread - variance.sqrt()) ** 2).sqrt() / sd
    return found
