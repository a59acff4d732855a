"""Prediction methods: `(model, images (B, C, H, W)) -> Prediction`, with the model in evaluation mode.

Methods with several views or passes average probabilities for accuracy and `val/nll`, and logits for `val/loss`. The
loss says what its probabilities are; with hinge and mse, which have none, accuracy is that of the mean logits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from runner.engine.contracts import Predict
from runner.engine.losses import Loss
from runner.engine.parts import DROPOUTS
from runner.engine.posterior import posterior_of
from runner.engine.ramps import at_full_rate
from runner.engine.randomness import key
from runner.engine.views import MeanOverViews, mean_prediction
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import NotEmpty, PositiveInt, Range

_Shape = tuple[int, int, int]

# Attention has a dropout of its own
_TORCH_DROPOUTS = (*DROPOUTS, nn.MultiheadAttention)
# By name, because importing these libraries takes seconds and timm may not be installed
_LIBRARY_DROPOUTS = frozenset(
    [
        "torchvision.ops.stochastic_depth.StochasticDepth",
        "torchvision.ops.drop_block.DropBlock2d",
        "torchvision.ops.drop_block.DropBlock3d",
        "timm.layers.drop.DropPath",
        "timm.layers.drop.DropBlock2d",
        "timm.layers.patch_dropout.PatchDropout",
        "timm.layers.patch_dropout.PatchDropoutWithIndices",
    ]
)


@register("predict")
def plain(loss: Loss) -> Predict:
    """Return the model's logits and their probabilities, one forward pass per image."""
    return lambda model, images: mean_prediction([model(images)], loss)


@register("predict")
def tta(
    shape: _Shape, loss: Loss, *, views: Annotated[list[Literal["flip", "shift"]], NotEmpty()], shift: PositiveInt
) -> Predict:
    """Return test-time augmentation: the mean probability over each image and its views.

    `flip` mirrors left to right (Krizhevsky et al. 2012, section 4.1). `shift` translates by `shift` pixels to the
    lower right and to the upper left, with a reflected border (Jordan 2024, arXiv 2404.00498). Both together make six
    views of equal weight.

    Args:
        shape: Image shape (C, H, W).
        loss: The loss, which says what its probabilities are.
        views: Views beside the image itself: `flip`, `shift` or both.
        shift: Translation in pixels, >= 1.

    Raises:
        ConfigError: `shift` is not below the shorter side, or images have one pixel.
    """
    _require_pixels("tta", shape)
    if "shift" in views and shift >= min(shape[1:]):
        raise ConfigError(f"predict.shift: got {shift}, must be < {min(shape[1:])}, the image's shorter side")

    def views_of(model: nn.Module, images: Tensor) -> list[Tensor]:
        seen = [images, *(_diagonal_shifts(images, shift) if "shift" in views else [])]
        seen += [view.flip(-1) for view in seen] if "flip" in views else []
        return [model(view) for view in seen]

    return MeanOverViews(views_of, loss, "view")


@register("predict")
def ten_crop(shape: _Shape, loss: Loss, *, crop: Annotated[float, Range(0, 1, open_low=True)]) -> Predict:
    """Return ten-crop prediction: the mean over four corners and the center of the image and of its mirror image.

    Each crop is resized (bilinear) to the full image size, so that every model accepts it (Krizhevsky et al. 2012,
    section 4.1). The center crop begins at `round(margin / 2)`, as in torchvision.

    Args:
        shape: Image shape (C, H, W).
        loss: The loss, which says what its probabilities are.
        crop: Share of height and width that a crop shows, in (0, 1].

    Raises:
        ConfigError: Images have one pixel.
    """
    _require_pixels("ten_crop", shape)

    def crops_of(model: nn.Module, images: Tensor) -> list[Tensor]:
        return [model(view) for view in _ten_crops(images, crop)]

    return MeanOverViews(crops_of, loss, "crop")


