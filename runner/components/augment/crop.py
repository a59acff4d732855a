"""Windows into images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.contracts import Augment, Draws
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import PositiveInt


@register("augment")
def crop(shape: tuple[int, int, int], *, padding: PositiveInt, mode: Literal["zeros", "reflect"]) -> Augment:
    """Pad an image on all sides and cut a window of its size at a random place (He et al. 2015, section 4.2).

    All (2 * padding + 1)² places are equally likely. Raises ConfigError for a reflection wider than the image.
    """
    if mode == "reflect" and padding >= min(shape[1:]):
        raise ConfigError(f"augment.crop.padding: got {padding}, must be < {min(shape[1:])} to reflect the image")
    pad_mode = {"zeros": "constant", "reflect": "reflect"}[mode]

    def apply(images: Tensor, draws: Draws) -> Tensor:
        place = (draws.uniform * (2 * padding + 1)).long()
        return windows(F.pad(images, [padding] * 4, mode=pad_mode), place[:, 0], place[:, 1], images.shape[2:])

    return Augment(apply, uniforms=2)


def windows(images: Tensor, top: Tensor, left: Tensor, size: torch.Size) -> Tensor:
    """Return from each image the window of `size` whose first pixel is at (top, left), each (B,) int64.

    One index into a view of all windows: no copy of them is made.
    """
    views = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (B, C, tops, lefts, H, W)
    return views[torch.arange(len(images), device=images.device), :, top, left]
