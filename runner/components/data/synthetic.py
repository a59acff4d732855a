"""Data sets made from a seed: as many examples as one likes, and problems whose difficulty is a knob."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from runner.engine.contracts import Data, Images, InMemory
from runner.engine.randomness import key, numpy_generator
from runner.registry import register
from runner.relations import With
from runner.roles import Aspect, Role
from runner.schema import NonNegative, NonNegativeInt, PositiveInt, Range

Array = NDArray[Any]
Make = Callable[[np.random.Generator, Array], Array]  # (random numbers, labels (N,)) -> values (N, C, H, W), 0..1

SHAPES: dict[str, Callable[[Array, Array], Array]] = {  # inside at (x, y), where 1 is the shape's radius
    "disc": lambda x, y: x**2 + y**2 < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "triangle": lambda x, y: (y < 0.7) & (y > 2 * abs(x) - 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "bar": lambda x, y: (abs(y) < 0.3) & (abs(x) < 1),
}


@register("data")
def synthetic(
    *,
    kind: Literal["spirals", "blobs", "shapes"],
    classes: Annotated[int, Range(2), With("kind", "shapes", Range(high=6))],
    noise: NonNegative,
    size: Annotated[int, Range(8)],
    train: PositiveInt,
    val: PositiveInt,
    test: PositiveInt,
    data_seed: NonNegativeInt,
    batch_size: Annotated[PositiveInt, Aspect.TRAINING],
    placement: Annotated[InMemory, Role.EXECUTION],
) -> Data:
    """Return points of the plane (2, 1, 1) in spirals or blobs, or pictures (1, size, size) of shapes; uint8 like all.

    The splits are drawn one by one from `data_seed`, so that one's size does not change another. Classes are equally
    frequent (to within one example).
    """
    make: Make = {
        "spirals": partial(spirals, classes=classes, noise=noise),
        "blobs": partial(blobs, classes=classes, noise=noise),
        "shapes": partial(shapes, size=size, noise=noise),
    }[kind]

    def drawn(split: str, count: int) -> Images:
        labels = np.arange(count) % classes
        values = make(numpy_generator(key(data_seed, "synthetic", kind, split)), labels)
        pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
        return Images(torch.from_numpy(pixels), torch.from_numpy(labels).long())

    return Data(
        train=drawn("train", train),
        val=drawn("val", val),
        test=lambda: drawn("test", test),
        shape=(1, size, size) if kind == "shapes" else (2, 1, 1),
        classes=tuple(SHAPES)[:classes] if kind == "shapes" else tuple(map(str, range(classes))),
        batch_size=batch_size,
        placement=placement,
    )


def spirals(random: np.random.Generator, labels: Array, *, classes: int, noise: float) -> Array:
    """Return points on arms that wind once round the centre, one arm per class; noise is in widths of the plane."""
    along = random.uniform(0.05, 1, len(labels))
    angle = 2 * math.pi * (along + labels / classes)
    return on_plane(along * np.cos(angle), along * np.sin(angle), noise, random)


def blobs(random: np.random.Generator, labels: Array, *, classes: int, noise: float) -> Array:
    """Return Gaussian clouds round points on a circle, one per class; noise is their standard deviation."""
    angle = 2 * math.pi * labels / classes
    return on_plane(0.6 * np.cos(angle), 0.6 * np.sin(angle), noise, random)


def on_plane(x: Array, y: Array, noise: float, random: np.random.Generator) -> Array:
    """Return points of the square [-1, 1]², with noise, as values 0..1 (N, 2, 1, 1)."""
    points = np.stack([x, y], 1) * 0.9 + random.normal(0, 2 * noise, (len(x), 2))
    return np.asarray(points / 2 + 0.5)[:, :, None, None]


def shapes(random: np.random.Generator, labels: Array, *, size: int, noise: float) -> Array:
    """Return bright shapes of random size and place on a dark ground; noise is the standard deviation of each pixel."""
    radius, dark, bright, x, y = random.uniform(
        [[0.4], [0.0], [0.6], [-1.0], [-1.0]], [[0.8], [0.3], [1.0], [1.0], [1.0]], (5, len(labels))
    )[:, :, None, None]
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    across, down = (axis[None, :] - x * (1 - radius)) / radius, (axis[:, None] - y * (1 - radius)) / radius
    inside = np.stack([list(SHAPES.values())[label](across[i], down[i]) for i, label in enumerate(labels)])
    return np.asarray(np.where(inside, bright, dark) + random.normal(0, noise, inside.shape))[:, None]
