"""Mixing augmentations: combine each image and label of a batch with another one, drawn from a random key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.clock import Clock
from runner.engine.contracts import Mix
from runner.engine.randomness import numpy_generator
from runner.errors import ConfigError
from runner.registry import register, shared_knobs
from runner.relations import InRun
from runner.schema import Duration, Positive, Unit

# (C, H, W)
_Shape = tuple[int, int, int]
_Until = Annotated[Duration, InRun(before=True)]
_Blend = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor | float]]


@dataclass(frozen=True)
class _MixUntil:
    """A mix of the first `end` steps of a run; without an end, of all."""

    mix: Mix
    end: int | None

    def __call__(self, images: Tensor, labels: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Return mixed images and labels."""
        return self.mix(images, labels, key)


@shared_knobs
class _Mixing:
    """The choice of batches that are mixed, from the knobs that all mixes share; a mix asks for `mixing`.

    Args:
        num_classes: number of classes K.
        clock: the length of the run.
        p: probability to mix a batch, in [0, 1]; an unmixed one has soft labels (B, K), too.
        until: duration after which no batch is mixed, as with `mix=none`; null is never.
    """

    def __init__(self, num_classes: int, clock: Clock, *, p: Unit, until: _Until | None) -> None:
        self._num_classes, self._p = num_classes, p
        self._end = None if until is None else max(1, clock.steps(until))

    def with_permutation(self, blended: _Blend) -> Mix:
        """Return a mix of a batch with a permutation of itself; `blended` returns images and the partners' weight."""

        def mix(images: Tensor, labels: Tensor, key: int) -> tuple[Tensor, Tensor]:
            random = numpy_generator(key)
            soft = _one_hot(labels, self._num_classes)
            if random.random() >= self._p:
                return images, soft
            other = torch.from_numpy(random.permutation(len(images))).to(images.device, non_blocking=True)
            mixed, weight = blended(images, other, random)
            return mixed, torch.lerp(soft, soft[other], weight)

        return _MixUntil(mix, self._end)


@register("mix")
def none() -> Mix:
    """Return images and labels unchanged."""
    return lambda images, labels, key: (images, labels)


@register("mix")
def mixup(mixing: _Mixing, *, alpha: Positive) -> Mix:
    """Return mixup: `w * image + (1 - w) * partner`, labels likewise (Zhang et al. 2017, arXiv 1710.09412, eq. 1).

    As in the authors' code, a batch is mixed with a permutation of itself, with one weight per batch.

    Args:
        mixing: Which batches are mixed.
        alpha: Parameter of Beta(alpha, alpha), which w is drawn from, > 0.

    Returns:
        Images (B, C, H, W) and soft labels (B, K), also for batches left unmixed.
    """
    return mixing.with_permutation(lambda images, other, random: _mixup(images, other, random, alpha))


@register("mix")
def cutmix(mixing: _Mixing, shape: _Shape, *, alpha: Positive) -> Mix:
    """Return CutMix: paste a box of the partner image, weight labels by its area (arXiv 1905.04899, section 3.1).

    The box covers a share 1 - w of the image around a uniform center. Parts outside the image are not pasted and do not
    count.

    Args:
        mixing: Which batches are mixed.
        shape: Image shape (C, H, W).
        alpha: Parameter of Beta(alpha, alpha), which w is drawn from, > 0.

    Returns:
        Images (B, C, H, W) and soft labels (B, K).

    Raises:
        ConfigError: Images have one pixel.
    """
    _require_pixels("cutmix", shape)
    return mixing.with_permutation(lambda images, other, random: _cutmix(images, other, random, alpha))


@register("mix")
def saliencymix(mixing: _Mixing, shape: _Shape, *, alpha: Positive) -> Mix:
    """Return SaliencyMix: paste the box around the partner's most salient pixel (arXiv 2006.01791, section 3).

    The box has the same place in both images; its size and the label weights are those of CutMix. Saliency is the
    contrast between a pixel and its surroundings, summed over several radii.

    Args:
        mixing: Which batches are mixed.
        shape: Image shape (C, H, W).
        alpha: Parameter of Beta(alpha, alpha), which w is drawn from, > 0.

    Returns:
        Images (B, C, H, W) and soft labels (B, K).

    Raises:
        ConfigError: Images have one pixel.
    """
    _require_pixels("saliencymix", shape)
    return mixing.with_permutation(lambda images, other, random: _saliencymix(images, other, random, alpha))


