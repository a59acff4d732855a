"""Copy many tensors from the device to the host in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@torch.no_grad()
def to_host(tensors: Sequence[Tensor]) -> list[Any]:
    """Return each 0-dim tensor as a float and any other as an array, with one transfer per device.

    Tensors on the host are read one by one, which takes half the time of joining them.
    """
    found: list[Any] = [None] * len(tensors)
    devices: dict[torch.device, list[int]] = {}
    for place, tensor in enumerate(tensors):
        if tensor.is_cpu:
            found[place] = float(tensor.item()) if tensor.ndim == 0 else _as_array(tensor).copy()
        else:
            devices.setdefault(tensor.device, []).append(place)
    for places in devices.values():
        for place, value in zip(places, transferred([tensors[place] for place in places]), strict=True):
            found[place] = value
    return found


def transferred(tensors: Sequence[Tensor]) -> list[Any]:
    """Return the floats and arrays of tensors of one device.

    Tensors of one type are joined on the device, and the types joined as bytes, widest first so that each part stays
    aligned. The transfer of these is the only wait for the device.
    """
    found: list[Any] = [None] * len(tensors)
    types: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(tensors):
        types.setdefault(tensor.dtype, []).append(place)
    order = sorted(types, key=lambda dtype: -dtype.itemsize)
    groups = [sorted(types[dtype], key=lambda place: tensors[place].ndim > 0) for dtype in order]
    parts = [[tensors[place] for place in places] for places in groups]
    for places, part, host in zip(groups, parts, _moved([_join(part) for part in parts]), strict=True):
        for place, value in zip(places, _split(host, part), strict=True):
            found[place] = value
    return found


def _join(tensors: list[Tensor]) -> Tensor:
    """Return all elements of tensors of one type in one row, those of 0-dim tensors first."""
    scalars = [tensor for tensor in tensors if tensor.ndim == 0]
    rows = [torch.stack(scalars)] if scalars else []
    rows += [tensor.reshape(-1) for tensor in tensors[len(scalars) :]]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _moved(joined: list[Tensor]) -> list[Tensor]:
    """Return tensors of one device on the CPU."""
    if len(joined) == 1:
        return [joined[0].cpu()]
    host = torch.cat([part.view(torch.uint8) for part in joined]).cpu()
    sizes = [part.numel() * part.dtype.itemsize for part in joined]
    return [raw.view(part.dtype) for raw, part in zip(torch.split(host, sizes), joined, strict=True)]


def _split(host: Tensor, like: list[Tensor]) -> list[Any]:
    """Return the elements of a row as floats and as arrays of the shapes of `like`."""
    numbers = _as_array(host)
    scalars = sum(tensor.ndim == 0 for tensor in like)
    arrays = like[scalars:]
    ends = np.cumsum([scalars, *(tensor.numel() for tensor in arrays)]).tolist()
    cut = [numbers[a:b].reshape(tensor.shape) for (a, b), tensor in zip(pairwise(ends), arrays, strict=True)]
    return [*map(float, numbers[:scalars].tolist()), *cut]


def _as_array(host: Tensor) -> NDArray[Any]:
    """Return a CPU tensor as an array that shares its memory; bfloat16, which numpy lacks, becomes float32."""
    array: NDArray[Any] = (host.float() if host.dtype == torch.bfloat16 else host).numpy()
    return array
