"""The features of a model's stages: what the next stage reads, with the mean over positions, for whole splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from runner.components.model.stages import Stage, readers_of
from runner.engine.batches import EvalBatches
from runner.engine.feature_cache import place_for
from runner.engine.head_features import sample_inputs
from runner.engine.parts import CONVOLUTIONS, has_running_statistics, mode
from runner.engine.stage_inputs import reading_stages
from runner.errors import ConfigError
from runner.printing import size_in_words

_Array = NDArray[np.float32]
# Bytes of a number that is kept, and of the float64 copies that a classifier works with
_KEPT, _WORKING = 4, 32
_CPU = torch.device("cpu")
# The number of features of stages
_Widths = dict[str, int]


@dataclass(frozen=True)
class StageReader:
    """Reads the features of stages.

    Attributes:
        model: The model, on the device of the batches.
        autocast: Returns a context manager for mixed precision.
        places: By stage, the names of the next stage's modules: the first that is called reads the features.
    """

    model: nn.Module
    autocast: Callable[[], AbstractContextManager[None]]
    places: dict[str, tuple[str, ...]]

    @torch.no_grad()
    def of(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the features (B, D) of stages for preprocessed images; those that the model does not compute lack."""
        found: dict[str, Tensor] = {}

        def keep(name: str, module: nn.Module, features: Tensor) -> None:
            found[name] = pooled(features, module)

        chosen = {name: self.places[name] for name in names}
        with mode(self.model, training=False), reading_stages(self.model, chosen, keep), self.autocast():
            self.model(images)
        return {name: features for name, features in found.items() if len(features) == len(images)}


def make_reader(
    model: nn.Module, found: Sequence[Stage], autocast: Callable[[], AbstractContextManager[None]]
) -> StageReader:
    """Return what reads the features of all stages below the head."""
    return StageReader(model, autocast, readers_of(model, found))


def pooled(features: Tensor, reader: nn.Module) -> Tensor:
    """Return features as (B, D) float32: the mean over positions, for the channels as the layer that reads them has."""
    x = features.detach().float()
    if x.ndim <= 2:
        return x
    last = x.ndim - 1
    channels = last if _reads_last_axis(reader, x.shape) else 1
    return x.mean([axis for axis in range(1, x.ndim) if axis != channels])


def _reads_last_axis(reader: nn.Module, shape: torch.Size) -> bool:
    """Return True if the first layer of a module takes the last axis for the channels."""
    for module in reader.modules():
        if isinstance(module, CONVOLUTIONS) or has_running_statistics(module):
            return False
        width = getattr(module, "normalized_shape", None) or getattr(module, "in_features", None)
        if width is not None:
            width = width if isinstance(width, int) else width[-1]
            # Swin merges 2 x 2 positions before it reads them; a 2d norm permutes its inputs
            last = shape[-1] in (width, width / 4) and not type(module).__name__.endswith("2d")
            return last and (shape[1] != width or shape[-1] == width)
    return len(shape) == 3


def groups_that_fit(
    reader: StageReader, shape: tuple[int, int, int], device: torch.device, count: int
) -> list[_Widths]:
    """Return the stages in groups whose features fit into a quarter of the free memory, with the widths.

    A group needs a pass over the data. Stages that the model does not call in evaluation are left out.

    Raises:
        ConfigError: The features of a single stage do not fit.
    """
    sample = reader.of(sample_inputs(shape, device), list(reader.places))
    groups: list[_Widths] = []
    for name, width in ((name, sample[name].shape[1]) for name in reader.places if name in sample):
        if place_for(_bytes([width], count), _CPU) is None:
            raise ConfigError(
                f"task.examples: got {count} with validation, whose features of stage {name} need "
                f"{size_in_words(_bytes([width], count))}, more than a quarter of the free memory; use fewer"
            )
        if groups and place_for(_bytes([*groups[-1].values(), width], count), _CPU) is not None:
            groups[-1][name] = width
        else:
            groups.append({name: width})
    return groups


def _bytes(widths: Sequence[int], count: int) -> int:
    """Return the bytes that the features of stages take while a classifier is fitted on the widest."""
    return count * (_KEPT * sum(widths) + _WORKING * max(widths))


def features_of(
    reader: StageReader, batches: EvalBatches, widths: _Widths
) -> tuple[dict[str, _Array], NDArray[np.int64]]:
    """Return the features (N, D) of stages for all examples of some batches, and their labels (N,)."""
    count, done = len(batches), 0
    found = {name: np.empty((count, width), np.float32) for name, width in widths.items()}
    labels = np.empty(count, np.int64)
    for images, own in batches:
        part = slice(done, done := done + len(own))
        labels[part] = own.cpu().numpy()
        for name, features in reader.of(images, list(widths)).items():
            found[name][part] = features.cpu().numpy()
    return found, labels
