"""Random augmentation policies: a few operations per image, drawn from one list, with a common strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from runner.components.augment.policy_ops import OPS, apply_ops
from runner.engine.contracts import Augment, Draws
from runner.registry import register
from runner.schema import PositiveInt, Range

_Shape = tuple[int, int, int]
# Most operations in a chain
_AUGMIX_MAX_DEPTH = 3
# Largest translation of TrivialAugment in pixels, which the paper chose for images of 32 pixels or more
_TRIVIAL_SHIFT = 32.0
# AugMix draws from operations 1 to this one: none that CIFAR-10-C tests
_AUGMIX_LAST_OP = OPS.index("equalize")


@dataclass(frozen=True)
class OpRanges:
    """Largest amounts of the operations of a policy."""

    # Slope
    shear: float
    # Pixels
    across: float
    down: float
    # Degrees
    degrees: float
    # Factor minus 1
    enhance: float
    # Bits that posterize keeps at strength 0 and 1
    bits: tuple[int, int]

    def amounts(self, op: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        """Return the amount of each operation for strengths in [0, 1] and signs 1 or -1, all (B,)."""
        moves = [0, self.shear, self.shear, self.across, self.down, self.degrees]
        reach = torch.tensor([*moves, 0, 0, 0, 0, *[self.enhance] * 4]).to(op.device, non_blocking=True)
        most, fewest = self.bits
        amount = reach.index_select(0, op) * strength * sign
        amount = torch.where(op == OPS.index("posterize"), (most - strength * (most - fewest)).round(), amount)
        return torch.where(op == OPS.index("solarize"), 255 * (1 - strength), amount)


@register("augment")
def randaugment(shape: _Shape, *, ops: PositiveInt, magnitude: Annotated[float, Range(0, 30)]) -> Augment:
    """Apply random operations, all with one magnitude and random signs (RandAugment, arXiv 1909.13719, section 3).

    Each is drawn from 14 operations. Geometric ones resample bilinearly and fill with black.

    Args:
        shape: Image shape (C, H, W).
        ops: Number of operations per image, >= 1.
        magnitude: Strength, in [0, 30].
    """
    space = OpRanges(0.3, 150 / 331 * shape[2], 150 / 331 * shape[1], 30.0, 0.9, (8, 4))

    def apply(images: Tensor, draws: Draws) -> Tensor:
        for which, sign in draws.uniform.view(-1, ops, 2).permute(1, 2, 0):
            op = (which * len(OPS)).long()
            strength = torch.full_like(which, magnitude / 30)
            images = apply_ops(images, op, space.amounts(op, strength, random_signs(sign)))
        return images

    return Augment(apply, uniforms=2 * ops)


@register("augment")
def trivialaugment(shape: _Shape) -> Augment:
    """Apply one random operation at one of 31 random strengths (TrivialAugment, arXiv 2103.10158, wide space).

    It is drawn from 14 operations, with a random sign. Geometric ones resample bilinearly and fill with black.
    Translations reach 32 pixels, but never farther than the image's own width or height.
    """
    across, down = (min(_TRIVIAL_SHIFT, float(length)) for length in (shape[2], shape[1]))
    space = OpRanges(0.99, across, down, 135.0, 0.99, (8, 2))

    def apply(images: Tensor, draws: Draws) -> Tensor:
        which, sign, strength = draws.uniform.unbind(1)
        op = (which * len(OPS)).long()
        return apply_ops(images, op, space.amounts(op, (strength * 31).floor() / 30, random_signs(sign)))

    return Augment(apply, uniforms=3)


@register("augment")
def augmix(shape: _Shape, *, severity: Annotated[int, Range(1, 10)], width: PositiveInt) -> Augment:
    """Blend each image with copies distorted by chains of operations (AugMix, arXiv 1912.02781, algorithm 1).

    A chain has one to three operations. The copies' weights are Dirichlet(1, ..., 1), their total share is uniform in
    [0, 1]. The paper's consistency loss is not included.

    Args:
        shape: Image shape (C, H, W).
        severity: Number of strengths, of ten, that occur, in [1, 10].
        width: Number of chains, >= 1.
    """
    space = OpRanges(0.3, shape[2] / 3, shape[1] / 3, 30.0, 0.0, (4, 0))
    # Draws per chain: weight, length, and three per operation
    each = 2 + 3 * _AUGMIX_MAX_DEPTH

    def chain(images: Tensor, uniform: Tensor) -> Tensor:
        length = 1 + (uniform[:, 0] * _AUGMIX_MAX_DEPTH).long()
        for place in range(_AUGMIX_MAX_DEPTH):
            which, strength, sign = uniform[:, 1 + 3 * place : 4 + 3 * place].unbind(1)
            op = torch.where(length > place, 1 + (which * _AUGMIX_LAST_OP).long(), OPS.index("identity"))
            images = apply_ops(images, op, space.amounts(op, (strength * severity).floor() / 9, random_signs(sign)))
        return images

    def apply(images: Tensor, draws: Draws) -> Tensor:
        share = draws.uniform[:, 0]
        chains = draws.uniform[:, 1:].view(len(images), width, each)
        weights = -(1 - chains[:, :, 0]).log()
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-12) * share[:, None]
        mixed = (1 - weights.sum(1))[:, None, None, None] * images
        for i in range(width):
            mixed = mixed + weights[:, i, None, None, None] * chain(images, chains[:, i, 1:])
        return mixed.round_().clamp_(0, 255).to(torch.uint8)

    return Augment(apply, uniforms=1 + width * each)


def random_signs(uniform: Tensor) -> Tensor:
    """Return 1 or -1 with equal probability."""
    return 1 - 2 * (uniform < 0.5).float()
