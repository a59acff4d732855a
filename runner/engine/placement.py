"""Where a split's pixels lie: on the device where they fit, so that a batch is one index; else on the host or disk."""

from __future__ import annotations

import torch

from runner.engine.contracts import Images, Placement, Split

SHARE = 4  # `auto` takes at most one part in so many of the device's free memory


def placed(split: Split, placement: Placement, device: torch.device) -> Split:
    """Return a split with pixels and labels on the device, or as it is: where they are not in memory or do not fit."""
    if not isinstance(split, Images) or placement in ("host", "disk"):
        return split
    if placement == "auto" and not fits(split.pixels.nbytes, device):
        return split
    return Images(split.pixels.to(device), split.labels.to(device))


def fits(size: int, device: torch.device) -> bool:
    """Tell whether so many bytes are a small part of what is free; on devices that share the host's memory they are."""
    return device.type != "cuda" or size * SHARE <= torch.cuda.mem_get_info(device)[0]
