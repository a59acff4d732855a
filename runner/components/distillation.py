"""Knowledge distillation: a model learns from the logits and features of a trained one, its teacher."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from torch import Tensor
from torch.nn.functional import kl_div

from runner.engine.distillation import Distillation
from runner.engine.losses import at_least_float32
from runner.registry import register
from runner.relations import OfLength, OneOf, With
from runner.roles import FilePath, Role, Unnamed
from runner.schema import NonNegative, NotEmpty, Positive, Range, Sha256

_Pair = Annotated[list[str], OfLength(2, "[stage of the model, stage of the teacher]")]


@register("distillation")
def none() -> None:
    """Return nothing: the model learns from the labels."""


@register("distillation")
def logits(
    *,
    teacher: Annotated[str | None, Role.PATH, FilePath(sweeps=True)],
    teacher_sha256: Annotated[Sha256 | None, Unnamed()],
    temperature: Positive,
    alpha: Annotated[float, Range(0, 1), With("features", 0.0, Range(0, 1, open_high=True))],
    features: NonNegative,
    stages: Annotated[list[_Pair] | None, NotEmpty(), With("features", 0.0, OneOf((None,)))],
) -> Distillation:
    """Return distillation (Hinton et al. 2015, arXiv 1503.02531): `alpha * loss + (1 - alpha) * soft`.

    `soft` is `T ** 2 * KL(p || q)`, the mean over the examples, with the softmax p of the teacher's logits / T and q of
    the model's. The factor keeps the size of its gradients when T changes.

    The teacher sees the same images as the model, augmented and mixed, under its own preprocessing, in evaluation
    mode. `loss` is the option of that group, with its label smoothing. Both losses are logged, as `train/hard_loss`
    and `train/soft_loss`.

    `features` times a loss on features is added, which is logged as `train/feature_loss`: the mean squared difference
    of how alike the images of a micro-batch are to both models (Tung and Mori 2019, arXiv 1907.09682). It is the mean
    over the pairs of `stages`.
    """
    pairs = None if stages is None else [(own, theirs) for own, theirs in stages]
    return Distillation(teacher, teacher_sha256, partial(_soft_loss, temperature), alpha, features, pairs)


def _soft_loss(temperature: float, logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Return T ** 2 times the mean Kullback-Leibler divergence () from the teacher's to the model's probabilities."""
    log_q = (at_least_float32(logits) / temperature).log_softmax(1)
    log_p = (at_least_float32(teacher_logits) / temperature).log_softmax(1)
    return temperature**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)
