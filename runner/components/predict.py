"""Prediction: `(model, images (B, C, H, W)) -> log-probabilities (B, K)` from a model in evaluation mode.

Where several views or passes are made, the probabilities are averaged (not the logits), and their logarithm returned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.engine.contracts import Predict
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NotEmpty, PositiveInt, Range

Shape = tuple[int, int, int]


@register("predict")
def plain() -> Predict:
    """Return the prediction from the images as they are."""
    return log_probabilities


@register("predict")
def tta(shape: Shape, *, views: Annotated[list[Literal["flip", "shift"]], NotEmpty()], shift: PositiveInt) -> Predict:
    """Return the mean over the images as they are and the views named: test-time augmentation.

    flip: mirrored left to right (Krizhevsky et al. 2012, section 4.1). shift: moved by `shift` pixels to the lower
    right and to the upper left, the border mirrored (Jordan 2024, arXiv 2404.00498). Both: all six combinations, of
    equal weight. Raises ConfigError for a shift that leaves nothing of the image, and for points.
    """
    check_pixels("tta", shape)
    if "shift" in views and shift >= min(shape[1:]):
        raise ConfigError(f"predict.shift: got {shift}, must be < {min(shape[1:])}, the image's shorter side")

    def predict(model: nn.Module, images: Tensor) -> Tensor:
        seen = [images, *(shifted(images, shift) if "shift" in views else [])]
        seen += [view.flip(-1) for view in seen] if "flip" in views else []
        return mean([log_probabilities(model, view) for view in seen])

    return predict


@register("predict")
def ten_crop(shape: Shape, *, crop: Annotated[float, Range(0, 1, open_low=True)]) -> Predict:
    """Return the mean over the four corners and the centre of the images, and their mirror images.

    Krizhevsky et al. 2012, section 4.1. Each view shows the share `crop` of height and width, resized (bilinear) to the
    whole size, which every model takes. Raises ConfigError for points.
    """
    check_pixels("ten_crop", shape)

    def predict(model: nn.Module, images: Tensor) -> Tensor:
        return mean([log_probabilities(model, view) for view in ten(images, crop)])

    return predict


@register("predict")
def mc_dropout(model: nn.Module, *, passes: PositiveInt) -> Predict:
    """Return the mean over passes with dropout on: an ensemble of thinned models (arXiv 1506.02142).

    All that drops at random is on: dropout of every kind, DropBlock, DropConnect, stochastic depth. The masks come from
    torch's global generator, which evaluation seeds. Raises ConfigError for a model that drops nothing.
    """
    if not any(drops(module) for module in model.modules()):
        raise ConfigError("predict=mc_dropout: the model drops nothing at random; give it regularizer=[dropout]")

    def predict(model: nn.Module, images: Tensor) -> Tensor:
        with dropping(model):
            return mean([log_probabilities(model, images) for _ in range(passes)])

    return predict


def check_pixels(name: str, shape: Shape) -> None:
    """Raise ConfigError for points (images of one pixel), all of whose views are the same."""
    if shape[1:] == (1, 1):
        raise ConfigError(f"predict={name}: points (images of 1x1 pixel) have one view only; choose predict=plain")


def log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Return the log-softmax of a model's logits, in at least float32."""
    logits: Tensor = model(images)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def mean(predictions: list[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the probabilities, stable where they are tiny."""
    return torch.stack(predictions).logsumexp(0) - math.log(len(predictions))


def shifted(images: Tensor, by: int) -> list[Tensor]:
    """Return the images moved to the lower right and to the upper left, the border mirrored."""
    height, width = images.shape[2:]
    padded = F.pad(images, [by] * 4, mode="reflect")
    return [padded[:, :, y : y + height, x : x + width] for y, x in ((0, 0), (2 * by, 2 * by))]


def ten(images: Tensor, crop: float) -> list[Tensor]:
    """Return corners and centre, each and mirrored, at the size of the images."""
    height, width = images.shape[2:]
    h, w = max(1, round(crop * height)), max(1, round(crop * width))
    down, right = height - h, width - w
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    views = [images[:, :, y : y + h, x : x + w] for y, x in corners]
    full = [F.interpolate(v, (height, width), mode="bilinear", align_corners=False) for v in views]
    return full + [view.flip(-1) for view in full]


@contextmanager
def dropping(model: nn.Module) -> Iterator[None]:
    """Put what drops at random into training mode, and nothing else (no norm), for the time being."""
    off = [m for m in model.modules() if drops(m) and not m.training]
    for module in off:
        module.training = True
    try:
        yield
    finally:
        for module in off:
            module.training = False


def drops(module: nn.Module) -> bool:
    """Tell by its name whether a module drops something; attention has a dropout of its own."""
    words = ("Drop", "StochasticDepth", "MultiheadAttention")
    return any(word in type(module).__name__ for word in words)
