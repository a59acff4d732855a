"""Windows into images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from runner.components.augment.pixels import windows
from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import HalfOpenUnit, PositiveInt


@register("augment")
def crop(
    shape: tuple[int, int, int], *, padding: PositiveInt | HalfOpenUnit, mode: Literal["zeros", "reflect"]
) -> Augment:
    """Pad an image on all sides and cut a window of its size at a random place (He et al. 2015, section 4.2).

    `padding` is in pixels, or, below 1, a share of the image's shorter side (at least one pixel). All
    (2 * padding + 1)² places are equally likely. Raises ConfigError for a reflection wider than the image.
    """
    padding = int(padding) if padding >= 1 else max(1, round(padding * min(shape[1:])))
    if mode == "reflect" and padding >= min(shape[1:]):
        raise ConfigError(f"augment.crop.padding: got {padding}, must be < {min(shape[1:])} to reflect the image")
    pad_mode = {"zeros": "constant", "reflect": "reflect"}[mode]

    def apply(images: Tensor, draws: Draws) -> Tensor:
        place = (draws.uniform * (2 * padding + 1)).long()
        return windows(F.pad(images, [padding] * 4, mode=pad_mode), place[:, 0], place[:, 1], shape[1:])

    return Augment(apply, uniforms=2)
