"""AutoAugment: pairs of operations that a search found on one data set."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor

from runner.components.augment.policy import OpRanges, random_signs
from runner.components.augment.policy_ops import OPS, apply_ops
from runner.engine.contracts import Augment, Draws
from runner.registry import register

_Shape = tuple[int, int, int]
_Pair = tuple[tuple[str, float, int | None], tuple[str, float, int | None]]
# Strengths are numbered 0..9
_LAST_STRENGTH = 9


@register("augment")
def autoaugment(shape: _Shape, *, policy: Literal["cifar10", "imagenet", "svhn"]) -> Augment:
    """Apply one of 25 pairs of operations, each operation with its own probability and strength (arXiv 1805.09501).

    The pairs are those of torchvision. Shears, translations, rotations and blends have random signs. Geometric
    operations resample bilinearly and fill with black.

    Args:
        shape: Image shape (C, H, W).
        policy: Data set on which the pairs were searched.
    """
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    pairs = AutoAugment(AutoAugmentPolicy(policy)).policies
    tables = cache(lambda device: [table.to(device) for table in _tables(pairs)])
    space = OpRanges(0.3, 150 / 331 * shape[2], 150 / 331 * shape[1], 30.0, 0.9, (8, 4))

    def apply(images: Tensor, draws: Draws) -> Tensor:
        pair = (draws.uniform[:, 0] * len(pairs)).long()
        ops, probabilities, strengths = (table.index_select(0, pair) for table in tables(images.device))
        for place in range(2):
            happens = draws.uniform[:, 1 + place] < probabilities[:, place]
            op = torch.where(happens, ops[:, place], OPS.index("identity"))
            sign = random_signs(draws.uniform[:, 3 + place])
            images = apply_ops(images, op, space.amounts(op, strengths[:, place], sign))
        return images

    return Augment(apply, uniforms=5)


def _tables(pairs: list[_Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Return operation int64, probability and strength in [0, 1] of each place of each pair, all (25, 2)."""
    ops = torch.tensor([[OPS.index(_name(op)) for op, _, _ in pair] for pair in pairs])
    probabilities = torch.tensor([[p for _, p, _ in pair] for pair in pairs])
    # To invert is to solarize at full strength
    strengths = [[(_LAST_STRENGTH if k is None else k) / _LAST_STRENGTH for _, _, k in pair] for pair in pairs]
    return ops, probabilities, torch.tensor(strengths)


def _name(theirs: str) -> str:
    """Return the name of an operation of torchvision: `ShearX` is `shear_x`, `AutoContrast` is `autocontrast`."""
    if theirs == "Invert":
        return "solarize"
    return f"{theirs[:-1]}_{theirs[-1]}".lower() if theirs[-1] in "XY" else theirs.lower()