@register("predict")
def mc_dropout(model: nn.Module, loss: Loss, *, passes: PositiveInt) -> Predict:
    """Return Monte Carlo dropout: the mean over passes with dropout on (Gal and Ghahramani 2015, arXiv 1506.02142).

    Dropout of every kind is on: dropout, DropBlock, DropConnect, stochastic depth, and modules of plugins with a class
    attribute `drops_at_random = True`. Masks come from PyTorch's global generator, which evaluation seeds.

    Args:
        model: The model that predicts.
        loss: The loss, which says what its probabilities are.
        passes: Forward passes per image, >= 1.

    Raises:
        ConfigError: The model has no dropout.
    """
    if not any(_is_dropout(module) for module in model.modules()):
        raise ConfigError("predict=mc_dropout: requires a model with dropout; add regularizer=[dropout]")

    def passes_of(model: nn.Module, images: Tensor) -> list[Tensor]:
        with _dropout_enabled(model):
            return [model(images) for _ in range(passes)]

    return MeanOverViews(passes_of, loss, "pass")


@register("predict")
def swag(loss: Loss, *, samples: PositiveInt) -> Predict:
    """Return the mean over models drawn from the distribution of `average=swag` (Maddox et al. 2019, arXiv 1902.02476).

    The draws depend on the seed of the evaluation only, so that all batches see the same models. Each is used with the
    BatchNorm statistics of the mean. Before two weights are collected, it is the prediction of the mean.

    Args:
        loss: The loss, which says what its probabilities are.
        samples: Models, >= 1.
    """

    def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
        posterior = posterior_of(model)
        if posterior is None or posterior.count < 2:
            return [model(images)]
        seed = torch.initial_seed()
        drawn = (posterior.sample(key(seed, "swag", number)) for number in range(samples))
        return [functional_call(model, weights, (images,)) for weights in drawn]

    return MeanOverViews(outputs, loss, "model")


def _require_pixels(name: str, shape: _Shape) -> None:
    """Raise ConfigError for images of one pixel: all their views are the same."""
    if shape[1:] == (1, 1):
        raise ConfigError(f"predict={name}: points (images of 1x1 pixel) have one view only; choose predict=plain")


def _diagonal_shifts(images: Tensor, by: int) -> list[Tensor]:
    """Return the images shifted to the lower right and to the upper left, with a reflected border."""
    height, width = images.shape[2:]
    padded = F.pad(images, [by] * 4, mode="reflect")
    return [padded[:, :, y : y + height, x : x + width] for y, x in ((0, 0), (2 * by, 2 * by))]


def _ten_crops(images: Tensor, crop: float) -> list[Tensor]:
    """Return corners and center of the images and of their mirror images, resized to the size of the images."""
    height, width = images.shape[2:]
    h, w = max(1, round(crop * height)), max(1, round(crop * width))
    down, right = height - h, width - w
    corners = [(0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2))]
    # At an odd margin the center of the mirror image is not the mirror image of the center
    views = [whole[:, :, y : y + h, x : x + w] for whole in (images, images.flip(-1)) for y, x in corners]
    return [F.interpolate(v, (height, width), mode="bilinear", align_corners=False) for v in views]


@contextmanager
def _dropout_enabled(model: nn.Module) -> Iterator[None]:
    """Put dropout modules, and no other, into training mode within the context, at their full rates."""
    off = [m for m in model.modules() if _is_dropout(m) and not m.training]
    for module in off:
        module.training = True
    try:
        with at_full_rate(model):
            yield
    finally:
        for module in off:
            module.training = False


def _is_dropout(module: nn.Module) -> bool:
    """Return True if a module drops something at random in training mode.

    A module of this project or of a plugin says so by `drops_at_random = True`.
    """
    if isinstance(module, _TORCH_DROPOUTS) or getattr(module, "drops_at_random", False):
        return True
    return any(f"{kind.__module__}.{kind.__qualname__}" in _LIBRARY_DROPOUTS for kind in type(module).__mro__)
