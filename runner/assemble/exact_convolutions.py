"""Convolutions whose gradient torch computes wrongly in bfloat16 on the CPU, computed in float32 instead."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _ExactConv2d(nn.Conv2d):
    """A grouped convolution with a stride; images smaller than the stride are computed in float32.

    For them, oneDNN leaves a part of the weight's gradient in bfloat16 unwritten (torch 2.11 to 2.14, x86 with AVX-512
    for bfloat16): it holds whatever the memory held before, up to 1e38 or nan. Forward pass and inputs' gradient are
    right.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """Return the convolved maps (B, C', H', W')."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        is_large = all(size >= stride for size, stride in zip(input.shape[-2:], self.stride, strict=True))
        if is_large or dtype != torch.bfloat16:
            return super().forward(input)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast("cpu", enabled=False):
            maps = functional.conv2d(
                input.float(), self.weight.float(), bias, self.stride, self.padding, self.dilation, self.groups
            )
        return maps.to(dtype)


def replace_inexact(model: nn.Module) -> None:
    """Give the convolutions of a model on the CPU that are wrong in bfloat16 another class; names and weights stay."""
    for module in model.modules():
        grouped = type(module) is nn.Conv2d and module.groups > 1 and max(module.stride) > 1
        if grouped and module.padding_mode == "zeros" and module.weight.device.type == "cpu":
            module.__class__ = _ExactConv2d
