"""Statistics of BatchNorms over several processes, and the comparison of what the processes hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from runner.engine.transfer import to_host
from runner.engine.world import World

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def batch_norms(model: nn.Module) -> list[BatchNorm]:
    """Return the BatchNorms of a model that keep statistics."""
    return [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]


@torch.no_grad()
def average_statistics(norms: Sequence[BatchNorm], world: World) -> None:
    """Replace running statistics by their mean over the processes, each of which has seen its share of the data."""
    statistics = [each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None]
    if not statistics:
        return
    mean = world.sum(torch.cat(statistics).cpu().double()) / world.size
    for old, new in zip(statistics, torch.split(mean, [each.numel() for each in statistics]), strict=True):
        old.copy_(new)


def checksums(model: nn.Module) -> dict[str, int]:
    """Return the sum of the bits of each tensor of a model by name: one changed bit changes it."""
    tensors = {name: each for name, each in model.state_dict().items() if isinstance(each, Tensor) and each.numel()}
    bits = [each.detach().contiguous().view(_INTEGERS[each.element_size()]) for each in tensors.values()]
    sums = [each.sum(dtype=torch.int64) for each in bits]
    return dict(zip(tensors, map(int, to_host(sums)), strict=True))
