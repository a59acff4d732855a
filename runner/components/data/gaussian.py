"""Random numbers in place of pictures: what theory says of signals in a network can be held against it."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch

from runner.engine.contracts import Data, Images, InMemory
from runner.engine.randomness import key, numpy_generator
from runner.registry import register
from runner.roles import Aspect, Role
from runner.schema import NonNegativeInt, PositiveInt

CENTRE, UNIT = 127.5, 25.5  # of 0..255: five standard deviations either way, in steps of 0.04


@register("data")
def gaussian(
    *,
    size: PositiveInt,
    classes: PositiveInt,
    train: PositiveInt,
    val: PositiveInt,
    test: PositiveInt,
    data_seed: NonNegativeInt,
    batch_size: Annotated[PositiveInt, Aspect.TRAINING],
    placement: Annotated[InMemory, Role.EXECUTION],
) -> Data:
    """Return pictures (1, size, size) of independent normal pixels, with labels that mean nothing; uint8 like all.

    With `preprocess=standardize` the input is N(0, 1), but for steps of 0.04 and a cut at 5.
    """

    def drawn(split: str, count: int) -> Images:
        values = numpy_generator(key(data_seed, "gaussian", split)).standard_normal((count, 1, size, size))
        pixels = np.rint(CENTRE + UNIT * values).clip(0, 255).astype(np.uint8)
        return Images(torch.from_numpy(pixels), torch.arange(count) % classes)

    return Data(
        train=drawn("train", train),
        val=drawn("val", val),
        test=lambda: drawn("test", test),
        shape=(1, size, size),
        classes=tuple(map(str, range(classes))),
        batch_size=batch_size,
        placement=placement,
    )
