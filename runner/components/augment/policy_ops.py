"""The 14 operations of random policies: one per image, applied to a whole batch at once.

An operation is a geometric transform (one resampling for all), a table of 256 values per channel (one lookup for all),
or a blend with a gray or smoothed image (one for all). Every image passes through the three; the two that are not its
own leave it unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.components.augment.color import blend_images, gray_of
from runner.components.augment.geometry import rotate_grid
from runner.components.augment.warp import pixel_grid, resample

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
_TABLES = ("posterize", "solarize", "autocontrast", "equalize", "brightness", "contrast")


def apply_ops(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the uint8 images, each after its operation: `op` (B,) int64 indexes OPS, `amount` (B,) is its strength.

    The amount is a slope for shears, pixels for translations, degrees for rotations, the number of bits that posterize
    keeps, the threshold 0..255 of solarize, and the factor minus 1 for brightness, contrast, color and sharpness.
    """
    return _apply_blends(_apply_tables(_apply_geometry(images, op, amount), op, amount), op, amount)


def _amount_of(name: str, op: Tensor, amount: Tensor) -> Tensor:
    """Return the amount (B, 1, 1) of images with the named operation, 0 for the others."""
    return torch.where(op == OPS.index(name), amount, 0)[:, None, None]


def _apply_geometry(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images sheared (about the upper left corner), translated or rotated; outside is black."""
    height, width = images.shape[2:]
    x, y = pixel_grid(images)
    x, y = (
        x + _amount_of("shear_x", op, amount) * (y + height / 2) - _amount_of("translate_x", op, amount).trunc(),
        y + _amount_of("shear_y", op, amount) * (x + width / 2) - _amount_of("translate_y", op, amount).trunc(),
    )
    return resample(images, rotate_grid((x, y), torch.deg2rad(_amount_of("rotate", op, amount))), "zeros")


def _apply_tables(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images mapped by the lookup table (256) that each channel has for its operation."""
    levels = torch.arange(256, device=images.device).expand(*images.shape[:2], 256)
    known = amount[:, None, None]
    mean = gray_of(images.float()).mean((1, 2, 3))[:, None, None]
    tables = [
        levels - levels % torch.exp2(8 - known),
        torch.where(levels >= known, 255 - levels, levels),
        _autocontrast_tables(images, levels),
        equalize_tables(images, levels),
        levels * (1 + known),
        mean + (levels - mean) * (1 + known),
    ]
    table = levels.float()
    for name, values in zip(_TABLES, tables, strict=True):
        table = torch.where((op == OPS.index(name))[:, None, None], values, table)
    return look_up(images, table.round().clamp(0, 255).to(torch.uint8))


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Return the images with each pixel replaced by the entry of its channel's table (B, C, 256) uint8."""
    return tables.gather(2, images.flatten(2).long()).view(images.shape)


def _autocontrast_tables(images: Tensor, levels: Tensor) -> Tensor:
    """Return tables (B, C, 256) that stretch each channel to 0..255; a constant channel stays."""
    low, high = (bound.float()[:, :, None] for bound in torch.aminmax(images.flatten(2), dim=2))
    return torch.where(high > low, (levels - low) * (255 / (high - low).clamp(min=1)), levels)


def equalize_tables(images: Tensor, levels: Tensor) -> Tensor:
    """Return tables (B, C, 256) that equalize each channel's histogram, by Pillow's integer rule."""
    values = images.flatten(2).long()
    histogram = torch.zeros(levels.shape, dtype=torch.int64, device=images.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    # Frequency of the largest value
    last = histogram.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - last) // 255
    below = histogram.cumsum(2) - histogram
    table = (below + step // 2) // step.clamp(min=1)
    return torch.where(step > 0, table, levels)


def _apply_blends(images: Tensor, op: Tensor, amount: Tensor) -> Tensor:
    """Return the images blended with their gray (color) or smoothed (sharpness) form; the border is not smoothed."""
    exact = images.float()
    factor = (1 + _amount_of("color", op, amount) + _amount_of("sharpness", op, amount))[:, None]
    smooth = exact.clone()
    # Pillow's SMOOTH kernel: weight 5 in the center and 1 around it, over 13
    if min(images.shape[2:]) > 2:
        smooth[:, :, 1:-1, 1:-1] = (9 * F.avg_pool2d(exact, 3, 1) + 4 * exact[:, :, 1:-1, 1:-1]) / 13
    other = torch.where((op == OPS.index("color"))[:, None, None, None], gray_of(exact), smooth)
    return blend_images(exact, other, factor).round_().to(torch.uint8)
