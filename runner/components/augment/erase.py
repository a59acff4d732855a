"""Cover parts of images."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from runner.components.augment.pixels import boxes, choose
from runner.engine.contracts import Augment, Draws
from runner.registry import register
from runner.schema import PositiveInt, Range

Level = Annotated[int, Range(0, 255)]


@register("augment")
def cutout(*, size: PositiveInt, fill: Level) -> Augment:
    """Cover a square of `size` pixels round a random pixel; at the border a part of it falls outside.

    With an even size there is one row and one column more above and left of that pixel than below and right.
    Source: DeVries & Taylor 2017, arXiv 1708.04552, section 3.2.
    """

    def apply(images: Tensor, draws: Draws) -> Tensor:
        height, width = images.shape[2:]
        top = (draws.uniform[:, 0] * height).long() - size // 2
        left = (draws.uniform[:, 1] * width).long() - size // 2
        return choose(boxes(images, top, left, top + size, left + size), fill, images)

    return Augment(apply, uniforms=2)
