"""Per-image selection and cropping of uint8 pixels, without a device synchronization."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def select(chosen: Tensor, new: Tensor | int, images: Tensor) -> Tensor:
    """Return `new` where `chosen` (bool, broadcast over the images) and the images elsewhere; all uint8.

    Equals torch.where, but five times as fast on the CPU, because torch.where has no vectorized code for bytes. The
    result reuses the memory of a tensor `new`.
    """
    return select_bits(chosen.to(torch.uint8).neg_(), new, images)


def select_bits(mask: Tensor, new: Tensor | int, images: Tensor) -> Tensor:
    """Return `select` for a mask of bytes: 255 where `new` is chosen, 0 elsewhere."""
    changes = images.bitwise_xor(new) if isinstance(new, int) else new.bitwise_xor_(images)
    return changes.bitwise_and_(mask).bitwise_xor_(images)


def crop_windows(images: Tensor, top: Tensor, left: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the window of `size` (H, W) at (top, left) of each image; top and left are (B,) int64.

    Rows are gathered from a view of all runs of W bytes, so that each is copied as a whole. On the CPU that is ten
    times as fast as one index into `unfold`'s view of all windows.
    """
    batch, channels, height, width = images.shape
    runs = images.contiguous().as_strided((images.numel() - size[1] + 1, size[1]), (1, 1))
    corner = torch.add(left, top, alpha=width)
    rows = _row_starts(batch, channels, height, width, size[0], images.device) + corner[:, None]
    return runs.index_select(0, rows.flatten()).view(batch, channels, *size)


# Cached, because for small batches these numbers cost more than the pixels
@functools.lru_cache(maxsize=8)
def _row_starts(batch: int, channels: int, height: int, width: int, rows: int, device: torch.device) -> Tensor:
    """Return the memory offset of the first `rows` rows of each channel of each image, (B, C * rows) int64."""
    planes = torch.arange(batch * channels, device=device).view(batch, channels, 1) * height
    return ((planes + torch.arange(rows, device=device)) * width).view(batch, -1)


def box_masks(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Return (B, 1, H, W) bool: true inside each image's box; bottom and right are exclusive."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    high = (rows >= top[:, None]) & (rows < bottom[:, None])
    wide = (columns >= left[:, None]) & (columns < right[:, None])
    return (high[:, :, None] & wide[:, None, :])[:, None]
