"""Similarity-preserving distillation of features (Tung and Mori 2019, arXiv 1907.09682).

Two models agree where they find the same images of a batch alike. The matrices of similarities have the size of the
batch, so that features of different widths, map sizes and architectures are compared without more parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.engine.distillation import Distiller
from runner.engine.losses import at_least_float32
from runner.engine.recipe import Recipe
from runner.engine.stage_inputs import Readers, reading_stages

_FEATURES = "train/feature_loss"


def _similarities(features: Tensor) -> Tensor:
    """Return the similarities (B, B) of the images in features (B, ...), at least in float32, also under autocast.

    These are the scalar products of the features of two images, with rows of length 1. A row of zeros stays so.
    """
    with torch.autocast(features.device.type, enabled=False):
        # A copy, because the layer that reads the features may change them in place
        rows = at_least_float32(features).clone(memory_format=torch.contiguous_format).flatten(1)
        products = rows @ rows.T
        lengths = torch.linalg.vector_norm(products, dim=1, keepdim=True)
        return products / torch.where(lengths > 0, lengths, 1.0)


def _similarity_loss(own: Tensor, theirs: Tensor) -> Tensor:
    """Return the mean squared difference () of two matrices of similarities (equation 4)."""
    return (own - theirs).square().mean()


@dataclass(kw_only=True)
class FeatureDistiller(Distiller):
    """A distillation that compares the features of some stages, too. Its loss is added with a weight.

    Attributes:
        teacher: The model of the teacher, which `teach` calls.
        own, theirs: What reads the features of the stages of the model, and of the teacher.
        pairs: The names of the stages that are compared, of the model and of the teacher.
        weight: The weight of the mean loss of the pairs.
    """

    teacher: nn.Module
    own: Readers
    theirs: Readers
    pairs: Sequence[tuple[str, str]]
    weight: float

    def losses_of(self, recipe: Recipe, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses () of a micro-batch with that of the features; similarities are within the micro-batch."""
        found: dict[str, Tensor] = {}
        targets: dict[str, Tensor] = {}
        with (
            reading_stages(model, self.own, lambda name, _, x: found.update({name: _similarities(x)})),
            reading_stages(self.teacher, self.theirs, lambda name, _, x: targets.update({name: _similarities(x)})),
        ):
            losses = super().losses_of(recipe, model, images, labels)
        pairs = [_similarity_loss(found[own], targets[theirs]) for own, theirs in self.pairs]
        return {**losses, _FEATURES: torch.stack(pairs).mean()}

    def total_of(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum () of the losses."""
        return super().total_of(losses) + self.weight * losses[_FEATURES]