@register("mix")
def mixup_or_cutmix(
    mixing: _Mixing, shape: _Shape, *, mixup_alpha: Positive, cutmix_alpha: Positive, cutmix_p: Unit
) -> Mix:
    """Return mixup or CutMix, chosen at random per batch.

    Args:
        mixing: Which batches are mixed.
        shape: Image shape (C, H, W).
        mixup_alpha: Parameter of mixup's Beta(alpha, alpha), > 0.
        cutmix_alpha: Parameter of CutMix's Beta(alpha, alpha), > 0.
        cutmix_p: Probability of CutMix for a mixed batch, in [0, 1].

    Returns:
        Images (B, C, H, W) and soft labels (B, K).

    Raises:
        ConfigError: Images have one pixel.
    """
    _require_pixels("mixup_or_cutmix", shape)

    def either(images: Tensor, other: Tensor, random: np.random.Generator) -> tuple[Tensor, float]:
        if random.random() < cutmix_p:
            return _cutmix(images, other, random, cutmix_alpha)
        return _mixup(images, other, random, mixup_alpha)

    return mixing.with_permutation(either)


def _require_pixels(name: str, shape: _Shape) -> None:
    """Raise ConfigError for images of one pixel: only the whole image would fit into a box."""
    if shape[1:] == (1, 1):
        raise ConfigError(f"mix={name}: points (images of 1x1 pixel) have no boxes to paste; choose mix=mixup")


def _mixup(images: Tensor, other: Tensor, random: np.random.Generator, alpha: float) -> tuple[Tensor, float]:
    """Return mixup's images (B, C, H, W) and the partners' weight."""
    weight = 1 - random.beta(alpha, alpha)
    return images.index_select(0, other).lerp_(images, 1 - weight), weight


def _cutmix(images: Tensor, other: Tensor, random: np.random.Generator, alpha: float) -> tuple[Tensor, float]:
    """Return CutMix's images (B, C, H, W) and the partners' weight, their share of the pixels."""
    height, width = images.shape[2:]
    side = np.sqrt(1 - random.beta(alpha, alpha))
    top, bottom = _box_span(height, side, random)
    left, right = _box_span(width, side, random)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].index_select(0, other)
    return mixed, (bottom - top) * (right - left) / (height * width)


def _saliencymix(images: Tensor, other: Tensor, random: np.random.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Return SaliencyMix's images (B, C, H, W) and the partners' weights (B, 1)."""
    height, width = images.shape[2:]
    side = float(np.sqrt(1 - random.beta(alpha, alpha)))
    peak = _saliency(images).flatten(1).argmax(1).index_select(0, other)
    high = _box_mask(peak // width, int(height * side), height)
    wide = _box_mask(peak % width, int(width * side), width)
    box = high[:, :, None] & wide[:, None, :]
    mixed = torch.where(box[:, None], images.index_select(0, other), images)
    return mixed, box.flatten(1).float().mean(1, keepdim=True)


def _box_mask(center: Tensor, cut: int, length: int) -> Tensor:
    """Return (B, length) bool: true for the `cut` pixels around each center (B,), clipped at the border."""
    distance = torch.arange(length, device=center.device) - center[:, None] + cut // 2
    return (distance >= 0) & (distance < cut)


def _saliency(images: Tensor) -> Tensor:
    """Return saliency (B, H, W): the distance of each pixel from the mean of its surroundings, summed over radii.

    Center-surround contrast on the mean of the channels (Montabone and Soto 2010), as in the paper's code.
    """
    gray = images.float().mean(1, keepdim=True)
    radii = [1, *(radius for radius in (2, 4, 8, 16, 32) if 2 * radius <= min(images.shape[2:]))]
    around = [F.avg_pool2d(gray, 2 * r + 1, 1, r, count_include_pad=False) for r in radii]
    return torch.stack([(gray - mean).abs() for mean in around]).sum(0)[:, 0]


def _box_span(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Return start and end (exclusive) of about `share` of the pixels around a uniform one, clipped at the border."""
    cut = int(length * share)
    start = int(random.integers(length)) - cut // 2
    return max(0, start), min(length, start + cut)


def _one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels (B,) as one-hot rows (B, K) float32."""
    return (labels[:, None] == torch.arange(num_classes, device=labels.device)).float()
