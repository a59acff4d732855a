"""Knowledge distillation: a model learns from the logits of a trained one, its teacher, beside the labels."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from torch import Tensor
from torch.nn.functional import kl_div

from runner.engine.distillation import Distillation
from runner.engine.losses import at_least_float32
from runner.registry import register
from runner.roles import FilePath, Role, Unnamed
from runner.schema import Positive, Range, Sha256


@register("distillation")
def none() -> None:
    """Return nothing: the model learns from the labels."""


@register("distillation")
def logits(
    *,
    teacher: Annotated[str | None, Role.PATH, FilePath(sweeps=True)],
    teacher_sha256: Annotated[Sha256 | None, Unnamed()],
    temperature: Positive,
    alpha: Annotated[float, Range(0, 1, open_high=True)],
) -> Distillation:
    """Return distillation of logits (Hinton et al. 2015, arXiv 1503.02531): `alpha * loss + (1 - alpha) * soft`.

    `soft` is `T ** 2 * KL(p || q)`, the mean over the examples, with the softmax p of the teacher's logits / T and q of
    the model's. The factor keeps the size of its gradients when T changes.

    The teacher sees the same images as the model, augmented and mixed, under its own preprocessing, in evaluation
    mode. `loss` is the option of that group, with its label smoothing. Both losses are logged, as `train/hard_loss`
    and `train/soft_loss`.
    """
    return Distillation(teacher, teacher_sha256, partial(_soft_loss, temperature), alpha)


def _soft_loss(temperature: float, logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return T ** 2 times the mean Kullback-Leibler divergence () from the teacher's to the model's probabilities."""
    log_q = (at_least_float32(logits) / temperature).log_softmax(1)
    log_p = (at_least_float32(teacher_logits) / temperature).log_softmax(1)
    return temperature**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)
