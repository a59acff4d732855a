"""Features before the head, computed once: while only the head is trained, a step needs the head alone.

The parts of a run that read images are replaced by ones that read features instead; the loop and the learner stay as
they are. A batch of features and a batch of images differ in shape, and the shape says which part of the model runs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from runner.engine.batches import EvalBatches, TrainBatches
from runner.engine.contracts import Split
from runner.engine.free_memory import free_memory
from runner.engine.head_features import head_inputs, logits_of
from runner.engine.learner import Learner
from runner.engine.parts import mode
from runner.engine.probing import due
from runner.engine.recipe import Recipe

# The part of free memory that the features may take, of a GPU or of the machine
_MEMORY_SHARE = 1 / 4
_Parts = tuple[Recipe, Learner, TrainBatches, dict[str, EvalBatches]]


@dataclass(frozen=True)
class NoCache:
    """Trains on images in all steps.

    Attributes:
        line: A line for the summary, empty where there is nothing to say.
    """

    line: str = ""

    def parts(
        self, recipe: Recipe, learner: Learner, batches: TrainBatches, validation: dict[str, EvalBatches]
    ) -> _Parts:
        """Return the parts of a run as they are."""
        return recipe, learner, batches, validation


@dataclass(frozen=True, kw_only=True)
class FeatureCache(NoCache):
    """Trains on features in the first `steps` steps.

    Attributes:
        line: A line for the summary.
        head: The name of the classifier in the model.
        shape: The shape of the features of one example.
        steps: The steps in which only the head is trained.
        validates: Whether validation reads features, too.
        device: Where the features are kept.
    """

    head: str
    shape: torch.Size
    steps: int
    validates: bool
    device: torch.device

    def parts(
        self, recipe: Recipe, learner: Learner, batches: TrainBatches, validation: dict[str, EvalBatches]
    ) -> _Parts:
        """Return parts of the same run that read features while only the head is trained."""
        if learner.step >= self.steps:
            return recipe, learner, batches, validation
        features = _Features(self, recipe, learner)
        forward, predict = recipe.forward, recipe.predict
        cached = replace(
            recipe,
            forward=lambda model, x: self._logits(model, x) if self._are_features(x) else forward(model, x),
            predict=lambda model, x: predict(_Head(model, self.head) if self._are_features(x) else model, x),
        )
        if self.validates:
            validation = {name: _FeatureEvalBatches(each, features, self.steps) for name, each in validation.items()}
        return cached, learner, _FeatureBatches(batches, features, self.steps), validation

    def _are_features(self, inputs: Tensor) -> bool:
        """Return True for a batch of features."""
        return inputs.shape[1:] == self.shape

    def _logits(self, model: nn.Module, features: Tensor) -> Tensor:
        """Return the logits (B, K) of features."""
        return logits_of(model, self.head, features)


class _Head(nn.Module):
    """The head of a model, as a model of features."""

    def __init__(self, model: nn.Module, head: str) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B, K) of features (B, ...)."""
        return logits_of(self.model, self.head, features)


class _Features:
    """The features of whole splits, each computed when it is first asked for."""

    def __init__(self, cache: FeatureCache, recipe: Recipe, learner: Learner) -> None:
        self._cache, self._recipe, self.learner = cache, recipe, learner
        self._known: dict[int, tuple[Split, Tensor]] = {}

    def of(self, split: Split, batches: EvalBatches) -> Tensor:
        """Return the features (N, ...) of all examples of a split; `batches` are those of the whole split."""
        if id(split) not in self._known:
            self._known[id(split)] = split, self._computed(batches)
        return self._known[id(split)][1]

    @torch.no_grad()
    def _computed(self, batches: EvalBatches) -> Tensor:
        model, found = self.learner.model, list[Tensor]()
        with mode(model, training=False):
            for images, _ in batches:
                with self._recipe.autocast():
                    found.append(head_inputs(model, self._cache.head, images)[0].to(self._cache.device))
        return torch.cat(found)

    def is_probed(self, step: int) -> bool:
        """Return True if a probe looks at a step, which then runs the whole model; the first step is 1."""
        return bool(due(self._recipe.probes, step))


class _FeatureBatches(TrainBatches):
    """Training batches that are features in the first `steps` steps, and images after that."""

    def __init__(self, batches: TrainBatches, features: _Features, steps: int) -> None:
        vars(self).update(vars(batches))
        self._images, self._features, self._steps = batches, features, steps

    def stream(self, start: int, stop: int) -> Generator[tuple[Tensor, Tensor], None, None]:
        """Yield (features or images, labels (B,)) for the steps from `start` up to before `stop`."""
        switch = min(stop, self._steps)
        if start < switch:
            yield from self._stream_features(start, switch)
        if stop > switch:
            yield from self._images.stream(max(start, switch), stop)

    def _stream_features(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        whole = EvalBatches(self.split, batch=self.batch, preprocess=self.preprocess, device=self.device)
        known = self._features.of(self.split, whole)
        for step, examples in enumerate(self.step_examples(start, stop), start):
            labels = self.split.labels.index_select(0, examples.index).to(self.device, non_blocking=True)
            if self._features.is_probed(step + 1):
                yield self.preprocess(self.split.fetch(examples.index).to(self.device)), labels
            else:
                yield known.index_select(0, examples.index.to(known.device)).to(self.device, non_blocking=True), labels


class _FeatureEvalBatches(EvalBatches):
    """Batches of a split that are features up to step `steps` of the learner, and images after that."""

    def __init__(self, batches: EvalBatches, features: _Features, steps: int) -> None:
        vars(self).update(vars(batches))
        self._images, self._features, self._steps = batches, features, steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._features.learner.step > self._steps:
            yield from self._images
            return
        whole = EvalBatches(self.split, batch=self.batch, preprocess=self.preprocess, device=self.device)
        known = self._features.of(self.split, whole)
        share = self.world.slice(self.index)
        for index in (part for part in torch.split(share, self.batch) if len(part)):
            labels = self.split.labels.index_select(0, index.to(self.split.labels.device))
            features = known.index_select(0, index.to(known.device))
            yield features.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def place_for(size: int, device: torch.device) -> torch.device | None:
    """Return where `size` bytes of features are kept: the device, the host if the device is small, or None."""
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE:
        return device
    if size <= free_memory() * _MEMORY_SHARE:
        return device if device.type != "cuda" else torch.device("cpu")
    return None
