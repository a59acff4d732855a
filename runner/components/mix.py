"""Blends of two images and of their labels, drawn once per batch from a key."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from runner.engine.contracts import Mix
from runner.engine.randomness import numpy_generator
from runner.registry import register
from runner.schema import Positive, Unit

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
def cutmix(num_classes: int, *, alpha: Positive, p: Unit) -> Mix:
    """Return images with one box of their partner pasted in, labels (B, K) weighed by the pasted share of pixels.

    The box covers a share 1 - w, w from Beta(alpha, alpha), round a uniform centre; what is outside the image is not
    pasted and does not count. Source: Yun et al. 2019, arXiv 1905.04899, section 3.1.
    """
    return with_partners(lambda images, other, random: paste(images, other, random, alpha), num_classes, p)


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


def span(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Return first and one past the last of about `share` of the pixels round a uniform one, clipped at the border."""
    cut = int(length * share)
    start = int(random.integers(length)) - cut // 2
    return max(0, start), min(length, start + cut)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return the labels as rows (B, K) float32 of zeros and a one."""
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
