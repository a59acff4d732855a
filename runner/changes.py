"""The changes that altered numbers, in order of their versions (`runner.numerics`); imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from runner import concerns


class Change(NamedTuple):
    """A change that alters the numbers of the runs that use a part."""

    version: int  # one more than that of the change before, or equal if they are released together
    part: str  # as users call it: `optim=lamb`, `mix`, `clip`
    concerns: Callable[[concerns.Config], bool]  # True if a config uses the part
    says: str  # what changed, in one line, as in CHANGELOG.md
    scores: bool = False  # True if the scores of given weights change, too


CHANGES: tuple[Change, ...] = (
    Change(
        version=2,
        part="optim.rules with `until` or `active`",
        concerns=concerns.freezes,
        says="a frozen BatchNorm runs in evaluation mode and keeps its statistics",
    ),
    Change(
        version=3,
        part="a loss other than unweighted cross-entropy",
        concerns=concerns.trains_no_likelihood,
        says="the reported loss is the configured one instead of the negative log-likelihood of the softmax",
        scores=True,
    ),
    Change(
        version=3,
        part="predict=tta, ten_crop or mc_dropout",
        concerns=concerns.averages_predictions,
        says="the reported loss is that of the averaged logits instead of the averaged probabilities",
        scores=True,
    ),
    Change(
        version=3,
        part="validate_every",
        concerns=concerns.validates_between_steps,
        says="validation k comes after step `round(k * validate_every)`",
    ),
    Change(
        version=3,
        part="scheduler=step with a fraction of a step as `every`",
        concerns=concerns.has_fraction("scheduler", "every", "step"),
        says="drop k comes at step `round(k * every)`",
    ),
    Change(
        version=3,
        part="scheduler=exponential with a fraction of a step as `every`",
        concerns=concerns.has_fraction("scheduler", "every", "exponential"),
        says="the factor falls by `gamma` in exactly `every`",
    ),
    Change(
        version=3,
        part="scheduler=cyclic with a fraction of a step as `half`",
        concerns=concerns.has_fraction("scheduler", "half", "cyclic"),
        says="turning point k comes at step `round(k * half)` after the warm-up",
    ),
    Change(
        version=3,
        part="scheduler=cosine_restarts",
        concerns=concerns.restarts_do_not_fit,
        says="whole cycles fill the run after the warm-up, which ends at the smallest factor",
    ),
    Change(
        version=3,
        part="scheduler=onecycle",
        concerns=concerns.rises_to_a_fraction,
        says="the peak may lie between two steps, as in torch",
    ),
    Change(
        version=3,
        part="optim.rules with a window of steps",
        concerns=concerns.paces_are_rounded,
        says="the schedule within a window is never a step late through rounding",
    ),
    Change(
        version=3,
        part="average=swa from the start",
        concerns=concerns.averages_from_the_start,
        says="the untrained weights are not in the mean",
    ),
    Change(
        version=3,
        part="average=swa with a fraction of a step as `every`",
        concerns=concerns.has_fraction("average", "every", "swa"),
        says="snapshot k comes `round(k * every)` steps after the start",
    ),
    Change(
        version=3,
        part="augment=resized_crop",
        concerns=concerns.uses("augment", "resized_crop"),
        says="a window that does not fit into the image is drawn again, as in torchvision",
    ),
    Change(
        version=3,
        part="augment=random_erasing",
        concerns=concerns.uses("augment", "random_erasing"),
        says="a box that is not smaller than the image is drawn again, as in torchvision",
    ),
    Change(
        version=3,
        part="augment=trivialaugment",
        concerns=concerns.shifts_too_far,
        says="translations of images below 32 pixels reach no farther than the image",
    ),
    Change(
        version=3,
        part="predict=ten_crop",
        concerns=concerns.crops_at_odd_margins,
        says="the center crop begins at `round(margin / 2)`, also in the mirror image, as in torchvision",
        scores=True,
    ),
    Change(
        version=3,
        part="regularizer=l1, l2, elastic_net or max_norm",
        concerns=concerns.penalizes_tokens,
        says="penalties and max_norm act on the weights of layers only, not on positions, class tokens and layer scale",
    ),
    Change(
        version=3,
        part="optim=muon or muon_sgd",
        concerns=concerns.orthogonalizes_others,
        says="Muon orthogonalizes the weights of layers only, not gains of kernels and attention's learned keys",
    ),
    Change(
        version=3,
        part="data=imagefolder",
        concerns=concerns.uses("data", "imagefolder"),
        says="images of more formats are read, and orientations in XMP and behind the pixels are applied",
        scores=True,
    ),
)
