"""Snapshots: the weights of a run at dates, in the host's memory, and the mean of their predictions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from runner.engine.saving.held_weights import HeldWeights, StepWeights
from runner.engine.state_dict import StateDict, load_part, state_of

# Logits (B, K), log-probabilities (B, K) if the loss has them, and labels (B,) of a batch, on the CPU
PredictedBatch = tuple[Tensor, Tensor | None, Tensor]


@dataclass
class MeanPrediction:
    """The mean of the predictions of some members for a split: of logits, and of probabilities.

    Attributes:
        members: The steps of the members.
        batches: The mean predictions.
        newest: The scores of the newest member alone.
        scores: The scores of the mean.
    """

    members: list[int] = field(default_factory=list)
    batches: list[PredictedBatch] = field(default_factory=list)
    newest: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)

    def add(self, step: int, batches: list[PredictedBatch]) -> None:
        """Take the predictions of another member into the mean; that of one member is its own, bit for bit."""
        self.members.append(step)
        count = len(self.members)
        if count > 1:
            batches = [_mean(mean, new, count) for mean, new in zip(self.batches, batches, strict=True)]
        self.batches = batches


def _mean(mean: PredictedBatch, new: PredictedBatch, count: int) -> PredictedBatch:
    """Return the mean of `count` predictions from that of all but one, and the last one."""
    logits = mean[0].lerp(new[0], 1 / count)
    if mean[1] is None or new[1] is None:
        return logits, None, mean[2]
    return logits, torch.logaddexp(mean[1] + math.log(1 - 1 / count), new[1] - math.log(count)), mean[2]


class Snapshots:
    """The weights of the model after some steps; each is stored in a weights file by the next checkpoint.

    Args:
        model: The model, of which one copy is made to predict with.
        dates: The steps after which its weights are kept.
    """

    def __init__(self, model: nn.Module, dates: Iterable[int]) -> None:
        self.dates = sorted(set(dates))
        self._dates = frozenset(self.dates)
        self.member = copy.deepcopy(model).requires_grad_(False)
        self._held: dict[int, HeldWeights] = {}
        self._saved: set[int] = set()
        self._means: dict[str, MeanPrediction] = {}

    def take(self, model: nn.Module, step: int) -> None:
        """Copy the weights to the host if `step` is a date; the device does not wait."""
        if step in self._dates:
            self._hold(state_of(model=model), step)

    def _hold(self, weights: StateDict, step: int) -> None:
        self._held[step] = HeldWeights()
        self._held[step].copy(weights, step)

    def until(self, step: int) -> list[int]:
        """Return the steps of the snapshots up to `step`, in ascending order."""
        return [date for date in self.dates if date <= step and date in self._held]

    def of(self, step: int) -> StateDict:
        """Return the model's tensors of a snapshot, by the names that a checkpoint has."""
        found = self._held[step].of(step)
        assert found is not None
        return found.weights

    def unsaved(self, step: int, preprocess: nn.Module) -> list[StepWeights]:
        """Return the snapshots up to `step` that are in memory only, with what evaluation needs besides the model."""
        found = []
        for date in self.until(step):
            if date not in self._saved:
                weights, more = self.of(date), state_of(preprocess=preprocess)
                whole = StateDict({**weights, **more})
                whole.versions = {**(weights.versions or {}), **(more.versions or {})}
                found.append(StepWeights(date, whole))
        return found

    def mark_saved(self, step: int) -> None:
        """Note that the snapshots up to `step` are stored."""
        self._saved.update(self.until(step))

    def load(self, step: int, read: Callable[[int], Mapping[str, Tensor]]) -> None:
        """Take the snapshots up to `step` from their files; `read` returns the tensors of one."""
        self._held, self._saved, self._means = {}, set(), {}
        for date in [each for each in self.dates if each <= step]:
            found = read(date)
            weights = StateDict({name: tensor for name, tensor in found.items() if name.startswith("model.")})
            weights.versions = found.versions if isinstance(found, StateDict) else None
            self._hold(weights, date)
        self.mark_saved(step)

    def member_of(self, step: int) -> nn.Module:
        """Return the copy of the model with the weights of a snapshot."""
        load_part("model", self.member, self.of(step))
        return self.member

    def mean_of(self, split: str) -> MeanPrediction:
        """Return the mean prediction for a split, as far as it was computed."""
        return self._means.setdefault(split, MeanPrediction())


class NoSnapshots(Snapshots):
    """No snapshots: there is no date."""

    def __init__(self) -> None:
        super().__init__(nn.Module(), ())
