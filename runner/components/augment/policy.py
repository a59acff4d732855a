"""Random policies: a few ops per image, drawn from one list, with one strength."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from runner.components.augment.ops import OPS, distort
from runner.engine.contracts import Augment, Draws
from runner.registry import register
from runner.schema import PositiveInt, Range

Shape = tuple[int, int, int]
DEPTH = 3  # most ops in a chain of AugMix
MIXED = OPS.index("equalize")  # AugMix draws from ops 1 to this one: none that CIFAR-10-C tests


@dataclass(frozen=True)
class Space:
    """The largest amounts of the ops of a policy."""

    shear: float  # slope
    across: float  # pixels
    down: float  # pixels
    degrees: float
    enhance: float  # factor less 1
    bits: tuple[int, int]  # kept by posterize at strength 0 and 1

    def amounts(self, op: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        """Return how much of each op there is for strengths in 0..1 and signs 1 or -1, all (B,)."""
        moves = [0, self.shear, self.shear, self.across, self.down, self.degrees]
        reach = torch.tensor([*moves, 0, 0, 0, 0, *[self.enhance] * 4]).to(op.device, non_blocking=True)
        most, fewest = self.bits
        amount = reach.index_select(0, op) * strength * sign
        amount = torch.where(op == OPS.index("posterize"), (most - strength * (most - fewest)).round(), amount)
        return torch.where(op == OPS.index("solarize"), 255 * (1 - strength), amount)


@register("augment")
def randaugment(shape: Shape, *, ops: PositiveInt, magnitude: Annotated[float, Range(0, 30)]) -> Augment:
    """Do `ops` of 14 ops one after another, each drawn anew, all with one magnitude of 0..30 and random signs.

    Moves are bilinear and black outside. Source: Cubuk et al. 2019, arXiv 1909.13719, section 3.
    """
    space = Space(0.3, 150 / 331 * shape[2], 150 / 331 * shape[1], 30.0, 0.9, (8, 4))

    def apply(images: Tensor, draws: Draws) -> Tensor:
        for which, sign in draws.uniform.view(-1, ops, 2).permute(1, 2, 0):
            op = (which * len(OPS)).long()
            strength = torch.full_like(which, magnitude / 30)
            images = distort(images, op, space.amounts(op, strength, signs(sign)))
        return images

    return Augment(apply, uniforms=2 * ops)


@register("augment")
def trivialaugment() -> Augment:
    """Do one of 14 ops with a random one of 31 strengths, from next to nothing to very much, and a random sign.

    Moves are bilinear and black outside. Source: Müller & Hutter 2021, arXiv 2103.10158, the wide space.
    """
    space = Space(0.99, 32.0, 32.0, 135.0, 0.99, (8, 2))

    def apply(images: Tensor, draws: Draws) -> Tensor:
        which, sign, strength = draws.uniform.unbind(1)
        op = (which * len(OPS)).long()
        return distort(images, op, space.amounts(op, (strength * 31).floor() / 30, signs(sign)))

    return Augment(apply, uniforms=3)


@register("augment")
def augmix(shape: Shape, *, severity: Annotated[int, Range(1, 10)], width: PositiveInt) -> Augment:
    """Blend an image with `width` distorted copies of it, each after a chain of one to three ops.

    The copies' weights are Dirichlet(1, ..., 1), their common share is even in 0..1; `severity` is the number of
    strengths, of ten, that occur. The consistency loss of the paper is no part of it. Source: Hendrycks et al. 2019,
    arXiv 1912.02781, algorithm 1.
    """
    space = Space(0.3, shape[2] / 3, shape[1] / 3, 30.0, 0.0, (4, 0))
    each = 2 + 3 * DEPTH  # draws of a chain: weight, length, and three for each op

    def chain(images: Tensor, uniform: Tensor) -> Tensor:
        length = 1 + (uniform[:, 0] * DEPTH).long()
        for place in range(DEPTH):
            which, strength, sign = uniform[:, 1 + 3 * place : 4 + 3 * place].unbind(1)
            op = torch.where(length > place, 1 + (which * MIXED).long(), OPS.index("identity"))
            images = distort(images, op, space.amounts(op, (strength * severity).floor() / 9, signs(sign)))
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


def signs(uniform: Tensor) -> Tensor:
    """Return 1 or -1, each for half of the draws."""
    return 1 - 2 * (uniform < 0.5).float()
