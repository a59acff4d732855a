"""The fourteen ops that random policies choose from, one per image and a whole batch at once.

An op is one of three things: a move of pixels (one resample for all), a table of 256 values per channel (one lookup for
all), or a blend with a grey or a smoothed image (one for all). Every image goes through the three, unchanged by the two
that are not its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.augment.colour import blend, grey
from runner.components.augment.geometry import turned
from runner.components.augment.warp import centred, sample

OPS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "brightness",
    "contrast",
    "color",
    "sharpness",
)
TABLES = ("posterize", "solarize", "autocontrast", "equalize", "brightness", "contrast")


def distort(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images (uint8), each after its op: `op` (B,) int64 is a place in OPS, `amount` (B,) how much of it.

    That is a slope for shears, pixels for translations, degrees for rotations, the bits that posterize keeps, the
    threshold 0..255 of solarize, and for brightness, contrast, color and sharpness the factor less 1.
    """
    return enhanced(mapped(moved(images, op, amount), op, amount), op, amount)


def amount_of(name: str, op: Tensor, amount: Tensor) -> Tensor:
    """Return the amount (B, 1, 1) for the images whose op has this name, and 0 for the others."""
    return torch.where(op == OPS.index(name), amount, 0)[:, None, None]


def moved(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images sheared (about the upper left corner), translated or turned; outside is black."""
    height, width = images.shape[2:]
    x, y = centred(images)
    x, y = (
        x + amount_of("shear_x", op, amount) * (y + height / 2) - amount_of("translate_x", op, amount).trunc(),
        y + amount_of("shear_y", op, amount) * (x + width / 2) - amount_of("translate_y", op, amount).trunc(),
    )
    return sample(images, turned((x, y), torch.deg2rad(amount_of("rotate", op, amount))), "zeros")


def mapped(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images with their values looked up in the table (256) that each channel has for the op."""
    levels = torch.arange(256, device=images.device).expand(*images.shape[:2], 256)
    known = amount[:, None, None]
    mean = grey(images.float()).mean((1, 2, 3))[:, None, None]
    tables = [
        levels - levels % torch.exp2(8 - known),
        torch.where(levels >= known, 255 - levels, levels),
        autocontrast(images, levels),
        equalize(images, levels),
        levels * (1 + known),
        mean + (levels - mean) * (1 + known),
    ]
    table = levels.float()
    for name, values in zip(TABLES, tables, strict=True):
        table = torch.where((op == OPS.index(name))[:, None, None], values, table)
    table = table.round().clamp(0, 255).to(torch.uint8)
    return table.gather(2, images.flatten(2).long()).view(images.shape)


def autocontrast(images: Tensor, levels: Tensor) -> Tensor:
    """Return the tables (B, C, 256) that stretch each channel to 0..255; a channel of one value stays."""
    low, high = (bound.float()[:, :, None] for bound in torch.aminmax(images.flatten(2), dim=2))
    return torch.where(high > low, (levels - low) * (255 / (high - low).clamp(min=1)), levels)


def equalize(images: Tensor, levels: Tensor) -> Tensor:
    """Return the tables (B, C, 256) that make each channel's histogram even, by Pillow's rule in whole numbers."""
    values = images.flatten(2).long()
    histogram = torch.zeros(levels.shape, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    last = histogram.gather(2, values.amax(2, keepdim=True))  # how often the largest value occurs
    step = (values.shape[2] - last) // 255
    below = histogram.cumsum(2) - histogram
    table = (below + step // 2) // step.clamp(min=1)
    return torch.where(step > 0, table, levels)


def enhanced(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images blended with their grey (color) or smoothed (sharpness) form; that has no smoothed border."""
    exact = images.float()
    factor = (1 + amount_of("color", op, amount) + amount_of("sharpness", op, amount))[:, None]
    smooth = exact.clone()
    if min(images.shape[2:]) > 2:  # Pillow's SMOOTH: weights 1 round a 5, of 13
        smooth[:, :, 1:-1, 1:-1] = (9 * F.avg_pool2d(exact, 3, 1) + 4 * exact[:, :, 1:-1, 1:-1]) / 13
    other = torch.where((op == OPS.index("color"))[:, None, None, None], grey(exact), smooth)
    return blend(exact, other, factor).round_().to(torch.uint8)
