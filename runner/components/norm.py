"""Normalization layers: a component returns a factory `(channels, dims) -> module`; a model calls it once per layer.

`dims` is 0 for features (B, C) and 2 for feature maps (B, C, H, W). All but `none` learn a scale, initially 1, and all
but `none` and `rms` a shift, initially 0, per channel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from runner.engine.contracts import NormMaker
from runner.engine.process_group import add_up
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive, PositiveInt, Unit


@register("norm")
def none() -> NormMaker:
    """Return a factory of identities; the model then gives the preceding layers a bias."""
    return lambda channels, dims: nn.Identity()


@register("norm")
def batch(*, momentum: Unit, eps: Positive, scale: bool) -> NormMaker:
    """Return a factory of batch norms: per-channel statistics over batch and pixels (arXiv 1502.03167, algorithm 1).

    Evaluation uses running statistics of the training batches.

    Args:
        momentum: Weight of the newest batch in the running statistics, in [0, 1].
        eps: Constant added to the variance, > 0.
        scale: Learn the scale. If false it stays 1: the layer after a ReLU can scale as well (arXiv 2404.00498).

    Returns:
        Factory of `BatchNorm2d` for (B, C, H, W) and `BatchNorm1d` for (B, C).
    """

    def make(channels: int, dims: int) -> nn.Module:
        kind = nn.BatchNorm2d if dims else nn.BatchNorm1d
        return _with_scale(kind(channels, eps=eps, momentum=momentum), scale)

    return make


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes. Each process adds its own loss to a total, which the gradient is of."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the sum."""
        return add_up(tensor.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of the gradients of all processes."""
        return add_up(gradient.clone())


class SyncBatchNorm(nn.SyncBatchNorm):
    """Torch's batch norm over the batches of all processes, which also exchanges statistics on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized features (B, C) or maps (B, C, H, W)."""
        if x.is_meta:
            # Shapes alone, which no exchange changes
            return torch.empty_like(x)
        if x.device.type != "cpu" or not (self.training and _several_processes()):
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        # As torch does on GPUs: statistics of half-precision inputs are float32
        exact = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = exact.new_full((1,), x.numel() // x.shape[1])
        total: Tensor = _SumOverProcesses.apply(torch.cat([exact.sum(axes), count]))
        n = total[-1].detach()
        mean = total[:-1] / n
        # After the mean: a difference of large squares would lose digits
        centered = exact - mean.view(shape)
        squares: Tensor = _SumOverProcesses.apply(centered.square().sum(axes))
        variance = squares / n
        self._update_statistics(mean.detach(), variance.detach() * n / (n - 1))
        scaled = centered * (variance + self.eps).rsqrt().view(shape)
        return (scaled * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum they are the means over all batches
        newest = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), newest)
        self.running_var.lerp_(variance.to(self.running_var.dtype), newest)


def synchronized(model: nn.Module) -> nn.Module:
    """Return a model whose batch norms have the statistics of all processes; parameters and buffers are the same."""
    for name, child in model.named_children():
        setattr(model, name, synchronized(child))
    if not isinstance(model, _BATCH_NORMS) or not model.track_running_stats:
        return model
    found = SyncBatchNorm(model.num_features, model.eps, model.momentum, model.affine)
    found._parameters, found._buffers = model._parameters, model._buffers
    found.training = model.training
    return found


def _several_processes() -> bool:
    """Return True if this process trains with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


@register("norm")
def sync_batch(*, momentum: Unit, eps: Positive, scale: bool) -> NormMaker:
    """Return a factory of batch norms whose statistics are over the batches of all processes.

    In one process it equals `batch`.

    Args:
        momentum: Weight of the newest batch in the running statistics, in [0, 1].
        eps: Constant added to the variance, > 0.
        scale: Learn the scale, as in `batch`.

    Returns:
        Factory of `SyncBatchNorm` for (B, C, H, W) and (B, C).
    """
    return lambda channels, dims: _with_scale(SyncBatchNorm(channels, eps=eps, momentum=momentum), scale)


def _with_scale(module: nn.Module, scale: bool) -> nn.Module:
    """Return a norm whose scale is learned, or frozen."""
    module.get_parameter("weight").requires_grad_(scale)
    return module


@register("norm")
def layer(*, eps: Positive) -> NormMaker:
    """Return a factory of layer norms: per-example statistics over channels and pixels (arXiv 1607.06450).

    Args:
        eps: Constant added to the variance, > 0.

    Returns:
        Factory of `GroupNorm(1)` for (B, C, H, W) and `LayerNorm` for (B, C).
    """

    def make(channels: int, dims: int) -> nn.Module:
        return nn.GroupNorm(1, channels, eps=eps) if dims else nn.LayerNorm(channels, eps=eps)

    return make


class RMSNorm(nn.RMSNorm):
    """Torch's RMS norm, computed in the type of its scale: under autocast torch's own would not be the fast one."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized features (..., C)."""
        return super().forward(x.to(self.weight.dtype))


class RMSNorm2d(nn.RMSNorm):
    """RMS norm over the channels of each pixel of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized maps (B, C, H, W)."""
        return super().forward(x.to(self.weight.dtype).movedim(1, -1)).movedim(-1, 1)


@register("norm")
def rms(*, eps: Positive) -> NormMaker:
    """Return a factory of RMS norms: divide by the root mean square over channels (arXiv 1910.07467, eq. 4).

    Nothing is subtracted, and there is no shift. In a feature map, each pixel has a root mean square of its own, where
    `layer` has one for all pixels.

    Args:
        eps: Constant added to the mean square, > 0.

    Returns:
        Factory of `RMSNorm` over the channels, for (B, C, H, W) and (B, C).
    """
    return lambda channels, dims: (RMSNorm2d if dims else RMSNorm)(channels, eps=eps)


@register("norm")
def instance(*, eps: Positive) -> NormMaker:
    """Return a factory of instance norms: statistics per example and channel over the pixels (arXiv 1607.08022).

    Args:
        eps: Constant added to the variance, > 0.

    Raises:
        ConfigError: A layer is fully connected (one value per channel has no variance).
    """

    def make(channels: int, dims: int) -> nn.Module:
        if not dims:
            raise ConfigError(f"norm=instance: a fully connected layer ({channels} features) has no pixels to average")
        return nn.InstanceNorm2d(channels, eps=eps, affine=True)

    return make


@register("norm")
def group(*, groups: PositiveInt, eps: Positive) -> NormMaker:
    """Return a factory of group norms: statistics per example and group of channels (arXiv 1803.08494).

    Args:
        groups: Number of groups, >= 1.
        eps: Constant added to the variance, > 0.

    Raises:
        ConfigError: `groups` does not divide the channels of every normalized layer.
    """

    def make(channels: int, dims: int) -> nn.Module:
        if channels % groups:
            raise ConfigError(
                f"norm.groups: got {groups}, must divide the {channels} channels of every normalized layer"
            )
        return nn.GroupNorm(groups, channels, eps=eps)

    return make
