"""From the device to the host in one go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def to_host(tensors: Sequence[Tensor]) -> list[Any]:
    """Return each 0-dim tensor as a float and any other as an array, with one transfer per device.

    Tensors of one type are joined on the device, and the types joined as bytes, widest first so that each part stays
    aligned. That transfer is the only wait for the device.
    """
    found: list[Any] = [None] * len(tensors)
    devices: dict[torch.device, dict[tuple[torch.dtype, bool], list[int]]] = {}
    for place, tensor in enumerate(tensors):
        groups = devices.setdefault(tensor.device, {})
        groups.setdefault((tensor.dtype, tensor.ndim == 0), []).append(place)
    for groups in devices.values():
        order = sorted(groups, key=lambda group: -group[0].itemsize)
        parts = [[tensors[place] for place in groups[group]] for group in order]
        for group, part, host in zip(order, parts, moved([join(part) for part in parts]), strict=True):
            for place, value in zip(groups[group], split(host, part), strict=True):
                found[place] = value
    return found


def join(tensors: list[Tensor]) -> Tensor:
    """Return all elements of tensors of one type in one row."""
    return torch.stack(tensors) if tensors[0].ndim == 0 else torch.cat([tensor.reshape(-1) for tensor in tensors])


def moved(joined: list[Tensor]) -> list[Tensor]:
    """Return tensors of one device on the CPU."""
    if len(joined) == 1:
        return [joined[0].cpu()]
    host = torch.cat([part.view(torch.uint8) for part in joined]).cpu()
    sizes = [part.numel() * part.dtype.itemsize for part in joined]
    return [raw.view(part.dtype) for raw, part in zip(torch.split(host, sizes), joined, strict=True)]


def split(host: Tensor, like: list[Tensor]) -> list[Any]:
    """Return the elements as floats, or as arrays of the shapes of `like`."""
    if like[0].ndim == 0:
        return host.tolist() if host.is_floating_point() else host.double().tolist()
    host = host.float() if host.dtype == torch.bfloat16 else host  # numpy has no bfloat16
    parts = torch.split(host, [tensor.numel() for tensor in like])
    return [part.reshape(tensor.shape).numpy() for part, tensor in zip(parts, like, strict=True)]
