"""Knowledge distillation: the gradients of a loss that compares the model's logits with a teacher's, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from runner.engine.contracts import Probe, Watch, Watched
from runner.engine.learner import Learner
from runner.engine.recipe import Recipe, gradients_of

# Images (B, C, H, W) as the model gets them -> the teacher's logits (B, K), without gradients
Teach = Callable[[Tensor], Tensor]
_SOFT, _HARD = "train/soft_loss", "train/hard_loss"


@dataclass(frozen=True)
class Distillation:
    """How a model learns from a teacher.

    Attributes:
        teacher: The run folder of the teacher.
        sha256: The SHA-256 of its tensors, None if it is not known.
        soft: (logits (B, K), the teacher's logits (B, K)) -> mean loss ().
        alpha: The weight of the loss on the labels; `1 - alpha` is that of `soft`.
        features: The weight of the loss that compares features; 0 for none.
        stages: The names of the stages whose features are compared, of the model and of the teacher; None for the
            last ones of both.
    """

    teacher: str | None
    sha256: str | None
    soft: Callable[[Tensor, Tensor], Tensor]
    alpha: float
    features: float = 0.0
    stages: Sequence[tuple[str, str]] | None = None


@dataclass
class Distiller:
    """The gradients of a distillation, and the probe that logs its losses at each step.

    The losses of a step are those of its first pass, at the weights before the step.
    """

    distillation: Distillation
    teach: Teach
    # Of the first pass since the probe began
    _losses: dict[str, Tensor] = field(default_factory=dict)

    def gradients(self, recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the gradients of the weighted losses, as `Gradients` does, and return their mean ()."""
        parts: list[tuple[int, dict[str, Tensor]]] = []

        def objective(recipe: Recipe, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            losses = self.losses_of(recipe, model, x, y)
            parts.append((len(x), {tag: loss.detach() for tag, loss in losses.items()}))
            return self.total_of(losses)

        mean_loss = gradients_of(objective, recipe, learner, images, labels)
        self._losses = self._losses or _means(parts, len(images))
        return mean_loss

    def losses_of(self, recipe: Recipe, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses () of a micro-batch, by the tag that they are logged as."""
        logits = recipe.forward(model, images)
        return {_SOFT: self.distillation.soft(logits, self.teach(images)), _HARD: recipe.loss(logits, labels)}

    def total_of(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum () of the losses."""
        return self.distillation.alpha * losses[_HARD] + (1 - self.distillation.alpha) * losses[_SOFT]

    @property
    def probe(self) -> Probe:
        """Return what logs the losses of each step."""
        return Probe(every=1, watch=self._watch)

    def _watch(self, watched: Watched) -> Watch:
        self._losses = {}
        yield
        return self._losses


def _means(parts: Sequence[tuple[int, dict[str, Tensor]]], examples: int) -> dict[str, Tensor]:
    """Return the mean losses () of a batch from those of its micro-batches."""
    sizes = [size for size, _ in parts]
    return {tag: _mean(sizes, [losses[tag] for _, losses in parts], examples) for tag in parts[0][1]}


def _mean(sizes: Sequence[int], losses: Sequence[Tensor], examples: int) -> Tensor:
    """Return the mean loss () of a batch from the means of its parts."""
    if len(losses) == 1:
        return losses[0]
    return torch.stack([loss * (size / examples) for size, loss in zip(sizes, losses, strict=True)]).sum()
