"""Data-dependent initializations: `images` (B, C, H, W) are preprocessed training images on the device."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from runner.components.init.layers import Head, listed, make_init, set_biases, set_head
from runner.components.init.structured import dirac
from runner.components.init.unit_variance import scale_to_unit_variance
from runner.components.init.variance_scaling import kaiming
from runner.engine.contracts import Init
from runner.engine.parametrized import LayerWeight
from runner.engine.parts import add_note, standardizes_weight
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive

# Patches sampled per side of an image
_POSITIONS = 32
# Patches sampled in total: thousands per entry of a small patch's covariance
_PATCHES = 2**19


@register("init")
def lsuv(images: Tensor, *, bias: float, head: Head) -> Init:
    """Draw orthonormal weights, then divide each by its layer's output std: every layer has output variance 1.

    Layer-sequential unit variance (Mishkin and Matas 2015, arXiv 1511.06422, algorithm 1). Biases are zero while this
    is measured, so that a layer is linear and one division is exact where the paper iterates. It is measured as in a
    training step without dropout: a BatchNorm normalizes by the statistics of the images. A layer that is called
    several times is scaled at its first call, and of attention each projection is a layer.

    Args:
        images: Preprocessed training images (B, C, H, W).
        bias: Value of all biases, set afterwards.
        head: Classifier weights, set afterwards, see the package; null keeps the classifier's variance 1.

    Raises:
        ConfigError: All outputs of a layer are equal, or a parametrization or weight standardization fixes the size of
            its weight.
    """
    orthonormal = make_init(lambda layer: nn.init.orthogonal_(layer.weight), bias=0.0, head=None)

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        if any(map(standardizes_weight, model.modules())):
            raise ConfigError(
                "init=lsuv: not supported with weight standardization, which undoes the scale of a weight; choose "
                "another init"
            )
        orthonormal(model)
        unscaled = scale_to_unit_variance(model, images.cpu())
        if unscaled:
            add_note(model, f"init=lsuv: not scaled, because the forward pass does not call them: {listed(unscaled)}")
        set_biases(model, bias)
        set_head(model, head)

    return init


@register("init")
def whiten(
    images: Tensor, *, eps: Positive, rest: Literal["kaiming", "dirac"], frozen: bool, bias: float, head: Head
) -> Init:
    """Make the first convolution whiten image patches; draw the other layers as `rest` says.

    Its filters are the eigenvectors of the patches, largest first, each divided by sqrt(eigenvalue + eps), with both
    signs because an activation follows. Filters beyond twice the patch size stay as drawn (Page 2019, "How to train
    your ResNet 8"; arXiv 2404.00498).

    Args:
        images: Preprocessed training images (B, C, H, W).
        eps: Constant added to the eigenvalues, > 0.
        rest: Initialization of the other layers: `kaiming` or `dirac`.
        frozen: Keep the whitening filters fixed; their bias is trained.
        bias: Value of all biases.
        head: Classifier weights, see the package.

    Raises:
        ConfigError: The model has no convolution that reads the image, or its weight is standardized.
    """
    draw = (
        kaiming(mode="fan_in", gain="relu", bias=bias, head=head) if rest == "kaiming" else dirac(bias=bias, head=head)
    )

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        weight = None if conv is None else LayerWeight(conv, "first convolution", "weight")
        if conv is None or weight is None or conv.weight.shape[1] != images.shape[1] or weight.is_kept:
            raise ConfigError("init=whiten: the model has no convolution that reads the image; choose another init")
        draw(model)
        _set_filters(weight, _whitening_filters(images, conv.weight.shape[2:], eps)[: conv.out_channels // 2])
        for parameter in weight.parameters if frozen else ():
            parameter.requires_grad_(False)

    return init


def _set_filters(weight: LayerWeight, filters: Tensor) -> None:
    """Set the first filters of a convolution to the given ones with both signs."""
    if standardizes_weight(weight.module):
        raise ConfigError(
            "init=whiten: not supported with weight standardization of the first convolution, which changes the "
            "filters; choose another init"
        )
    both = torch.cat([filters, -filters])
    values = weight.read().detach().clone()
    values[: len(both)] = both.view(-1, *values.shape[1:])
    if not weight.write(values):
        raise ConfigError(
            f"init=whiten: not supported with the parametrization {weight.how} of the first convolution, "
            "which changes the filters; choose another init"
        )


def _whitening_filters(images: Tensor, kernel: torch.Size, eps: float) -> Tensor:
    """Return the eigenvectors of the patch covariance as rows (D, D), over sqrt(eigenvalue + eps), largest first."""
    stride = tuple(max(1, side // _POSITIONS) for side in images.shape[2:])
    each = math.prod((side - k) // s + 1 for side, k, s in zip(images.shape[2:], kernel, stride, strict=True))
    some = images[: max(1, _PATCHES // each)]
    # MPS has no float64
    some = some.cpu() if some.device.type == "mps" else some
    # Patches are (B, D, positions)
    patches = functional.unfold(some, tuple(kernel), stride=stride)
    covariance = patches.transpose(0, 1).flatten(1).double().cov()
    eigenvalues, vectors = torch.linalg.eigh(covariance.cpu())
    scaled: Tensor = vectors / (eigenvalues.clamp(min=0) + eps).sqrt()
    return scaled.T.flip(0).to(images.dtype)
