"""Mirror images."""

from __future__ import annotations

from torch import Tensor

from runner.components.augment.pixels import choose
from runner.engine.contracts import Augment, Draws
from runner.registry import register
from runner.schema import Unit


@register("augment")
def hflip(*, p: Unit) -> Augment:
    """Mirror an image left to right with probability `p`."""
    return Augment(lambda images, draws: mirrored(images, draws.uniform < p, 3), uniforms=1)


@register("augment")
def vflip(*, p: Unit) -> Augment:
    """Mirror an image top to bottom with probability `p`."""
    return Augment(lambda images, draws: mirrored(images, draws.uniform < p, 2), uniforms=1)


@register("augment")
def alternating_flip() -> Augment:
    """Mirror an image left to right in every other epoch; a coin per image says whether in the even or the odd ones.

    Any two epochs in a row show both forms of every image (Jordan 2024, arXiv 2404.00498, section 3.6).
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        return mirrored(images, (draws.uniform < 0.5) ^ bool(draws.epoch % 2), 3)

    return Augment(apply, uniforms=1, per_epoch=False)


def mirrored(images: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Return the images with those `chosen` (B, 1) bool reversed along an axis."""
    return choose(chosen[:, :, None, None], images.flip(axis), images)
