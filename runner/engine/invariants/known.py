"""Facts about a run besides its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner.engine.invariants.clip_limits import Excess

# step -> the weight of the model after each step in the average (0: before the first); None where it is not known
Formula = Callable[[int], Mapping[int, float] | None]


@dataclass(frozen=True, kw_only=True)
class Known:
    """Facts about a run besides its recipe.

    Attributes:
        classes: The number of classes.
        excess: How far gradients are above the limit of clipping; None without clipping.
        formula: The formula of the weight average; None if it is not known.
        loss_weight: The factor on the loss of the labels in the gradients; None if it is not known.
        each_step: True if the optimizer changes the weights in each step.
        soft_labels: True if soft labels sum to 1.
        sees_modules: True if the forward pass calls hooks of modules.
        several_batches: True if an epoch has more than one batch.
        predicts_alike: True if evaluation draws no random numbers.
    """

    classes: int
    excess: Excess | None = None
    formula: Formula | None = None
    loss_weight: float | None = 1.0
    each_step: bool = True
    soft_labels: bool = True
    sees_modules: bool = True
    several_batches: bool = True
    predicts_alike: bool = True
