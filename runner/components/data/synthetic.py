"""Synthetic data sets, generated from a seed: any number of examples, and difficulty as a knob."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from runner.batch_sizes import BatchSize
from runner.engine.contracts import Data, Images, InMemory, Sampling
from runner.engine.data_summary import Found
from runner.engine.fingerprint import Part, digest, identified_by
from runner.engine.randomness import key, numpy_generator
from runner.registry import register
from runner.relations import With
from runner.roles import Aspect, Role
from runner.schema import NonNegative, NonNegativeInt, PositiveInt, Range

_Array = NDArray[Any]
# (random numbers, labels (N,)) -> values (N, C, H, W) in 0..1
_Make = Callable[[np.random.Generator, _Array], _Array]

# True inside the shape at (x, y), in units of its radius
_SHAPES: dict[str, Callable[[_Array, _Array], _Array]] = {
    "disc": lambda x, y: x**2 + y**2 < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "triangle": lambda x, y: (y < 0.7) & (y > 2 * abs(x) - 1),
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1),
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.4),
    "bar": lambda x, y: (abs(y) < 0.3) & (abs(x) < 1),
}
# In units of 0..255: five standard deviations either way, in steps of 0.04
_GAUSSIAN_MEAN, _GAUSSIAN_STD = 127.5, 25.5


def _synthetic_identity(
    *, kind: str, classes: int, noise: float, size: int, train: int, val: int, test: int, data_seed: int
) -> dict[str, Part]:
    """Return what identifies a data set of `synthetic`."""
    return _generated_parts([kind, classes, float(noise), size, data_seed], {"train": train, "val": val, "test": test})


def _gaussian_identity(*, size: int, classes: int, train: int, val: int, test: int, data_seed: int) -> dict[str, Part]:
    """Return what identifies a data set of `gaussian`."""
    return _generated_parts(["gaussian", classes, size, data_seed], {"train": train, "val": val, "test": test})


def _generated_parts(knobs: list[str | int | float], counts: dict[str, int]) -> dict[str, Part]:
    """Return the parts of a generated data set: its knobs, and the number of examples of each split."""
    made = digest(map(repr, knobs))
    return {split: Part(listing=digest([split, str(count)]), content=made) for split, count in counts.items()}


@register("data")
@identified_by(_synthetic_identity)
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
    batch_size: Annotated[BatchSize, Aspect.TRAINING],
    sampling: Annotated[Sampling, Aspect.TRAINING],
    placement: Annotated[InMemory, Role.EXECUTION],
) -> Data:
    """Generate points of the plane (2, 1, 1) in spirals or blobs, or images (1, size, size) of shapes, as uint8.

    Each split has its own random numbers from `data_seed`, so that the size of one does not change another. Classes are
    equally frequent, to within one example. A point has its two coordinates as channels.
    """
    make = _maker(kind, classes, noise, size)

    def generate(split: str, count: int) -> Images:
        labels = np.arange(count) % classes
        pixels = np.rint(make(numpy_generator(key(data_seed, "synthetic", kind, split)), labels).clip(0, 1) * 255)
        return Images(torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels).long())

    return Data(
        train=generate("train", train),
        val=generate("val", val),
        test=lambda: generate("test", test),
        shape=(1, size, size) if kind == "shapes" else (2, 1, 1),
        classes=tuple(_SHAPES)[:classes] if kind == "shapes" else tuple(map(str, range(classes))),
        batch_size=batch_size,
        sampling=sampling,
        placement=placement,
        found=_found(classes, train, val, test),
    )


def _maker(kind: str, classes: int, noise: float, size: int) -> _Make:
    """Return the function that makes the values of a kind."""
    made: dict[str, _Make] = {
        "spirals": partial(_spirals, classes=classes, noise=noise),
        "blobs": partial(_blobs, classes=classes, noise=noise),
        "shapes": partial(_shapes, size=size, noise=noise),
    }
    return made[kind]


def _found(classes: int, train: int, val: int, test: int) -> Found:
    """Return the number of examples per class and split, where labels cycle through the classes."""

    def cycle(count: int) -> list[int]:
        return [len(range(label, count, classes)) for label in range(classes)]

    counts = {"train": cycle(train), "val": cycle(val), "test": cycle(test)}
    return Found([sum(each) for each in zip(*counts.values(), strict=True)], counts)


def _spirals(random: np.random.Generator, labels: _Array, *, classes: int, noise: float) -> _Array:
    """Return points on arms that wind once around the center, one arm per class; noise is in widths of the plane."""
    along = random.uniform(0.05, 1, len(labels))
    angle = 2 * math.pi * (along + labels / classes)
    return _on_plane(along * np.cos(angle), along * np.sin(angle), noise, random)


def _blobs(random: np.random.Generator, labels: _Array, *, classes: int, noise: float) -> _Array:
    """Return Gaussian blobs around points on a circle, one per class; noise is their standard deviation."""
    angle = 2 * math.pi * labels / classes
    return _on_plane(0.6 * np.cos(angle), 0.6 * np.sin(angle), noise, random)


def _on_plane(x: _Array, y: _Array, noise: float, random: np.random.Generator) -> _Array:
    """Return points of the square [-1, 1]^2 with noise, as values 0..1 (N, 2, 1, 1)."""
    points = np.stack([x, y], 1) * 0.9 + random.normal(0, 2 * noise, (len(x), 2))
    return np.asarray(points / 2 + 0.5)[:, :, None, None]


def _shapes(random: np.random.Generator, labels: _Array, *, size: int, noise: float) -> _Array:
    """Return bright shapes of random size and position on dark ground; noise is the standard deviation of a pixel."""
    radius, dark, bright, x, y = random.uniform(
        [[0.4], [0.0], [0.6], [-1.0], [-1.0]], [[0.8], [0.3], [1.0], [1.0], [1.0]], (5, len(labels))
    )[:, :, None, None]
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    across, down = (axis[None, :] - x * (1 - radius)) / radius, (axis[:, None] - y * (1 - radius)) / radius
    inside = np.stack([list(_SHAPES.values())[label](across[i], down[i]) for i, label in enumerate(labels)])
    return np.asarray(np.where(inside, bright, dark) + random.normal(0, noise, inside.shape))[:, None]


@register("data")
@identified_by(_gaussian_identity)
def gaussian(
    *,
    size: PositiveInt,
    classes: PositiveInt,
    train: PositiveInt,
    val: PositiveInt,
    test: PositiveInt,
    data_seed: NonNegativeInt,
    batch_size: Annotated[BatchSize, Aspect.TRAINING],
    sampling: Annotated[Sampling, Aspect.TRAINING],
    placement: Annotated[InMemory, Role.EXECUTION],
) -> Data:
    """Generate images (1, size, size) of independent normal pixels with meaningless labels, as uint8.

    With `preprocess=standardize` the input is N(0, 1), quantized in steps of 0.04 and clipped at 5, so that theory on
    signal propagation can be tested.

    Returns:
        Pixels (N, 1, size, size) in 0..255 with mean 127.5 and standard deviation 25.5.
    """

    def generate(split: str, count: int) -> Images:
        values = numpy_generator(key(data_seed, "gaussian", split)).standard_normal((count, 1, size, size))
        pixels = np.rint(_GAUSSIAN_MEAN + _GAUSSIAN_STD * values).clip(0, 255).astype(np.uint8)
        return Images(torch.from_numpy(pixels), torch.arange(count) % classes)

    return Data(
        train=generate("train", train),
        val=generate("val", val),
        test=lambda: generate("test", test),
        shape=(1, size, size),
        classes=tuple(map(str, range(classes))),
        batch_size=batch_size,
        sampling=sampling,
        placement=placement,
        found=_found(classes, train, val, test),
    )
