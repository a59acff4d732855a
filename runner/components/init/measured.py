"""Initializations that look at data: they ask for `images` (B, C, H, W), preprocessed training images on the device."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from runner.components.init.layers import Head, initialization, set_biases, set_head
from runner.components.init.scaled import kaiming
from runner.components.init.structured import dirac
from runner.engine.contracts import Init
from runner.engine.parts import is_kept, mode
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive

POSITIONS = 32  # patches taken per side of an image
PATCHES = 2**19  # patches taken in all: thousands for each number of a small patch's covariance


@register("init")
def lsuv(images: Tensor, *, bias: float, head: Head) -> Init:
    """Draw orthonormal weights, then divide each by the spread of its layer's output: every layer gives variance 1.

    Layer-sequential unit variance (arXiv 1511.06422). Biases are zero while this is measured, so a layer is linear and
    one division is exact where the paper iterates. Norms are in evaluation mode.
    """
    orthonormal = initialization(lambda layer: nn.init.orthogonal_(layer.weight), bias=0.0, head=None)

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        orthonormal(model)
        layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)) and not is_kept(m.weight)]
        hooks = [layer.register_forward_hook(divide_by_spread) for layer in layers]
        with mode(model, training=False):
            model(images.cpu())
        for hook in hooks:
            hook.remove()
        set_biases(model, bias)
        set_head(model, head)

    return init


def divide_by_spread(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """Divide a layer's weight, and the output that goes on to the next, by the output's standard deviation."""
    std = output.std()
    layer.get_parameter("weight").div_(std)
    return output / std


@register("init")
def whiten(
    images: Tensor, *, eps: Positive, rest: Literal["kaiming", "dirac"], frozen: bool, bias: float, head: Head
) -> Init:
    """Draw the `rest` as He does or as `dirac`, but let the first convolution whiten the image's patches.

    Its filters are eigenvectors of the patches, each divided by the root of its eigenvalue plus `eps` and with both
    signs, since an activation follows; largest first, and filters beyond twice the size of a patch stay as drawn (Page
    2019, "How to train your ResNet 8"). With `frozen` the layer's weight is not trained, only its bias. Raises
    ConfigError for a model that has no convolution on the image itself.
    """
    draw = kaiming(mode="fan_in", bias=bias, head=head) if rest == "kaiming" else dirac(bias=bias, head=head)

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        if conv is None or conv.weight.shape[1] != images.shape[1] or is_kept(conv.weight):
            raise ConfigError("init=whiten: this model has no convolution of its own on the image; choose another init")
        draw(model)
        filters = whitening(images, conv.weight.shape[2:], eps)[: conv.out_channels // 2]
        both = torch.cat([filters, -filters])
        conv.weight[: len(both)] = both.view(-1, *conv.weight.shape[1:])
        if frozen:
            conv.weight.requires_grad_(False)

    return init


def whitening(images: Tensor, kernel: torch.Size, eps: float) -> Tensor:
    """Return the eigenvectors of the patches' covariance as rows (D, D), over sqrt(eigenvalue + eps), largest first."""
    stride = tuple(max(1, side // POSITIONS) for side in images.shape[2:])
    each = math.prod((side - k) // s + 1 for side, k, s in zip(images.shape[2:], kernel, stride, strict=True))
    some = images[: max(1, PATCHES // each)]
    some = some.cpu() if some.device.type == "mps" else some  # it has no float64
    patches = functional.unfold(some, tuple(kernel), stride=stride)  # (B, D, positions)
    covariance = patches.transpose(0, 1).flatten(1).double().cov()
    eigenvalues, vectors = torch.linalg.eigh(covariance.cpu())
    scaled: Tensor = vectors / (eigenvalues.clamp(min=0) + eps).sqrt()
    return scaled.T.flip(0).to(images.dtype)
