"""Blends of two images and of their labels, drawn once per batch from a key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.contracts import Mix
from runner.engine.randomness import numpy_generator
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive, Unit

Shape = tuple[int, int, int]  # C, H, W
Blend = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor | float]]


@register("mix")
def none() -> Mix:
    """Leave images and labels as they are."""
    return lambda images, labels, key: (images, labels)


@register("mix")
def mixup(num_classes: int, *, alpha: Positive, p: Unit) -> Mix:
    """Return `w * image + (1 - w) * partner`, labels (B, K) likewise, with w from Beta(alpha, alpha).

    The batch is blended with itself in another order, with one w, as in the authors' code. A batch is left alone (with
    soft labels all the same) with probability 1 - p. Source: Zhang et al. 2017, arXiv 1710.09412.
    """
    return with_partners(lambda images, other, random: blend(images, other, random, alpha), num_classes, p)


@register("mix")
def cutmix(num_classes: int, shape: Shape, *, alpha: Positive, p: Unit) -> Mix:
    """Return images with one box of their partner pasted in, labels (B, K) weighed by the pasted share of pixels.

    The box covers a share 1 - w, w from Beta(alpha, alpha), round a uniform centre; what is outside the image is not
    pasted and does not count. Raises ConfigError for points. Source: Yun et al. 2019, arXiv 1905.04899, section 3.1.
    """
    check_pixels("cutmix", shape)
    return with_partners(lambda images, other, random: paste(images, other, random, alpha), num_classes, p)


@register("mix")
def saliencymix(num_classes: int, shape: Shape, *, alpha: Positive, p: Unit) -> Mix:
    """Return images with the box round their partner's most salient pixel pasted in at the same place.

    Size of the box and weights of the labels (B, K) are cutmix's. Salient is what stands out from its surroundings, at
    several distances. Raises ConfigError for points. Source: Uddin et al. 2020, arXiv 2006.01791, section 3.
    """
    check_pixels("saliencymix", shape)
    return with_partners(lambda images, other, random: paste_salient(images, other, random, alpha), num_classes, p)


@register("mix")
def mixup_or_cutmix(
    num_classes: int, shape: Shape, *, mixup_alpha: Positive, cutmix_alpha: Positive, cutmix_p: Unit, p: Unit
) -> Mix:
    """Return each batch blended by mixup or, with probability `cutmix_p`, pasted into by cutmix; labels (B, K).

    Raises ConfigError for points.
    """
    check_pixels("mixup_or_cutmix", shape)

    def either(images: Tensor, other: Tensor, random: np.random.Generator) -> tuple[Tensor, float]:
        if random.random() < cutmix_p:
            return paste(images, other, random, cutmix_alpha)
        return blend(images, other, random, mixup_alpha)

    return with_partners(either, num_classes, p)


def check_pixels(name: str, shape: Shape) -> None:
    """Raise ConfigError for points (images of one pixel), into which no box fits but the whole."""
    if shape[1:] == (1, 1):
        raise ConfigError(f"mix={name}: points (images of 1x1 pixel) have no boxes to paste; choose mix=mixup")


def with_partners(blended: Blend, num_classes: int, p: float) -> Mix:
    """Return a mix of a batch with itself in a random order; `blended` gives images and the partners' weight."""

    def mix(images: Tensor, labels: Tensor, key: int) -> tuple[Tensor, Tensor]:
        random = numpy_generator(key)
        soft = one_hot(labels, num_classes)
        if random.random() >= p:
            return images, soft
        other = torch.from_numpy(random.permutation(len(images))).to(images.device, non_blocking=True)
        mixed, weight = blended(images, other, random)
        return mixed, torch.lerp(soft, soft[other], weight)

    return mix


def blend(images: Tensor, other: Tensor, random: np.random.Generator, alpha: float) -> tuple[Tensor, float]:
    """Return mixup's images and the partners' weight."""
    weight = 1 - random.beta(alpha, alpha)
    return images.index_select(0, other).lerp_(images, 1 - weight), weight


def paste(images: Tensor, other: Tensor, random: np.random.Generator, alpha: float) -> tuple[Tensor, float]:
    """Return cutmix's images and the partners' weight, the share of pixels that are theirs."""
    height, width = images.shape[2:]
    side = np.sqrt(1 - random.beta(alpha, alpha))
    top, bottom = span(height, side, random)
    left, right = span(width, side, random)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].index_select(0, other)
    return mixed, (bottom - top) * (right - left) / (height * width)


def paste_salient(images: Tensor, other: Tensor, random: np.random.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Return saliencymix's images and the partners' weights (B, 1)."""
    height, width = images.shape[2:]
    side = float(np.sqrt(1 - random.beta(alpha, alpha)))
    peak = saliency(images).flatten(1).argmax(1).index_select(0, other)
    high = inside(peak // width, int(height * side), height)
    wide = inside(peak % width, int(width * side), width)
    box = high[:, :, None] & wide[:, None, :]
    mixed = torch.where(box[:, None], images.index_select(0, other), images)
    return mixed, box.flatten(1).float().mean(1, keepdim=True)


def inside(centre: Tensor, cut: int, length: int) -> Tensor:
    """Return (B, length) bool, true for the `cut` pixels round each centre (B,) that are not beyond the border."""
    distance = torch.arange(length, device=centre.device) - centre[:, None] + cut // 2
    return (distance >= 0) & (distance < cut)


def saliency(images: Tensor) -> Tensor:
    """Return (B, H, W): how far each pixel is from the mean of its surroundings, added up over their sizes.

    Centre against surround on the mean of the channels (Montabone & Soto 2010), the method of the paper's code.
    """
    grey = images.float().mean(1, keepdim=True)
    radii = [1, *(radius for radius in (2, 4, 8, 16, 32) if 2 * radius <= min(images.shape[2:]))]
    around = [F.avg_pool2d(grey, 2 * r + 1, 1, r, count_include_pad=False) for r in radii]
    return torch.stack([(grey - mean).abs() for mean in around]).sum(0)[:, 0]


def span(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Return first and one past the last of about `share` of the pixels round a uniform one, clipped at the border."""
    cut = int(length * share)
    start = int(random.integers(length)) - cut // 2
    return max(0, start), min(length, start + cut)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return the labels as rows (B, K) float32 of zeros and a one."""
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
