"""The batches of the first steps: whether one is that of the step before, and the range of its labels."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.engine.invariants.evidence import pixels_of
from runner.engine.invariants.known import Known
from runner.engine.invariants.violation import Violation

# Examples of a batch below which two equal ones may be chance
_FEWEST = 8


class Batches:
    """Compares each batch with the one before.

    Attributes:
        repeated: Whether the labels, and the images, are those of the step before, and the logarithm of the chance of
            equal labels (3,); None where two batches cannot be compared.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._batch: tuple[Tensor, Tensor] | None = None
        self.repeated: Tensor | None = None
        # Of a batch with the labels of the one before, which is the same for all of them
        self._chance: Tensor | None = None

    def see(self, images: Tensor, labels: Tensor) -> None:
        """Compare a batch, before it is mixed, with that of the step before."""
        before, self._batch = self._batch, (pixels_of(images), labels.detach().clone())
        self.repeated = None
        if not self._known.several_batches or before is None or len(images) < _FEWEST:
            return
        (old, old_labels), (new, new_labels) = before, self._batch
        if old.shape == new.shape and old_labels.shape == new_labels.shape:
            alike = (old == new).all() & (new != new[:1]).any()
            if self._chance is None:
                self._chance = _log_chance(new_labels, self._known.classes)
            self.repeated = torch.stack([(old_labels == new_labels).all().float(), alike.float(), self._chance])


def label_range(labels: Tensor, classes: int, step: int) -> Tensor:
    """Return the smallest and the largest label, of soft ones the smallest value and the range of sums."""
    width = labels.shape[1] if labels.ndim == 2 else classes
    if labels.ndim > 2 or labels.is_floating_point() != (labels.ndim == 2) or width != classes:
        problem = f"labels are {str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        wanted = f"must be integers (B,) or numbers (B, {classes})"
        raise Violation("labels", step, f"{problem}, {wanted}", "mix and the data set's labels", ("mix", "data"))
    if not len(labels):
        return torch.zeros(2, device=labels.device)
    if labels.ndim == 1:
        return torch.stack([labels.min(), labels.max()]).float()
    sums = labels.detach().float().sum(1)
    return torch.stack([labels.detach().float().min(), labels.detach().float().max(), sums.min(), sums.max()])


def _log_chance(labels: Tensor, classes: int) -> Tensor:
    """Return the logarithm of the chance () that another batch has the same labels (B,) in the same order."""
    shares = (labels[:, None] == torch.arange(classes, device=labels.device)).float().mean(0)
    return len(labels) * shares.square().sum().log()
